"""Distributed data-parallel training on workers."""

from __future__ import annotations

import difflib
import inspect
import logging
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar

import mltoolkit
from mltoolkit.lightning._environment import RankEnvironment
from mltoolkit.lightning._known import Dumped
from mltoolkit.lightning._launcher import RayLauncher, preloaded
from mltoolkit.lightning._package import PackageClass, implementation
from mltoolkit.lightning._results import dump_new_modules
from mltoolkit.train._internal.worker_group import Ranks, ensure_session
from mltoolkit.train._scaling import ScalingConfig
from mltoolkit.util import preload_modules

__all__ = ["RayPlugin", "RayStrategy"]

logger = logging.getLogger(__name__)

_DEFAULT_TIMEOUT_S = 1800.0

_MADE_HERE = frozenset(
    {"accelerator", "module", "device_ids", "output_device", "process_group", "device_mesh"}
    | {"parallel_devices", "cluster_environment", "start_method"}
)
"""Arguments of Lightning's strategy and of DistributedDataParallel that are not the program's to give."""


class RayStrategy(PackageClass):
    """Trains copies of a model on worker processes and averages their gradients.

    A subclass of Lightning's ``DDPStrategy``, of ``lightning`` or ``pytorch_lightning``, whichever the program uses.
    Workers are forks of a clean process with the libraries loaded: they start in tens of milliseconds from scripts without
    a main guard and from notebooks, whatever the program has done with CUDA, and take models, lambdas and closures as they
    are. Afterwards the program's own model, trainer and callbacks are in the state of rank 0's.

    Parameters
    ----------
    num_workers : int, default=1
        Workers, which share what a batch of all of them is.
    num_cpus_per_worker : float, default=1
        CPUs of each; also the number of threads that torch uses there.
    use_gpu : bool, default=False
        Whether each gets a GPU.
    init_hook : callable, optional
        Called on each worker before anything else.
    resources_per_worker : dict, optional
        Further resources of each, such as ``{"disk": 1}``; ``"CPU"`` and ``"GPU"`` replace the numbers above.
    env_vars : dict, optional
        Environment variables of the workers.
    process_group_backend : str, optional
        Of torch; NCCL with GPUs and gloo without by default.
    timeout : datetime.timedelta, default=30 minutes
        That an operation may wait for the other workers.
    **ddp_kwargs
        For ``torch.nn.parallel.DistributedDataParallel``, such as ``find_unused_parameters=True``, and what Lightning's
        ``DDPStrategy`` takes.

    Raises
    ------
    TypeError, ValueError
        If a value is not what it should be.

    Notes
    -----
    If no session runs, one is started; workers that ask for more CPUs than the machine has share them there. A session that
    the program has started itself by ``init(num_cpus=...)`` is a limit.
    """

    _base_in_package: ClassVar[tuple[str, str]] = ("{package}.strategies", "DDPStrategy")
    strategy_name = "ddp_ray"

    def __init__(
        self,
        num_workers: int = 1,
        num_cpus_per_worker: float = 1,
        use_gpu: bool = False,
        init_hook: Callable[[], Any] | None = None,
        resources_per_worker: Mapping[str, float] | None = None,
        *,
        env_vars: Mapping[str, str] | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = None,
        **ddp_kwargs: Any,
    ) -> None:
        resources = dict(resources_per_worker or {})
        given_cpus = resources.pop("CPU", num_cpus_per_worker)
        given_gpus = resources.pop("GPU", 1 if use_gpu else 0)
        if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 1:
            raise ValueError(f"`num_workers` must be an integer >= 1, got {num_workers!r}.")
        for name, amount in (("num_cpus_per_worker", given_cpus), ("resources_per_worker['GPU']", given_gpus)):
            if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not amount >= 0:
                raise ValueError(f"`{name}` must be a number >= 0, got {amount!r}.")
        if init_hook is not None and not callable(init_hook):
            raise TypeError(f"`init_hook` must be a function without arguments, got {init_hook!r}.")
        for name in ("num_nodes", "start_method", "parallel_devices", "cluster_environment"):
            if name in ddp_kwargs:
                raise TypeError(
                    f"{type(self).__name__} has no argument `{name}`: workers are started wherever there is room for them. "
                    "Set `num_workers`."
                )
        _refuse_unknown(type(self), ddp_kwargs)
        # Checked as a trainer's are, and by the same names.
        scaling = ScalingConfig(
            num_workers=num_workers,
            use_gpu=given_gpus > 0,
            resources_per_worker={**resources, "CPU": given_cpus, **({"GPU": given_gpus} if given_gpus else {})},
        )
        import torch

        self.num_workers = num_workers
        self.num_cpus_per_worker = given_cpus
        self.use_gpu = given_gpus > 0
        self.init_hook = init_hook
        self.env_vars = dict(env_vars or {})
        self.worker_resources = scaling.worker_resources
        self._interrupted: Any = None
        self._has_failed = False
        self._known_modules: frozenset[str] = frozenset()
        self.new_modules: dict[str, Dumped] = {}
        self._launcher: Any
        self._devices = [
            torch.device("cuda", index) if self.use_gpu else torch.device("cpu") for index in range(num_workers)
        ]
        stand_in = self._accelerator_for_driver()
        super().__init__(
            accelerator=stand_in,
            parallel_devices=None if stand_in is not None else self._devices,
            cluster_environment=implementation(RankEnvironment, self._package)(num_workers),
            process_group_backend=process_group_backend,
            timeout=timedelta(seconds=_DEFAULT_TIMEOUT_S) if timeout is None else timeout,
            **ddp_kwargs,
        )

        if "ipykernel" in sys.modules:
            # The kernel's threads forbid a fork of it: what workers import is imported while the next cells are written.
            preload_modules(*preloaded(self._package))
            if not mltoolkit.is_initialized():
                ensure_session(num_workers, self.worker_resources)

    def _accelerator_for_driver(self) -> Any:
        """An accelerator that passes for one here, if only the workers have GPUs."""
        import torch

        if not self.use_gpu or torch.cuda.is_available():
            return None
        from mltoolkit.lightning._accelerator import WorkerGPUs

        return implementation(WorkerGPUs, self._package)()

    # What the launcher asks

    @property
    def timeout_s(self) -> float:
        """Seconds that an operation may wait for the other workers."""
        timeout: timedelta = self._timeout
        return timeout.total_seconds()

    @property
    def chosen_backend(self) -> str:
        """Backend of the process group."""
        return self._process_group_backend or ("nccl" if self.use_gpu else "gloo")

    def become_worker(self, ranks: Ranks, known_modules: Iterable[str]) -> None:
        """Take the place of a rank, in a worker process, with a model that has modules of these names."""
        self._launcher = None
        self._known_modules = frozenset(known_modules)
        self.new_modules = {}
        self.cluster_environment.become(ranks)
        self.set_world_ranks()

    def whole_state_dict(self) -> dict[str, Any]:
        """State dict of the model after training; called on all ranks."""
        state: dict[str, Any] = self.lightning_module.state_dict()
        return state

    def optimizers_to_return(self) -> Any:
        """Optimizers and configurations of learning-rate schedulers, for the driver after a fit; None for none."""
        return self.optimizers, self.lr_scheduler_configs

    def note_interrupt(self) -> None:
        """A Ctrl-C has ended a run: Lightning is about to ignore further ones for good."""
        self._interrupted = signal.getsignal(signal.SIGINT)
        self._has_failed = True

    def note_failure(self) -> None:
        """A run has failed: what callbacks save now, in ``on_exception``, is not its state."""
        self._has_failed = True

    # What Lightning asks

    def _configure_launcher(self) -> None:
        self.parallel_devices: Any = self._devices
        self._launcher = RayLauncher(self)

    def configure_ddp(self) -> None:
        """Wrap the model; what ``configure_model`` and the like have added to it is noted before, for the driver."""
        self._note_new_modules()
        base: Any = super()
        base.configure_ddp()

    def _note_new_modules(self) -> None:
        if self.global_rank == 0:
            self.new_modules = dump_new_modules(self.lightning_module.trainer, self._known_modules)

    @property
    def root_device(self) -> Any:
        """The worker's device; the CPU in the driver."""
        import torch

        if not self.cluster_environment.is_worker or not self.use_gpu:
            return torch.device("cpu")
        from mltoolkit.train.torch._device import worker_devices

        return worker_devices()[0]

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """How data loaders are split."""
        return {"num_replicas": self.num_workers, "rank": self.global_rank}

    @property
    def is_distributed(self) -> bool:
        """Always."""
        return True

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; in the driver, say so if it lacks what has stayed on the workers."""
        if self._has_failed:
            logger.warning(
                "The checkpoint %s is not saved: the state of the run that has failed has ended with its workers. "
                "ModelCheckpoint saves on the workers, while they run.",
                filepath,
            )
            return
        is_whole = checkpoint.get("optimizer_states", True) or not checkpoint.get("global_step")
        if not is_whole and not self.cluster_environment.is_worker:
            logger.warning(
                "The checkpoint %s has no states of optimizers: %s. To go on from it exactly as if there had been no "
                "break, take one that was saved on the workers, by ModelCheckpoint.",
                filepath,
                self._why_without_optimizers,
            )
        base: Any = super()
        base.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    _why_without_optimizers = "they could not be sent from the workers"

    def teardown(self) -> None:
        """Let go of what a run needed."""
        base: Any = super()
        base.teardown()
        self._has_failed = False
        if self._interrupted is not None:
            # So that the next run, in a notebook or an interactive session, can be interrupted as well.
            signal.signal(signal.SIGINT, self._interrupted)
            self._interrupted = None

    @property
    def num_nodes(self) -> int:
        """Nodes in Lightning's sense: one, as workers are numbered through."""
        return 1

    @num_nodes.setter
    def num_nodes(self, num_nodes: int) -> None:
        if num_nodes != 1:
            raise ValueError(
                f"`Trainer(num_nodes={num_nodes})` has no meaning with {type(self).__name__}: workers are started wherever "
                "there is room. Leave it out and set `num_workers` to the number of all of them."
            )

    def __getstate__(self) -> dict[str, Any]:
        # Optimizers of an earlier run are of no use to the workers, which make their own.
        gone: dict[str, list[Any]] = {"_optimizers": [], "_lightning_optimizers": [], "lr_scheduler_configs": []}
        return {**super().__getstate__(), **gone, "_launcher": None, "_interrupted": None}


def _refuse_unknown(cls: type, given: Mapping[str, Any]) -> None:
    """Refuse keywords that neither Lightning's strategy nor torch's DistributedDataParallel takes."""
    from torch.nn.parallel import DistributedDataParallel

    lightning_class = next(each for each in cls.__mro__ if each.__name__ == "DDPStrategy")
    own = _keywords(RayStrategy)
    known = {*own, *_keywords(lightning_class), *_keywords(DistributedDataParallel)} - _MADE_HERE
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise TypeError(
                f"{cls.__name__} has no argument `{name}`.{hint} It takes {', '.join(own)}, and what torch's "
                "DistributedDataParallel does."
            )


def _keywords(cls: type) -> list[str]:
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)][1:]


class RayPlugin(RayStrategy):
    """:class:`RayStrategy` under its older name, for ``Trainer(plugins=[RayPlugin(...)])``.

    Today's Lightning takes strategies as ``Trainer(strategy=...)`` alone. The older form works in programs that are run by
    ``python -m mltoolkit`` or after ``mltoolkit.compat.install()``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make a strategy, and let today's Lightning take it in its older place."""
        made = super().__new__(cls, *args, **kwargs)
        from mltoolkit import compat

        if compat.is_installed():
            compat.allow_strategies_among_plugins(made._package)
        return made

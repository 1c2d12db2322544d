"""How many workers a training run has, and what each of them gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mltoolkit.train._config import checked_keywords

if TYPE_CHECKING:
    from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory

__all__ = ["ScalingConfig"]

_STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


@checked_keywords
@dataclass(repr=False)
class ScalingConfig:
    """Number of workers of a training run and the resources of each.

    Parameters
    ----------
    trainer_resources : dict, optional
        Resources of the process that directs the workers, which computes nothing; nothing by default.
    num_workers : int >= 0, default=1
        Worker processes. 0 runs the training function in the process that calls ``fit``, for debuggers.
    use_gpu : bool, default=False
        Whether each worker gets a GPU.
    resources_per_worker : dict, optional
        Such as ``{"CPU": 2, "GPU": 1}``; by default one CPU, and one GPU with `use_gpu`.
    placement_strategy : {'PACK', 'SPREAD', 'STRICT_PACK', 'STRICT_SPREAD'}, default='PACK'
        How workers are spread over nodes.
    accelerator_type : None
        For Ray's signature; any other value raises.

    Raises
    ------
    TypeError, ValueError
        If a value is not what it should be.
    NotImplementedError
        For elastic runs (a pair as `num_workers`), TPUs, labels and accelerator types; the text says what to do instead.

    Examples
    --------
    >>> scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 2})
    >>> scaling.total_resources
    {'CPU': 4.0}
    """

    trainer_resources: dict[str, float] | None = None
    num_workers: int = 1
    use_gpu: bool = False
    resources_per_worker: dict[str, float] | None = None
    placement_strategy: str = "PACK"
    accelerator_type: str | None = None
    label_selector: Any = None
    use_tpu: bool = False
    topology: str | None = None
    elastic_resize_monitor_interval_s: float = 60.0

    def __post_init__(self) -> None:
        value: Any = self.num_workers
        if isinstance(value, (tuple, list)):
            raise NotImplementedError(
                f"`ScalingConfig.num_workers={value!r}` asks for an elastic run, which is not supported. Give the number "
                "of workers; a run that loses one goes on from its last checkpoint with `FailureConfig(max_failures=...)`."
            )
        if value is None:
            self.num_workers = value = 1
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"`ScalingConfig.num_workers` must be an integer >= 0, got {value!r}.")
        if value < 0:
            raise ValueError(f"`ScalingConfig.num_workers` must be an integer >= 0, got {value}.")
        if not isinstance(self.use_gpu, bool):
            raise TypeError(f"`ScalingConfig.use_gpu` must be True or False, got {self.use_gpu!r}.")
        if self.placement_strategy not in _STRATEGIES:
            raise ValueError(
                f"`ScalingConfig.placement_strategy` must be one of {', '.join(_STRATEGIES)}, "
                f"got {self.placement_strategy!r}."
            )
        self._refuse_what_is_not_offered()
        for name in ("trainer_resources", "resources_per_worker"):
            given = getattr(self, name)
            if given is not None:
                setattr(self, name, _checked(name, given))
        worker = self.resources_per_worker or {}
        if self.use_gpu and worker.get("GPU") == 0:
            raise ValueError(
                "`ScalingConfig.use_gpu` is True but `resources_per_worker` gives each worker 0 GPUs. "
                "Leave 'GPU' out of it, or set `use_gpu=False`."
            )
        if not self.use_gpu and worker.get("GPU"):
            raise ValueError(
                f"`ScalingConfig.resources_per_worker` asks for {worker['GPU']:g} GPU but `use_gpu` is False. "
                "Set `use_gpu=True`, or leave 'GPU' out."
            )

    def _refuse_what_is_not_offered(self) -> None:
        alternatives = {
            "accelerator_type": "name the accelerator as a custom resource in `resources_per_worker`",
            "label_selector": "name the nodes by a custom resource in `resources_per_worker`",
            "use_tpu": "use GPUs or CPUs",
            "topology": "it describes TPUs; use GPUs or CPUs",
        }
        for name, instead in alternatives.items():
            value = getattr(self, name)
            if value not in (None, False):
                raise NotImplementedError(f"`ScalingConfig.{name}={value!r}` is not supported: {instead}.")
        if self.elastic_resize_monitor_interval_s != 60.0:
            raise NotImplementedError(
                "`ScalingConfig.elastic_resize_monitor_interval_s` is not supported: runs have a fixed number of workers."
            )

    @property
    def worker_resources(self) -> dict[str, float]:
        """What each worker gets, without resources of which it gets none."""
        given = dict(self.resources_per_worker or {"CPU": 1.0})
        if self.use_gpu:
            given.setdefault("GPU", 1.0)
        return {name: amount for name, amount in given.items() if amount}

    @property
    def num_cpus_per_worker(self) -> float:
        """CPUs of each worker."""
        return self.worker_resources.get("CPU", 0.0)

    @property
    def num_gpus_per_worker(self) -> float:
        """GPUs of each worker."""
        return self.worker_resources.get("GPU", 0.0)

    @property
    def total_workers(self) -> int:
        """Number of workers, under the name that other Ray libraries give it."""
        return self.num_workers

    @property
    def total_resources(self) -> dict[str, float]:
        """The sum over the directing process and all workers."""
        total = dict(self.trainer_resources or {})
        for name, amount in self.worker_resources.items():
            total[name] = total.get(name, 0.0) + amount * self.num_workers
        return {name: amount for name, amount in total.items() if amount}

    def as_placement_group_factory(self) -> PlacementGroupFactory:
        """The request of a trial that runs this: a bundle for the directing process, one for each worker.

        Returns
        -------
        PlacementGroupFactory
        """
        from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory

        bundles = [dict(self.trainer_resources or {})]
        if self.num_workers == 0:
            bundles = [bundles[0] or dict(self.worker_resources)]
        bundles += [dict(self.worker_resources) for _ in range(self.num_workers)]
        return PlacementGroupFactory(bundles, strategy=self.placement_strategy)


def _checked(name: str, resources: Any) -> dict[str, float]:
    if not isinstance(resources, Mapping):
        raise TypeError(f"`ScalingConfig.{name}` must be a dict such as {{'CPU': 2}}, got {resources!r}.")
    checked = {}
    for key, amount in resources.items():
        if not isinstance(key, str) or not key:
            raise TypeError(f"Names in `ScalingConfig.{name}` must be texts such as 'CPU', got {key!r}.")
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not amount >= 0:
            raise ValueError(f"`ScalingConfig.{name}[{key!r}]` must be a number >= 0, got {amount!r}.")
        if key in ("cpu", "gpu"):
            raise ValueError(f"`ScalingConfig.{name}` names {key!r}; resources are in upper case: {key.upper()!r}.")
        checked[key] = float(amount)
    return checked

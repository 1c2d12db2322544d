"""The base of trainers that run one function on many workers."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import RunConfig
from mltoolkit.train._internal.datasets import DataConfig
from mltoolkit.train._result import Result
from mltoolkit.train._scaling import ScalingConfig
from mltoolkit.train.backend import BackendConfig
from mltoolkit.train.error import ControllerError, TrainingFailedError, WorkerGroupError

__all__ = ["BaseTrainer", "DataParallelTrainer"]

logger = logging.getLogger(__name__)

Trainer = TypeVar("Trainer", bound="BaseTrainer")


class BaseTrainer:
    """What all trainers have in common: how a run is scaled, stored, restored and tuned.

    Subclasses implement :meth:`training_loop`.

    Parameters
    ----------
    scaling_config : ScalingConfig, optional
    run_config : RunConfig, optional
    datasets : dict, optional
        Datasets by name.
    metadata : dict, optional
        Plain data, which ``train.get_context().get_metadata()`` gives.
    resume_from_checkpoint : Checkpoint, optional
        What ``train.get_checkpoint()`` gives at the beginning.
    """

    #: What workers import, so that it is imported once for all of them.
    _preloaded: tuple[str, ...] = ()

    #: Those whose methods the process of the trial calls.
    _callbacks: Sequence[Any] = ()

    #: Whether the process of the trial only directs others.
    _directs = False

    #: Under which the return value of the training function is left for `fit`; None where nobody asks for it.
    _return_key: str | None = None

    #: What `param_space` of a `Tuner` may set.
    _tunable: tuple[str, ...] = ("scaling_config", "datasets", "metadata", "resume_from_checkpoint")

    def __init__(
        self,
        *,
        scaling_config: ScalingConfig | None = None,
        run_config: RunConfig | None = None,
        datasets: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume_from_checkpoint: Checkpoint | None = None,
    ) -> None:
        configured: tuple[tuple[str, Any, type], ...] = (
            ("scaling_config", scaling_config, ScalingConfig),
            ("run_config", run_config, RunConfig),
            ("resume_from_checkpoint", resume_from_checkpoint, Checkpoint),
        )
        for name, value, kind in configured:
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"`{name}` must be a {kind.__name__}, got {value!r}.")
        for name, named in (("datasets", datasets), ("metadata", metadata)):
            if named is not None and not isinstance(named, Mapping):
                raise TypeError(f"`{name}` must be a dict, got {named!r}.")
        self.scaling_config = scaling_config or ScalingConfig()
        self.run_config = run_config or RunConfig()
        self.datasets = dict(datasets or {})
        self.metadata = dict(metadata or {})
        self.resume_from_checkpoint = resume_from_checkpoint

    def training_loop(self) -> Any:
        """What the trial of this trainer does: reports with ``train.report``. What it returns is the result's value."""
        raise NotImplementedError(f"{type(self).__name__} must implement `training_loop`.")

    @property
    def _runs_here(self) -> bool:
        """Whether `fit` needs no other process."""
        return False

    def fit(self) -> Result:
        """Run the training.

        With a `name` and `storage_path` that a run has had before, it goes on from that run's latest checkpoint: a program
        whose process died need only be started again. A `resume_from_checkpoint` of the trainer comes first.

        Returns
        -------
        Result

        Raises
        ------
        TrainingFailedError
            If it fails for good, after ``FailureConfig.max_failures`` new beginnings.
        KeyboardInterrupt
            After Ctrl-C; what was reported is kept.
        """
        if self._runs_here:
            from mltoolkit.train._internal.local import fit_here

            return fit_here(self)
        from mltoolkit.train._internal.returned import ReturnedValue
        from mltoolkit.train._internal.worker_group import ensure_session
        from mltoolkit.tune.tuner import Tuner
        from mltoolkit.util import preload_modules

        scaling = self.scaling_config
        preload_modules(*self._preloaded)  # before a session starts
        trainer = copy.copy(self)
        trainer.resume_from_checkpoint = self.resume_from_checkpoint or self._latest_checkpoint()
        if scaling.num_workers:
            resources = ensure_session(scaling.num_workers, scaling.worker_resources)
            trainer.scaling_config = dataclasses.replace(scaling, resources_per_worker=resources)
        else:
            ensure_session(1, scaling.trainer_resources or {})
        with ReturnedValue() as returned:
            trainer._return_key = returned.key
            try:
                results = Tuner(trainer, run_config=self.run_config).fit()
            except TypeError as error:
                named = _named_part(error)
                if named is None:
                    raise
                raise TypeError(named) from error
            result = results[0]
            if result.error is not None:
                failure, cause = _failure(result.error, self._directs)
                raise failure from cause
            if results.num_terminated == 0:
                raise KeyboardInterrupt
            result.return_value = returned.get()
        if result.checkpoint is None and self.resume_from_checkpoint is None:
            result.checkpoint = trainer.resume_from_checkpoint  # of the same run, which has needed no other
        return result

    def _latest_checkpoint(self) -> Checkpoint | None:
        """The latest checkpoint of the run that has had the same name, if there was one of this trainer."""
        from mltoolkit.tune.execution._build import results_folder
        from mltoolkit.tune.tuner import Tuner

        if not self.run_config.name:
            return None
        folder = results_folder(self.run_config) / self.run_config.name
        if not Tuner.can_restore(folder) or any(folder.glob(f"{type(self).__name__}_*_00001_*")):
            return None  # there is none, or it was a sweep
        # A run that went on and was stopped before its first checkpoint has none: that of the one before counts.
        kept = list(folder.glob(f"{type(self).__name__}_*_00000_*/checkpoint_*"))
        if not kept:
            return None
        latest = max(kept, key=lambda checkpoint: (checkpoint.stat().st_mtime_ns, checkpoint.name))
        logger.warning("The run %r goes on from %s. Give another `RunConfig.name` to begin anew.", folder.name, latest)
        return Checkpoint(latest)

    @classmethod
    def can_restore(cls, path: str | os.PathLike[str], storage_filesystem: None = None) -> bool:
        """Whether a folder holds a run that :meth:`restore` can go on with.

        Parameters
        ----------
        path : str or path
            ``<storage_path>/<name>`` of the run.
        storage_filesystem : None
            For Ray's signature; any other value raises.

        Returns
        -------
        bool
        """
        from mltoolkit.tune.tuner import Tuner

        return Tuner.can_restore(path, storage_filesystem)

    @classmethod
    def restore(
        cls: type[Trainer],
        path: str | os.PathLike[str],
        storage_filesystem: None = None,
        datasets: Mapping[str, Any] | None = None,
        scaling_config: ScalingConfig | None = None,
        **changed: Any,
    ) -> Trainer:
        """The trainer of a run that was interrupted or has failed; its `fit` goes on from the latest checkpoint.

        Reads a pickle, which must be one's own: a file that another user may write is refused.

        Parameters
        ----------
        path : str or path
            ``<storage_path>/<name>`` of the run.
        storage_filesystem : None
            For Ray's signature; any other value raises.
        datasets : dict, optional
        scaling_config : ScalingConfig, optional
        **changed
            Other arguments of the trainer that are to differ, or that could not be kept, such as
            `train_loop_per_worker`.

        Returns
        -------
        BaseTrainer

        Raises
        ------
        FileNotFoundError
            If the folder holds no run.
        TypeError
            If it holds one of another kind of trainer, or an argument is unknown.
        """
        from mltoolkit.tune.execution._definition import load_definition

        if storage_filesystem is not None:
            raise NotImplementedError("`storage_filesystem` is not supported: copy the run to a local folder.")
        folder = Path(path).expanduser().absolute()
        definition = load_definition(folder)
        trainer = getattr(definition.trainable, "trainer", None)
        if not isinstance(trainer, cls):
            raise TypeError(f"{folder} holds a run of {definition.trainable_label}, not of {cls.__name__}.")
        given = {"datasets": datasets, "scaling_config": scaling_config, **changed}
        for name, value in given.items():
            if value is None:
                continue
            if name not in vars(trainer) or name.startswith("_"):
                raise TypeError(f"{cls.__name__}.restore() has no argument `{name}`.")
            setattr(trainer, name, value)
        trainer.run_config = definition.run_config
        trainer.run_config.name, trainer.run_config.storage_path = folder.name, str(folder.parent)
        return trainer

    def as_trainable(self) -> Any:
        """Make a function trainable of this trainer; `tune.Tuner` does so by itself.

        Returns
        -------
        callable
            A function trainable that asks for the resources of the workers.
        """
        from mltoolkit.tune.trainable.util import with_resources
        from mltoolkit.util import preload_modules

        preload_modules(*self._preloaded)
        trainer = copy.copy(self)
        # Callbacks and the like are the program's: they may hold what no other process can have.
        trainer.run_config = copy.copy(self.run_config)
        for name in ("callbacks", "progress_reporter", "stop"):
            setattr(trainer.run_config, name, None)
        trainer._callbacks = [each for each in self.run_config.callbacks or () if hasattr(each, "after_report")]

        def run(config: dict[str, Any]) -> None:
            returned = trainer._with(config).training_loop()
            if trainer._return_key is not None:
                from mltoolkit.train._internal.returned import leave

                leave(trainer._return_key, returned)

        run.__name__ = type(self).__name__
        run.trainer = trainer  # type: ignore[attr-defined]  # where `restore` finds it
        return with_resources(run, lambda config: trainer._with(config).scaling_config.as_placement_group_factory())

    def _with(self, config: Mapping[str, Any]) -> BaseTrainer:
        """Return this trainer with what a trial's configuration changes."""
        changed = copy.copy(self)
        for name, value in config.items():
            if name not in self._tunable:
                near = difflib.get_close_matches(name, self._tunable, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"`param_space` of a {type(self).__name__} has {name!r}.{hint} It may have "
                    f"{', '.join(self._tunable)}; hyperparameters of the training function go into "
                    "{'train_loop_config': {...}}."
                )
            old = getattr(self, name)
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                value = {**old, **value}
            elif name == "scaling_config" and isinstance(value, Mapping):
                value = ScalingConfig(**value)
            setattr(changed, name, value)
        return changed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.scaling_config!r})"


class DataParallelTrainer(BaseTrainer):
    """Runs one function on many workers, each with its part of the data.

    The base for frameworks: a subclass passes a :class:`~mltoolkit.train.backend.BackendConfig` whose backend sets the
    framework up on the workers.

    Parameters
    ----------
    train_loop_per_worker : callable
        Takes `train_loop_config`, or nothing. Reports with ``train.report``.
    train_loop_config : dict, optional
    backend_config : BackendConfig, optional
    scaling_config : ScalingConfig, optional
        Number of workers and the resources of each; one worker with one CPU by default.
    run_config : RunConfig, optional
        Name, folder, failures, checkpoints.
    datasets : dict, optional
        Datasets by name: lists, arrays, tensors, tables, torch datasets or functions that make one. Each worker gets its
        part with ``train.get_dataset_shard(name)``.
    dataset_config : DataConfig, optional
        Which datasets are split; all by default.
    metadata : dict, optional
    resume_from_checkpoint : Checkpoint, optional

    Examples
    --------
    >>> import tempfile
    >>> from mltoolkit import train
    >>> def loop(config):
    ...     rank = train.get_context().get_world_rank()
    ...     rows = train.get_dataset_shard("train")
    ...     train.report({"total": sum(rows) + config["bias"], "rank": rank})
    >>> trainer = DataParallelTrainer(
    ...     loop,
    ...     train_loop_config={"bias": 100},
    ...     scaling_config=train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
    ...     run_config=train.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    ...     datasets={"train": [1, 2, 3, 4]},
    ... )
    >>> trainer.fit().metrics["total"]  # rank 0 has the first half
    103
    """

    _directs = True
    _tunable = ("train_loop_config", "dataset_config", *BaseTrainer._tunable)
    _preloaded: tuple[str, ...] = ("mltoolkit.train._internal.run", "mltoolkit.tune.execution._trial_actor")

    def __init__(
        self,
        train_loop_per_worker: Callable[..., Any],
        *,
        train_loop_config: Mapping[str, Any] | None = None,
        backend_config: BackendConfig | None = None,
        scaling_config: ScalingConfig | None = None,
        run_config: RunConfig | None = None,
        datasets: Mapping[str, Any] | None = None,
        dataset_config: DataConfig | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume_from_checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__(
            scaling_config=scaling_config,
            run_config=run_config,
            datasets=datasets,
            metadata=metadata,
            resume_from_checkpoint=resume_from_checkpoint,
        )
        if not callable(train_loop_per_worker):
            raise TypeError(f"`train_loop_per_worker` must be a function, got {train_loop_per_worker!r}.")
        _count_parameters(train_loop_per_worker)
        if train_loop_config is not None and not isinstance(train_loop_config, Mapping):
            raise TypeError(f"`train_loop_config` must be a dict, got {train_loop_config!r}.")
        if backend_config is not None and not isinstance(backend_config, BackendConfig):
            raise TypeError(f"`backend_config` must be a BackendConfig, got {backend_config!r}.")
        if dataset_config is not None and not isinstance(dataset_config, DataConfig):
            raise TypeError(f"`dataset_config` must be a train.DataConfig, got {dataset_config!r}.")
        self.train_loop_per_worker = train_loop_per_worker
        self.train_loop_config = dict(train_loop_config or {})
        self.backend_config = backend_config or BackendConfig()
        self.dataset_config = dataset_config or DataConfig()

    @property
    def _runs_here(self) -> bool:
        return self.scaling_config.num_workers == 0

    def training_loop(self) -> Any:
        """Direct the workers, in the process of the trial; return what rank 0 returns."""
        from mltoolkit.train._internal.run import TrainingRun
        from mltoolkit.train._internal.worker_group import WorkerGroup
        from mltoolkit.train._session import current_session

        session = current_session()
        assert session is not None, "a trainer's loop runs inside a trial"
        scaling = self.scaling_config
        takes_config = _count_parameters(self.train_loop_per_worker) > 0
        args = (dict(self.train_loop_config),) if takes_config else ()
        if scaling.num_workers == 0:
            from mltoolkit.train._internal.local import LocalSession

            with LocalSession(session, self.datasets, self.metadata, self.resume_from_checkpoint):
                return self.train_loop_per_worker(*args)
        return TrainingRun(
            session,
            WorkerGroup(
                scaling.num_workers,
                scaling.worker_resources,
                strategy=scaling.placement_strategy,
                runtime_env=self.run_config.worker_runtime_env,
            ),
            self.backend_config,
            self.train_loop_per_worker,
            args,
            shards=lambda count: self.dataset_config.shards(self.datasets, count),
            metadata=self.metadata,
            make_context=self.backend_config.train_func_context,
            checkpoint=self.resume_from_checkpoint,
            callbacks=[functools.partial(_call, each, self) for each in self._callbacks],
        ).run()


def _call(callback: Any, trainer: DataParallelTrainer, method: str, *args: Any) -> None:
    """Tell a callback what has happened."""
    from mltoolkit.train.user_callback import TrainRunContext

    names = ("run_config", "train_loop_config", "scaling_config", "backend_config", "dataset_config")
    getattr(callback, method)(TrainRunContext(**{name: getattr(trainer, name) for name in names}), *args)


def _count_parameters(function: Callable[..., Any]) -> int:
    """How many arguments a training function wants: none, or its configuration."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return 1  # built in, without a signature
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.kind in positional and p.default is inspect.Parameter.empty]
    accepted = [p for p in parameters if p.kind in positional or p.kind is inspect.Parameter.VAR_POSITIONAL]
    if len(needed) > 1:
        names = ", ".join(p.name for p in needed)
        raise ValueError(
            f"`train_loop_per_worker` must take the configuration or nothing, but it wants {len(needed)} arguments "
            f"({names}). Put them into `train_loop_config`."
        )
    return min(len(accepted), 1)


def _named_part(error: TypeError) -> str | None:
    """The text of an error about what cannot be pickled, by the names that the trainer's arguments have."""
    _, found, rest = str(error).partition("<closure trainer>.")
    return f"The trainer cannot be sent to its workers: `{rest}" if found else None


def _failure(error: BaseException, directs: bool) -> tuple[TrainingFailedError, BaseException]:
    """What `fit` raises for a trial's error, and what caused it."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, WorkerGroupError):
        return WorkerGroupError(cause.error_message, cause.worker_failures), next(iter(cause.worker_failures.values()))
    if isinstance(cause, TrainingFailedError):
        return cause, error
    if directs and isinstance(cause, Exception):
        return ControllerError(cause), error
    return TrainingFailedError(f"The training run failed: {cause}"), error

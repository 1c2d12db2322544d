"""Training functions in the process that directs the run: no workers, for debuggers."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import CheckpointConfig
from mltoolkit.train._result import Result
from mltoolkit.train._session import Session, current_session, set_session
from mltoolkit.train.context import TrainContext

if TYPE_CHECKING:
    from mltoolkit.train.data_parallel_trainer import BaseTrainer

__all__ = ["LocalSession", "fit_here"]


class LocalSession:
    """The only worker's session, in the process of the trial or of the program itself; a context manager.

    Parameters
    ----------
    outer : Session
        Takes results and checkpoints.
    datasets, metadata : dict
    checkpoint : Checkpoint, optional
        What to go on from, unless `outer` knows better.
    """

    def __init__(
        self, outer: Any, datasets: Mapping[str, Any], metadata: Mapping[str, Any], checkpoint: Checkpoint | None
    ) -> None:
        context = outer.context
        self.context = TrainContext(
            experiment_name=context.get_experiment_name(),
            trial_id=context.get_trial_id(),
            trial_name=context.get_trial_name(),
            trial_dir=context.get_trial_dir(),
            trial_resources=context.get_trial_resources(),
            metadata=dict(metadata),
        )
        self._outer = outer
        self._datasets = datasets
        self._checkpoint = checkpoint
        self._before: Session | None = None

    def __enter__(self) -> LocalSession:
        self._before = current_session()
        set_session(self)
        return self

    def __exit__(self, *exception: object) -> None:
        set_session(self._before)

    def report(self, metrics: dict[str, Any], checkpoint: Checkpoint | None = None) -> None:
        """Pass a result on."""
        self._outer.report(metrics, checkpoint)

    def exchange(self, data: Any) -> Any:
        """What the only worker has, since there is nobody to wait for."""
        return data

    def get_checkpoint(self) -> Checkpoint | None:
        """What to go on from, or what was reported last."""
        known: Checkpoint | None = self._outer.get_checkpoint()
        return known or self._checkpoint

    def get_dataset_shard(self, name: str | None) -> Any:
        """The whole dataset."""
        if name is None and not self._datasets:
            return None
        name = name or "train"
        if name not in self._datasets:
            given = ", ".join(repr(each) for each in self._datasets) or "none"
            raise KeyError(f"There is no dataset {name!r}: the trainer was given {given}.")
        dataset = self._datasets[name]
        is_maker = callable(dataset) and not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__")
        return dataset() if is_maker else dataset


class _Folder:
    """Keeps results and checkpoints of a run without a sweep around it."""

    def __init__(self, name: str, folder: str, config: CheckpointConfig) -> None:
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self._config = config
        self._count = 0
        self.results: list[dict[str, Any]] = []
        self.checkpoints: list[tuple[Checkpoint, dict[str, Any]]] = []
        self.checkpoint: Checkpoint | None = None
        self.context = TrainContext(
            experiment_name=name, trial_id=uuid.uuid4().hex[:8], trial_name=name, trial_dir=folder
        )

    def report(self, metrics: dict[str, Any], checkpoint: Checkpoint | None = None) -> None:
        metrics = {**metrics, "training_iteration": len(self.results) + 1}
        if checkpoint is not None:
            from mltoolkit.tune.execution._checkpoint_io import persist

            folder = os.path.join(self.folder, f"checkpoint_{self._count:06d}")
            self._count += 1
            persist(checkpoint, folder, shared=True)
            metrics["checkpoint_dir_name"] = os.path.basename(folder)
            self.checkpoint = Checkpoint(folder)
            self.checkpoints.append((self.checkpoint, metrics))
            self._remove_surplus()
        self.results.append(metrics)

    def _remove_surplus(self) -> None:
        from mltoolkit.tune.execution._checkpoint_manager import surplus_checkpoints

        like_a_trial: Any = self
        for surplus in surplus_checkpoints(like_a_trial, self._config):
            shutil.rmtree(surplus.path, ignore_errors=True)
            self.checkpoints = [pair for pair in self.checkpoints if pair[0] is not surplus]

    def get_checkpoint(self) -> Checkpoint | None:
        return self.checkpoint


def fit_here(trainer: BaseTrainer) -> Result:
    """Run a trainer without workers in this process; exceptions come as they are, and nothing is begun again.

    Raises
    ------
    NotImplementedError
        If the run has stopping criteria or callbacks, which belong to runs with workers.
    """
    from mltoolkit.train._records import make_frame
    from mltoolkit.tune.execution._build import results_folder

    run_config = trainer.run_config
    for option in ("stop", "callbacks", "worker_runtime_env"):
        if getattr(run_config, option):
            raise NotImplementedError(
                f"`RunConfig.{option}` is not supported with `num_workers=0`, which runs the training function in this process, "
                "for debuggers. Leave it out, or use `num_workers=1`."
            )
    name = run_config.name or f"{type(trainer).__name__}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    kept = _Folder(
        name, os.path.join(results_folder(run_config), name), run_config.checkpoint_config or CheckpointConfig()
    )
    before = current_session()
    set_session(kept)
    try:
        returned = trainer.training_loop()
    finally:
        set_session(before)
    return Result(
        kept.results[-1] if kept.results else {},
        kept.get_checkpoint(),
        path=kept.folder,
        best_checkpoints=kept.checkpoints,
        return_value=returned,
        _read_dataframe=lambda: make_frame(kept.results),
    )

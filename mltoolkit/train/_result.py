"""What came out of one trial or one training run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltoolkit.train._checkpoint import Checkpoint, local_filesystem
from mltoolkit.train._records import make_frame, read_error, read_params, read_results

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Result"]

# Tune's own keys, and the configuration, which would drown the reported metrics in a printed result.
_HIDDEN = frozenset(
    {
        "checkpoint_dir_name",
        "config",
        "date",
        "done",
        "experiment_tag",
        "hostname",
        "iterations_since_restore",
        "node_ip",
        "pid",
        "should_checkpoint",
        "time_since_restore",
        "time_this_iter_s",
        "time_total_s",
        "timestamp",
        "timesteps_since_restore",
        "training_iteration",
        "trial_id",
    }
)


class Result:
    """Metrics, checkpoints and error of a trial or a training run.

    Objects of this class come from `Tuner.fit`, or from :meth:`from_path`.

    Attributes
    ----------
    metrics : dict or None
        What was reported last, with Tune's own keys.
    checkpoint : Checkpoint or None
        The latest one.
    error : BaseException or None
        Why it failed, if it did.
    path : str or None
        Its folder; None if it was kept in memory.
    best_checkpoints : list of (Checkpoint, dict)
        Those that were kept, with the metrics that were reported with them.
    return_value : object
        What the training function of a trainer has returned on rank 0; None in all other results.
    """

    def __init__(
        self,
        metrics: dict[str, Any] | None,
        checkpoint: Checkpoint | None = None,
        error: BaseException | None = None,
        path: str | None = None,
        metrics_dataframe: pd.DataFrame | None = None,
        best_checkpoints: Sequence[tuple[Checkpoint, dict[str, Any]]] | None = None,
        _storage_filesystem: Any = None,
        return_value: Any = None,
        *,
        _read_dataframe: Callable[[], pd.DataFrame | None] | None = None,
    ) -> None:
        self.metrics = metrics
        self.checkpoint = checkpoint
        self.error = error
        self.path = path
        self.best_checkpoints = list(best_checkpoints or ())
        self.return_value = return_value
        self._filesystem = _storage_filesystem
        self._dataframe = metrics_dataframe
        self._read_dataframe = _read_dataframe

    @property
    def metrics_dataframe(self) -> pd.DataFrame | None:
        """All results, one row each; None if they were not kept. Read from disk when it is first asked for."""
        if self._dataframe is None and self._read_dataframe is not None:
            self._dataframe = self._read_dataframe()
            self._read_dataframe = None
        return self._dataframe

    @property
    def config(self) -> dict[str, Any] | None:
        """The configuration it ran with."""
        return (self.metrics or {}).get("config")

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem that `path` is on."""
        if self._filesystem is None:
            self._filesystem = local_filesystem()
        return self._filesystem

    def get_best_checkpoint(self, metric: str, mode: str) -> Checkpoint:
        """The kept checkpoint that was reported with the best value of a metric.

        Parameters
        ----------
        metric : str
            ``"a/b"`` for a nested one.
        mode : {'min', 'max'}
            Whether good is low or high.

        Returns
        -------
        Checkpoint

        Raises
        ------
        ValueError
            If `mode` is neither.
        RuntimeError
            If there is no checkpoint, or none was reported with that metric; the metrics there are get named.
        """
        from mltoolkit.tune.search._nested import lookup

        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")
        if not self.best_checkpoints:
            raise RuntimeError(f"No checkpoint was kept of {self.path or 'this result'}.")
        scored = [(lookup(metrics, metric), checkpoint) for checkpoint, metrics in self.best_checkpoints]
        scored = [(value, checkpoint) for value, checkpoint in scored if value is not None and value == value]
        if not scored:
            names = sorted({name for _, metrics in self.best_checkpoints for name in metrics})
            raise RuntimeError(f"No checkpoint was reported with the metric {metric!r}. There are: {', '.join(names)}.")
        return (max if mode == "max" else min)(scored, key=lambda pair: pair[0])[1]

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], storage_filesystem: None = None) -> Result:
        """The result that a trial's folder holds.

        Only data are read: no code in the folder is run, so that the error of a failed trial comes back as text.

        Parameters
        ----------
        path : str or path
            Folder of the trial, written here or by Ray.
        storage_filesystem : None
            For Ray's signature; any other value raises.

        Returns
        -------
        Result

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or no results in it.
        """
        if storage_filesystem is not None:
            raise NotImplementedError(
                f"`storage_filesystem={storage_filesystem!r}` is not supported. Copy the folder to a local disk."
            )
        folder = Path(path).expanduser().absolute()
        recorded = _from_journal(folder)
        if recorded is not None:
            return recorded
        results = read_results(folder)
        metrics = dict(results[-1]) if results else {}
        if metrics and "config" not in metrics:
            metrics["config"] = read_params(folder)
        by_checkpoint = {name: result for result in results if (name := result.get("checkpoint_dir_name"))}
        kept = [
            (Checkpoint(folder / name), by_checkpoint.get(name, {}))
            for name in sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
            if name.startswith("checkpoint_")
        ]
        return cls(
            metrics=metrics,
            checkpoint=kept[-1][0] if kept else None,
            error=_stored_error(folder),
            path=str(folder),
            best_checkpoints=kept,
            _read_dataframe=partial(make_frame, results),
        )

    def __repr__(self) -> str:
        return self._repr()

    def _repr(self, indent: int = 0) -> str:
        shown: dict[str, Any] = {}
        if self.error is not None:
            shown["error"] = type(self.error).__name__
        if self.metrics is not None:
            shown["metrics"] = {name: value for name, value in self.metrics.items() if name not in _HIDDEN}
        shown.update(path=self.path, checkpoint=self.checkpoint)
        margin = " " * indent
        lines = ",\n".join(f"{margin}  {name}={value!r}" for name, value in shown.items())
        return f"{margin}{type(self).__name__}(\n{lines}\n{margin})"


def _from_journal(folder: Path) -> Result | None:
    """What the journal of its experiment says of a trial, where there is one."""
    from mltoolkit.tune.execution.journal import FILE_NAME

    if not (folder.parent / FILE_NAME).exists():
        return None
    from mltoolkit.tune.analysis import ExperimentAnalysis
    from mltoolkit.tune.result_grid import ResultGrid

    for result in ResultGrid(ExperimentAnalysis(folder.parent)):
        if result.path is not None and os.path.basename(result.path) == folder.name:
            return result
    return None


def _stored_error(folder: Path) -> BaseException | None:
    text = read_error(folder)
    if text is None:
        return None
    from mltoolkit.tune.error import TuneError

    return TuneError(text)

"""Errors of Tune, with Ray's class names.

::

    TuneError (also RuntimeError)
    ├── TrialError              a trial failed and `raise_on_failed_trial` asks to say so
    ├── MissingMetricError      (also ValueError) a result lacks the metric that a scheduler or searcher needs
    └── StorageError            (also OSError) results or checkpoints cannot be written: the sweep stops
"""

from __future__ import annotations

__all__ = ["MissingMetricError", "StorageError", "TrialError", "TuneError"]


class TuneError(RuntimeError):
    """Base class of the errors that Tune raises."""


class TrialError(TuneError):
    """One or more trials of a sweep failed.

    Parameters
    ----------
    message : str
    trials : list of Trial, optional
        Those that failed.
    """

    def __init__(self, message: str, trials: list | None = None) -> None:
        super().__init__(message)
        self.trials = trials or []


class MissingMetricError(TuneError, ValueError):
    """A trial reported a result without the metric that the sweep is decided by."""


class StorageError(TuneError, OSError):
    """The folder of the experiment cannot be written any more; what was written before is intact."""

    def __str__(self) -> str:
        return RuntimeError.__str__(self)

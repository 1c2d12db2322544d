"""Results as TensorBoard events."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from mltoolkit import _optional
from mltoolkit.tune.logger import _events
from mltoolkit.tune.logger._files import AppendFiles
from mltoolkit.tune.logger._values import flatten, step_of
from mltoolkit.tune.logger.logger import LoggerCallback

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["TBXLoggerCallback"]

_PREFIX = "ray/tune/"  # the tags that dashboards were set up for
_NOT_LOGGED = frozenset({"config", "pid", "timestamp", "time_total_s", "training_iteration"})

logger = logging.getLogger(__name__)


class TBXLoggerCallback(LoggerCallback):
    """Write the results of each trial as TensorBoard events to its folder.

    Numeric metrics become scalars under ``ray/tune/<metric>``, nested keys joined with ``/``; lists of numbers
    become histograms. The step is ``timesteps_total``, or else ``training_iteration``. At the end of a trial its
    hyperparameters are written with its last metrics, for TensorBoard's table of them.

    The files are written by this package itself. Only arrays of three or four dimensions, which become images
    (channels first), need tensorboardX; without it they are left out with a warning.
    """

    VALID_HPARAMS = (str, bool, int, float, list, type(None))

    def __init__(self) -> None:
        self._files = AppendFiles()
        self._paths: dict[str, str] = {}
        self._scalars: dict[str, dict[str, float]] = {}
        self._warned = False

    def log_trial_start(self, trial: Trial) -> None:
        """Begin another file of events."""
        self._close(trial)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._paths[trial.trial_id] = os.path.join(trial.path, name)
        self._write(trial, _events.version_event(time.time()))

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Write one event with all metrics.

        Raises
        ------
        StorageError
            If the file cannot be written.
        """
        if trial.trial_id not in self._paths:
            self.log_trial_start(trial)
        scalars: dict[str, float] = {}
        values: list[bytes] = []
        for name, value in flatten({key: result[key] for key in result if key not in _NOT_LOGGED}).items():
            if isinstance(value, (int, float)):
                if value == value:  # not NaN
                    scalars[_PREFIX + name] = value
            elif isinstance(value, list) or hasattr(value, "ndim"):
                values += self._array(_PREFIX + name, value)
        self._scalars[trial.trial_id] = scalars
        self._write(trial, _events.scalars_event(time.time(), step_of(result), scalars, values))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Write the hyperparameters and close the trial's file."""
        scalars = self._scalars.get(trial.trial_id)
        if scalars and trial.evaluated_params:
            params = {name: _hparam(value) for name, value in flatten(trial.evaluated_params).items()}
            self._write(trial, b"".join(_events.hparams_events(time.time(), params, scalars, failed=failed)))
        self._close(trial)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Close the files of trials that never ended."""
        self._paths.clear()
        self._scalars.clear()
        self._files.close_all()

    def _close(self, trial: Trial) -> None:
        self._scalars.pop(trial.trial_id, None)
        path = self._paths.pop(trial.trial_id, None)
        if path is not None:
            self._files.close(path)

    def _array(self, tag: str, value: Any) -> list[bytes]:
        import numpy as np

        try:
            array = np.asarray(value)
            if array.size == 0:
                return []
            if array.ndim in (3, 4):
                summary = _optional.require("tensorboardX.summary", purpose="An image", extra="tensorboard")
                order = "CHW" if array.ndim == 3 else "NCHW"
                return [image.SerializeToString() for image in summary.image(tag, array, dataformats=order).value]
            numbers = array.astype(float).ravel()
            numbers = numbers[np.isfinite(numbers)]
            return [_events.histogram(tag, numbers)] if numbers.size else []
        except (ImportError, TypeError, ValueError) as error:
            if not self._warned:
                self._warned = True
                logger.warning("TBXLoggerCallback leaves out %s, which it cannot show: %s", tag, error)
            return []

    def _write(self, trial: Trial, event: bytes) -> None:
        self._files.append(self._paths[trial.trial_id], event)


def _hparam(value: Any) -> bool | int | float | str:
    if isinstance(value, (bool, str)) or (isinstance(value, (int, float)) and math.isfinite(value)):
        return value
    return str(value)

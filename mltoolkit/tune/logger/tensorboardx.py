"""Results as TensorBoard events."""

from __future__ import annotations

import functools
import logging
import math
import os
import socket
import struct
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mltoolkit import _optional
from mltoolkit.tune.logger._files import AppendFiles
from mltoolkit.tune.logger._values import flatten, step_of
from mltoolkit.tune.logger.logger import LoggerCallback

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["TBXLoggerCallback"]

_PREFIX = "ray/tune/"  # the tags that dashboards were set up for
_NOT_LOGGED = frozenset({"config", "pid", "timestamp", "time_total_s", "training_iteration"})
_MAX_BINS = 64  # of a histogram; outliers would ask for millions

logger = logging.getLogger(__name__)


class TBXLoggerCallback(LoggerCallback):
    """Write the results of each trial as TensorBoard events to its folder.

    Numeric metrics become scalars under ``ray/tune/<metric>``, nested keys joined with ``/``; lists of numbers
    become histograms, arrays of three or four dimensions images (channels first). The step is
    ``timesteps_total``, or else ``training_iteration``. At the end of a trial its hyperparameters are written
    with its last metrics.

    Raises
    ------
    ImportError
        If tensorboardX is not installed.
    """

    VALID_HPARAMS = (str, bool, int, float, list, type(None))

    def __init__(self) -> None:
        _tensorboardx("summary")
        # Not tensorboardX's SummaryWriter: it has a thread and a queue for each trial.
        self._files = AppendFiles()
        self._paths: dict[str, str] = {}
        self._scalars: dict[str, dict[str, float]] = {}
        self._warned = False

    def log_trial_start(self, trial: Trial) -> None:
        """Begin another file of events."""
        messages = _tensorboardx("proto.event_pb2")
        self._close(trial)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._paths[trial.trial_id] = os.path.join(trial.path, name)
        self._write(trial, messages.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Write one event with all metrics.

        Raises
        ------
        StorageError
            If the file cannot be written.
        """
        messages, parts = _tensorboardx("proto.event_pb2"), _tensorboardx("proto.summary_pb2")
        if trial.trial_id not in self._paths:
            self.log_trial_start(trial)
        scalars: dict[str, float] = {}
        values = []
        for name, value in flatten({key: result[key] for key in result if key not in _NOT_LOGGED}).items():
            tag = _PREFIX + name
            if isinstance(value, (int, float)):
                if not math.isnan(value):
                    scalars[tag] = value
                    values.append(parts.Summary.Value(tag=tag, simple_value=value))
            elif isinstance(value, list) or hasattr(value, "ndim"):
                values += self._array(tag, value)
        self._scalars[trial.trial_id] = scalars
        summary = parts.Summary(value=values)
        self._write(trial, messages.Event(wall_time=time.time(), step=step_of(result), summary=summary))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Write the hyperparameters and close the trial's file."""
        scalars = self._scalars.get(trial.trial_id)
        if scalars and trial.evaluated_params:
            self._hparams(trial, scalars)
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

    def _array(self, tag: str, value: Any) -> list[Any]:
        import numpy as np

        summary = _tensorboardx("summary")
        try:
            array = np.asarray(value)
            if array.size == 0:
                return []
            if array.ndim in (3, 4):
                return list(summary.image(tag, array, dataformats="CHW" if array.ndim == 3 else "NCHW").value)
            return list(summary.histogram(tag, array.astype(float).ravel(), "auto", _MAX_BINS).value)
        except (TypeError, ValueError) as error:
            if not self._warned:
                self._warned = True
                logger.warning("TBXLoggerCallback leaves out %s, which it cannot show: %s", tag, error)
            return []

    def _hparams(self, trial: Trial, scalars: dict[str, float]) -> None:
        hparams = _tensorboardx("summary").hparams
        messages = _tensorboardx("proto.event_pb2")
        params: dict[str, Any] = {}
        for name, value in flatten(trial.evaluated_params).items():
            if value is None:
                params[name] = "None"  # tensorboardX has no value for it
            elif isinstance(value, (list, tuple)) or not isinstance(value, self.VALID_HPARAMS):
                params[name] = str(value)
            else:
                params[name] = value
        for part in hparams(hparam_dict=params, metric_dict=scalars):
            self._write(trial, messages.Event(wall_time=time.time(), summary=part))

    def _write(self, trial: Trial, event: Any) -> None:
        self._files.append(self._paths[trial.trial_id], _record(event.SerializeToString()))


@functools.cache
def _tensorboardx(module: str) -> ModuleType:
    return _optional.require(f"tensorboardX.{module}", purpose="TBXLoggerCallback", extra="tensorboard")


def _record(data: bytes) -> bytes:
    """A record of the TFRecord format: length, checksum of the length, data, checksum of the data."""
    crc32c = _tensorboardx("crc32c").crc32c

    def masked(part: bytes) -> bytes:
        checksum = crc32c(part)
        return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)

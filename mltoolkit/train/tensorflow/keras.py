"""Reports from within ``model.fit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._session import report

__all__ = ["ReportCheckpointCallback"]  # noqa: F822  # made when it is asked for, since its base is Keras'

_MOMENTS = tuple(
    f"{part}_{moment}"
    for part in ("epoch", "train_batch", "test_batch", "predict_batch", "train", "test", "predict")
    for moment in ("begin", "end")
)


class _Reporting:
    """Reports metrics and checkpoints to the trainer.

    Parameters
    ----------
    checkpoint_on : str or list of str, default='epoch_end'
        When checkpoints are reported: Keras' hooks without ``on_``. An empty list for none.
    report_metrics_on : str or list of str, default='epoch_end'
        When metrics are reported; with each checkpoint they are in any case.
    metrics : str, list of str or dict, optional
        Which of Keras' metrics; a dict gives them new names, which are its keys. All by default.
    """

    def __init__(
        self,
        checkpoint_on: str | Sequence[str] = "epoch_end",
        report_metrics_on: str | Sequence[str] = "epoch_end",
        metrics: str | Sequence[str] | Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._checkpoint_on = _moments("checkpoint_on", checkpoint_on)
        self._report_on = _moments("report_metrics_on", report_metrics_on)
        names = [metrics] if isinstance(metrics, str) else metrics
        self._metrics = names if names is None or isinstance(names, Mapping) else {name: name for name in names}

    def _handle(self, moment: str, logs: Mapping[str, Any] | None) -> None:
        if moment not in self._checkpoint_on + self._report_on:
            return
        logs = dict(logs or {})
        names = self._metrics
        if names is not None:
            missing = [name for name in names.values() if name not in logs]
            if missing:
                raise KeyError(f"Keras has no metric {missing[0]!r} on {moment}. It has: {', '.join(logs) or 'none'}.")
            logs = {new: logs[name] for new, name in names.items()}
        if moment not in self._checkpoint_on:
            report(logs)
            return
        from mltoolkit.train.tensorflow.tensorflow_checkpoint import TensorflowCheckpoint

        report(logs, checkpoint=TensorflowCheckpoint.from_model(self.model))  # type: ignore[attr-defined]  # Keras sets it


def _moments(argument: str, given: str | Sequence[str]) -> list[str]:
    moments = [given] if isinstance(given, str) else list(given)
    for moment in moments:
        if moment not in _MOMENTS:
            raise ValueError(f"`{argument}` must name hooks of Keras' such as 'epoch_end', got {moment!r}.")
    return moments


def _hook(moment: str, has_index: bool) -> Any:
    if has_index:
        return lambda self, index, logs=None: self._handle(moment, logs)
    return lambda self, logs=None: self._handle(moment, logs)


def __getattr__(name: str) -> Any:
    if name != "ReportCheckpointCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    tf: Any = require("tensorflow", purpose="ReportCheckpointCallback", extra="tensorflow")
    hooks = {f"on_{moment}": _hook(moment, "batch" in moment or "epoch" in moment) for moment in _MOMENTS}
    body = {"__doc__": _Reporting.__doc__, "__module__": __name__, **hooks}
    made = type(name, (_Reporting, tf.keras.callbacks.Callback), body)
    globals()[name] = made
    return made

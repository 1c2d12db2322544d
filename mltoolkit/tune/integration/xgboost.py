"""Callbacks that report from XGBoost to the trial in which it trains.

They work in a trial that calls ``xgboost.train`` or fits an estimator of XGBoost, and in one that trains on actors with
``mltoolkit.xgboost``, where the first actor sends what there is to report to the trial.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mltoolkit._boosting.session import current_session as actor_session
from mltoolkit._optional import require
from mltoolkit.train import Checkpoint, report

__all__ = ["TuneReportCallback", "TuneReportCheckpointCallback"]

_xgboost: Any = require("xgboost", purpose="mltoolkit.tune.integration.xgboost", extra="xgboost")


class TuneReportCheckpointCallback(_xgboost.callback.TrainingCallback):
    """Reports evaluations after each round, and checkpoints of the model.

    Parameters
    ----------
    metrics : str, list of str or dict of str to str, optional
        Which to report: names such as ``"eval-logloss"``, or new names and the names they stand for. Default: all.
    filename : str, default="model.ubj"
        Name of the model's file in the checkpoint.
    frequency : int, default=0
        Rounds between checkpoints; 0 for none while it trains.
    checkpoint_at_end : bool, default=True
        Report a checkpoint when training is over.
    results_postprocessing_fn : callable, optional
        Turns the dict of metrics into the one that is reported.
    """

    CHECKPOINT_NAME = "model.ubj"

    def __init__(
        self,
        metrics: str | Sequence[str] | Mapping[str, str] | None = None,
        filename: str = CHECKPOINT_NAME,
        frequency: int = 0,
        checkpoint_at_end: bool = True,
        results_postprocessing_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self._metrics = [metrics] if isinstance(metrics, str) else metrics
        self._filename = filename
        self._frequency = frequency
        self._checkpoint_at_end = checkpoint_at_end
        self._postprocess = results_postprocessing_fn
        self._latest: dict[str, Any] = {}
        self._checkpoint_round = -1

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str = CHECKPOINT_NAME) -> Any:
        """Load the model of a checkpoint that this callback has reported.

        Parameters
        ----------
        checkpoint : Checkpoint
        filename : str, default="model.ubj"
            As given to the callback.

        Returns
        -------
        xgboost.Booster
        """
        with checkpoint.as_directory() as folder:
            return _xgboost.Booster(model_file=os.path.join(folder, filename))

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Report a round."""
        self._latest = self._report_dict(evals_log)
        due = bool(self._frequency) and (epoch + 1) % self._frequency == 0
        if due:
            self._checkpoint_round = epoch
        self._send(self._latest, model if due else None)
        return False

    def after_training(self, model: Any) -> Any:
        """Report the last checkpoint, unless the last round did."""
        if self._checkpoint_at_end and model.num_boosted_rounds() - 1 != self._checkpoint_round:
            self._send(self._latest, model)
        return model

    def _report_dict(self, evals_log: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        values = {f"{data}-{name}": list(each)[-1] for data, log in evals_log.items() for name, each in log.items()}
        if self._metrics:
            wanted = self._metrics if isinstance(self._metrics, Mapping) else {name: name for name in self._metrics}
            missing = [name for name in wanted.values() if name not in values]
            if missing:
                raise KeyError(
                    f"`metrics` names {missing[0]!r}, which is not evaluated; there are {', '.join(values) or 'none'}."
                )
            values = {new: values[name] for new, name in wanted.items()}
        return self._postprocess(values) if self._postprocess is not None else values

    def _send(self, metrics: dict[str, Any], model: Any) -> None:
        session = actor_session()
        if session is None:
            _report(metrics, None if model is None else _as_file(model, self._filename), self._filename)
        elif _xgboost.collective.get_rank() == 0:
            data = None if model is None else _as_file(model, self._filename)
            session.put_queue(functools.partial(_report, metrics, data, self._filename))


class TuneReportCallback(TuneReportCheckpointCallback):
    """Reports evaluations after each round, without checkpoints.

    Parameters
    ----------
    metrics : str, list of str or dict of str to str, optional
    results_postprocessing_fn : callable, optional
        See :class:`TuneReportCheckpointCallback`.
    """

    def __init__(
        self,
        metrics: str | Sequence[str] | Mapping[str, str] | None = None,
        results_postprocessing_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(metrics, checkpoint_at_end=False, results_postprocessing_fn=results_postprocessing_fn)


def _as_file(model: Any, filename: str) -> bytes:
    """The model in the format that the file's name asks for."""
    kind = "json" if filename.endswith(".json") else "ubj"
    return bytes(model.save_raw(kind))


def _report(metrics: dict[str, Any], data: bytes | None, filename: str) -> None:
    if data is None:
        if metrics:
            report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, filename), "wb") as file:
            file.write(data)
        report(metrics, checkpoint=Checkpoint.from_directory(folder))

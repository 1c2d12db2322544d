"""Callbacks that report from LightGBM to the trial in which it trains.

They work in a trial that calls ``lightgbm.train`` or fits an estimator of LightGBM, and in one that trains on actors with
``mltoolkit.lightgbm``, where the first actor sends what there is to report to the trial.
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


class TuneReportCheckpointCallback:
    """Reports evaluations after each round, and checkpoints of the model.

    Parameters
    ----------
    metrics : str, list of str or dict of str to str, optional
        Which to report: names such as ``"eval-binary_logloss"``, or new names and the names they stand for. Default: all.
        Those of ``lightgbm.cv`` end in ``-mean`` and ``-stdv``.
    filename : str, default="model.txt"
        Name of the model's file in the checkpoint.
    frequency : int, default=0
        Rounds between checkpoints; 0 for none while it trains.
    checkpoint_at_end : bool, default=True
        Report a checkpoint with the last round.
    results_postprocessing_fn : callable, optional
        Turns the dict of metrics into the one that is reported.

    Notes
    -----
    A round that turns out to be the last because of early stopping has been reported by then, so it brings no checkpoint:
    set `frequency` where training stops early.
    """

    CHECKPOINT_NAME = "model.txt"
    order = 25
    before_iteration = False
    #: Whether this copy speaks, where several actors train together.
    is_rank_0 = True

    def __init__(
        self,
        metrics: str | Sequence[str] | Mapping[str, str] | None = None,
        filename: str = CHECKPOINT_NAME,
        frequency: int = 0,
        checkpoint_at_end: bool = True,
        results_postprocessing_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self._metrics = [metrics] if isinstance(metrics, str) else metrics
        self._filename = filename
        self._frequency = frequency
        self._checkpoint_at_end = checkpoint_at_end
        self._postprocess = results_postprocessing_fn

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str = CHECKPOINT_NAME) -> Any:
        """Load the model of a checkpoint that this callback has reported.

        Parameters
        ----------
        checkpoint : Checkpoint
        filename : str, default="model.txt"
            As given to the callback.

        Returns
        -------
        lightgbm.Booster
        """
        lightgbm = require("lightgbm", purpose="get_model()", extra="lightgbm")
        with checkpoint.as_directory() as folder:
            return lightgbm.Booster(model_file=os.path.join(folder, filename))

    def __call__(self, env: Any) -> None:
        """Report a round."""
        last = env.iteration == env.end_iteration - 1 and self._checkpoint_at_end
        due = bool(self._frequency) and (env.iteration + 1) % self._frequency == 0
        metrics = self._report_dict(env.evaluation_result_list or ())
        if not self.is_rank_0:
            return
        text = env.model.model_to_string(num_iteration=-1) if last or due else None
        session = actor_session()
        send = functools.partial(_report, metrics, text, self._filename)
        if session is None:
            send()
        else:
            session.put_queue(send)

    def _report_dict(self, results: Sequence[Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for result in results:
            data, name, value, _, *deviation = result
            if deviation:  # of lightgbm.cv
                values[f"{data}-{name}-mean"], values[f"{data}-{name}-stdv"] = value, deviation[0]
            else:
                values[f"{data}-{name}"] = value
        if self._metrics:
            wanted = self._metrics if isinstance(self._metrics, Mapping) else {name: name for name in self._metrics}
            missing = [name for name in wanted.values() if name not in values]
            if missing:
                raise KeyError(
                    f"`metrics` names {missing[0]!r}, which is not evaluated; there are {', '.join(values) or 'none'}."
                )
            values = {new: values[name] for new, name in wanted.items()}
        return self._postprocess(values) if self._postprocess is not None else values


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


def _report(metrics: dict[str, Any], text: str | None, filename: str) -> None:
    if text is None:
        if metrics:
            report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, filename), "w", encoding="utf-8") as file:
            file.write(text)
        report(metrics, checkpoint=Checkpoint.from_directory(folder))

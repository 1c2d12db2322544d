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
    With ``mltoolkit.lightgbm``, a training that stops early ends in one more report, of the last round's evaluations and the
    model up to its best round. LightGBM by itself tells no callback that training is over: a round that turns out to be the
    last has been reported by then and brings no checkpoint, so set `frequency` there.
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
        metrics = self._report_dict(env.evaluation_result_list or ())
        if self.is_rank_0:
            self._send(metrics, _text_of(env.model, -1) if self._is_due(env) else None)

    def after_early_stopping(self, env: Any, best_rounds: int) -> None:
        """Report the model up to its best round: the one that was the last had been reported before anybody knew it was."""
        if self.is_rank_0 and self._checkpoint_at_end and not self._is_due(env):
            self._send(self._report_dict(env.evaluation_result_list or ()), _text_of(env.model, best_rounds))

    def _is_due(self, env: Any) -> bool:
        """Whether a round brings a checkpoint."""
        last = env.iteration == env.end_iteration - 1 and self._checkpoint_at_end
        return last or (bool(self._frequency) and (env.iteration + 1) % self._frequency == 0)

    def _send(self, metrics: dict[str, Any], text: str | None) -> None:
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


def _text_of(model: Any, rounds: int) -> str:
    """A model as its file holds it, without what says on how many machines it was trained."""
    text = str(model.model_to_string(num_iteration=rounds))
    if "\n[num_machines: 1]\n" in text:
        return text
    from mltoolkit.lightgbm._rounds import clean_model

    return clean_model(text)


def _report(metrics: dict[str, Any], text: str | None, filename: str) -> None:
    if text is None:
        if metrics:
            report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, filename), "w", encoding="utf-8") as file:
            file.write(text)
        report(metrics, checkpoint=Checkpoint.from_directory(folder))

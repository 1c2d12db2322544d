"""HyperBand as BOHB uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mltoolkit.tune.schedulers.hyperband import HyperBandScheduler

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

__all__ = ["HyperBandForBOHB"]


class HyperBandForBOHB(HyperBandScheduler):
    """HyperBand for :class:`~mltoolkit.tune.search.bohb.TuneBOHB`.

    It differs from :class:`HyperBandScheduler` in two things. The brackets of a band are filled from the largest one on,
    with many short trials, so that the searcher's model learns early. And the searcher is told what a trial has
    reached at a milestone: the result comes with ``hyperband_info/budget``, the time of that milestone; it is told as
    well when a trial is paused and goes on, since paused trials do not count against its limit.

    Parameters
    ----------
    time_attr, metric, mode, max_t, reduction_factor, stop_last_trials
        As for :class:`HyperBandScheduler`.

    References
    ----------
    Falkner, Klein, Hutter, BOHB: Robust and Efficient Hyperparameter Optimization at Scale, ICML 2018, Algorithm 1.

    Examples
    --------
    >>> HyperBandForBOHB(metric="loss", mode="min", max_t=81, reduction_factor=3).brackets()
    [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]
    """

    def _bracket_order(self) -> list[int]:
        """Values of s, the largest first: that bracket has the most trials."""
        return super()._bracket_order()[::-1]

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Tell the searcher of a milestone that was reached, then decide as HyperBand does."""
        self._tell_milestone(controller, trial, result)
        return super().on_trial_result(controller, trial, result)

    def on_trial_complete(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> None:
        """Tell the searcher of a milestone that was reached by ending; wait no more for the trial."""
        if result:
            self._tell_milestone(controller, trial, result)
        super().on_trial_complete(controller, trial, result)

    def _tell_milestone(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> None:
        bracket = self._bracket_of.get(trial.trial_id)
        if bracket is None or bracket.waits(trial.trial_id) or self._time_attr not in result:
            return
        if self._time(trial, result) < bracket.milestone:
            return
        result["hyperband_info"] = {"budget": bracket.milestone}
        searcher = _searcher_of(controller)
        if searcher is not None:
            searcher.on_trial_result(trial.trial_id, result)

    def _on_pause(self, controller: Controller, trial_id: str) -> None:
        if (searcher := _searcher_of(controller)) is not None:
            searcher.on_pause(trial_id)

    def _on_unpause(self, controller: Controller, trial_id: str) -> None:
        if (searcher := _searcher_of(controller)) is not None:
            searcher.on_unpause(trial_id)


def _searcher_of(controller: Controller) -> Any:
    """The searcher of the sweep, or None where configurations come from elsewhere."""
    return getattr(getattr(controller, "search_alg", None), "searcher", None)

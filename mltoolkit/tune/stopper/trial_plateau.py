"""Ending trials whose metric has come to rest."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from mltoolkit.tune.search._nested import lookup
from mltoolkit.tune.stopper._deviation import deviation
from mltoolkit.tune.stopper.stopper import Stopper

__all__ = ["TrialPlateauStopper"]


class TrialPlateauStopper(Stopper):
    """Ends a trial when its metric hardly changes any more.

    That is when the (population) standard deviation of the last results falls below a bound.

    Parameters
    ----------
    metric : str
        ``"a/b"`` for a nested one.
    std : float, default=0.01
        The bound, in the metric's unit.
    num_results : int >= 1, default=4
        How many results the deviation is taken over.
    grace_period : int, default=4
        Results that a trial has in any case.
    metric_threshold : float, optional
        A trial ends only once its metric is at least as good as this.
    mode : {'min', 'max'}, optional
        Needed with `metric_threshold`: whether good is low or high.

    Examples
    --------
    >>> stopper = TrialPlateauStopper("loss", std=0.01, num_results=2, grace_period=2)
    >>> [stopper("a", {"loss": loss}) for loss in (1.0, 0.5, 0.499)]
    [False, False, True]
    """

    def __init__(
        self,
        metric: str,
        std: float = 0.01,
        num_results: int = 4,
        grace_period: int = 4,
        metric_threshold: float | None = None,
        mode: str | None = None,
    ) -> None:
        if isinstance(num_results, bool) or not isinstance(num_results, int) or num_results < 1:
            raise ValueError(f"`num_results` must be an integer >= 1, got {num_results!r}.")
        if mode not in (None, "min", "max") or (metric_threshold is not None and mode is None):
            raise ValueError(f"`mode` must be 'min' or 'max' when `metric_threshold` is given, got {mode!r}.")
        self._metric = metric
        self._std = std
        self._num_results = num_results
        self._grace_period = grace_period
        self._metric_threshold = metric_threshold
        self._mode = mode
        self._iterations: Counter[str] = Counter()
        self._recent: dict[str, deque[Any]] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial's metric has come to rest."""
        value = lookup(result, self._metric)
        recent = self._recent.setdefault(trial_id, deque(maxlen=self._num_results))
        recent.append(value)
        self._iterations[trial_id] += 1
        if self._iterations[trial_id] < self._grace_period or len(recent) < self._num_results:
            return False
        if any(not isinstance(number, (int, float)) or number != number for number in recent):
            return False  # not reported each time, or NaN: no deviation can be told
        if self._metric_threshold is not None:
            if self._mode == "min" and value > self._metric_threshold:
                return False
            if self._mode == "max" and value < self._metric_threshold:
                return False
        return deviation(recent) < self._std

    def stop_all(self) -> bool:
        """False."""
        return False

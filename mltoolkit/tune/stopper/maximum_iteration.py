"""A bound on the number of results."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mltoolkit.tune.stopper.stopper import Stopper

__all__ = ["MaximumIterationStopper"]


class MaximumIterationStopper(Stopper):
    """Ends each trial after a number of results.

    Parameters
    ----------
    max_iter : int >= 1

    Examples
    --------
    >>> stopper = MaximumIterationStopper(2)
    >>> stopper("a", {}), stopper("b", {}), stopper("a", {})
    (False, False, True)
    """

    def __init__(self, max_iter: int) -> None:
        if isinstance(max_iter, bool) or not isinstance(max_iter, (int, float)) or not max_iter >= 1:
            raise ValueError(f"`max_iter` must be a number >= 1, got {max_iter!r}.")
        self._max_iter = max_iter
        self._iterations: Counter[str] = Counter()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial has reported that often."""
        self._iterations[trial_id] += 1
        return self._iterations[trial_id] >= self._max_iter

    def stop_all(self) -> bool:
        """False."""
        return False

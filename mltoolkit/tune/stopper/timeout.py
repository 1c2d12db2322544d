"""A bound on the time."""

from __future__ import annotations

import datetime
import logging
import math
import time
from typing import Any

from mltoolkit.tune.stopper.stopper import Stopper

__all__ = ["TimeoutStopper"]

logger = logging.getLogger(__name__)


class TimeoutStopper(Stopper):
    """Ends the experiment after a time.

    The time runs from the first call of :meth:`stop_all`, so that starting up costs none of it. What is left of it is
    pickled: a restored experiment goes on with that, and the time in between does not count.

    Parameters
    ----------
    timeout : float or datetime.timedelta
        In seconds.

    Examples
    --------
    >>> TimeoutStopper(3600).stop_all()
    False
    >>> TimeoutStopper(datetime.timedelta(0)).stop_all()
    True
    """

    def __init__(self, timeout: float | datetime.timedelta) -> None:
        if isinstance(timeout, datetime.timedelta):
            timeout = timeout.total_seconds()
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise ValueError(f"`timeout` must be a number of seconds or a `datetime.timedelta`, got {timeout!r}.")
        if math.isnan(timeout):
            raise ValueError("`timeout` must be a number of seconds, got nan.")
        self._timeout_s = timeout
        self._budget_s = timeout
        self._last_check: float | None = None
        self._announced = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """False: the experiment ends as a whole."""
        return False

    def stop_all(self) -> bool:
        """Whether the time is over."""
        now = time.monotonic()
        if self._last_check is not None:
            self._budget_s -= now - self._last_check
        self._last_check = now
        if self._budget_s > 0:
            return False
        if not self._announced:
            self._announced = True
            logger.info("The time budget of %s s is used up: all trials stop.", self._timeout_s)
        return True

    def __getstate__(self) -> dict[str, Any]:
        # The clock is this process's, and the next one is not charged for the time between.
        spent = 0.0 if self._last_check is None else time.monotonic() - self._last_check
        return {**self.__dict__, "_budget_s": self._budget_s - spent, "_last_check": None}

"""A value that runs linearly from point to point."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

__all__ = ["PiecewiseSchedule"]


class PiecewiseSchedule:
    """Linear interpolation between points in time.

    Parameters
    ----------
    endpoints : sequence of (t, value)
        Points with rising `t`.
    outside_value : float, optional
        Value before the first and after the last point; by default that of the nearest point.

    Examples
    --------
    >>> schedule = PiecewiseSchedule([(0, 1.0), (100, 0.5)])
    >>> schedule.value(50), schedule.value(1000)
    (0.75, 0.5)
    """

    def __init__(self, endpoints: Sequence[Sequence[float]], outside_value: float | None = None) -> None:
        self.endpoints = [(float(t), float(value)) for t, value in endpoints]
        if not self.endpoints:
            raise ValueError("`endpoints` must hold at least one (t, value), got none.")
        self._times = [t for t, _ in self.endpoints]
        if any(later <= earlier for earlier, later in zip(self._times, self._times[1:], strict=False)):
            raise ValueError(f"`endpoints` must have rising times, got {list(endpoints)!r}.")
        self.outside_value = outside_value

    def value(self, t: float) -> float:
        """The value at time `t`."""
        last = len(self._times) - 1
        if t < self._times[0] or t > self._times[last]:
            if self.outside_value is not None:
                return float(self.outside_value)
            return self.endpoints[0 if t < self._times[0] else last][1]
        left = min(bisect_right(self._times, t) - 1, last)
        (start, low) = self.endpoints[left]
        if t == start or left == last:
            return low
        (end, high) = self.endpoints[left + 1]
        return low + (high - low) * (t - start) / (end - start)

    __call__ = value

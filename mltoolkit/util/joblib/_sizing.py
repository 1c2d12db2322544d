"""How many calls make one task: pure arithmetic, no clock and no thread."""

from __future__ import annotations

TARGET_S = 0.25  # of work in a batch: makes the cost of a task, about a millisecond, invisible
MAX_GROWTH = 8  # per step: one lucky first call must not put everything into one batch
HARMLESS_S = 0.02  # ... but a batch as short as that cannot hurt even if the guess was ten times too low
SMOOTHING = 0.5  # weight of the newest batch


class BatchSizer:
    """Choose batch sizes from how long calls have taken.

    Parameters
    ----------
    target_s : float, default=TARGET_S
        Work in seconds that a batch should hold.

    Notes
    -----
    Times are those measured around the calls by the process that made them: waiting in queues and starting processes
    would make the first batches look slow and keep the next ones small.
    """

    def __init__(self, target_s: float = TARGET_S) -> None:
        self._target_s = target_s
        self._call_s: float | None = None
        self._size = 1

    def record(self, n_calls: int, seconds: float) -> None:
        """Note that `n_calls` calls took `seconds` in all."""
        if n_calls < 1:
            return
        call_s = seconds / n_calls
        if self._call_s is None:
            self._call_s = call_s
        else:
            self._call_s += SMOOTHING * (call_s - self._call_s)

    def size(self, *, may_grow: bool = True) -> int:
        """Return how many calls the next batch should have.

        Parameters
        ----------
        may_grow : bool, default=True
            False starts again from one call a batch.
        """
        if self._call_s is None or not may_grow:
            self._size = 1
        else:
            call_s = max(self._call_s, 1e-7)
            most = max(self._size * MAX_GROWTH, int(HARMLESS_S / call_s))
            self._size = max(1, min(int(self._target_s / call_s), most))
        return self._size

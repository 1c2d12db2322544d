"""How far the work may run ahead of the consumer of a generator: counting only, the time is passed in."""

from __future__ import annotations

import collections
from dataclasses import dataclass

QUICK_S = 0.05  # a consumer who takes a result within that time is not what the batches wait for


@dataclass(eq=False)
class Mark:
    """A batch that has been started and that the consumer has not taken in full.

    Parameters
    ----------
    n_calls : int
        Results that it will have.
    ended_at : float or None
        When they were there.
    """

    n_calls: int
    ended_at: float | None = None


class ConsumerWindow:
    """Count the batches between their start and the consumer.

    Parameters
    ----------
    limit : int or None
        Batches that may be started and not yet taken; None is without limit, as for a list, whose consumer never waits.
    ordered : bool
        Whether results are taken in the order of submission; otherwise in that of completion.
    """

    def __init__(self, limit: int | None, *, ordered: bool) -> None:
        self._limit = limit
        self._ordered = ordered
        self._queue: collections.deque[Mark] = collections.deque()  # in the order in which they will be taken
        self._n_open = 0
        self._n_taken = 0  # calls
        self._n_quick = 0  # batches in a row

    @property
    def is_full(self) -> bool:
        """Whether no further batch may start."""
        return self._limit is not None and self._n_open >= self._limit

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._limit is not None

    def start(self, n_calls: int) -> Mark:
        """Count a batch in; batches start in the order of submission."""
        mark = Mark(n_calls)
        if self._limit is not None:
            self._n_open += 1
            if self._ordered:
                self._queue.append(mark)
        return mark

    def end(self, mark: Mark, now: float) -> None:
        """Note that the results of a batch are there."""
        mark.ended_at = now
        if self._limit is not None and not self._ordered:
            self._queue.append(mark)

    def take(self, n_consumed: int, now: float) -> None:
        """Count out the batches that lie within the first `n_consumed` results."""
        while self._queue and self._n_taken + self._queue[0].n_calls <= n_consumed:
            mark = self._queue.popleft()
            self._n_taken += mark.n_calls
            self._n_open -= 1
            quick = mark.ended_at is not None and now - mark.ended_at < QUICK_S
            self._n_quick = self._n_quick + 1 if quick else 0

    def batches_may_grow(self, now: float) -> bool:
        """Return whether the consumer has taken a whole window of batches as soon as they were there.

        Until then batches stay single calls, so that a slow consumer has as few results waiting as it asked for.
        """
        if self._limit is None:
            return True
        try:
            oldest = self._queue[0].ended_at
        except IndexError:  # asked from another thread than the one that counts
            oldest = None
        return self._n_quick >= self._limit and (oldest is None or now - oldest < QUICK_S)

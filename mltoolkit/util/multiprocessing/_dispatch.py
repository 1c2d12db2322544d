"""Decides which worker of a pool gets which chunk; no input or output, no clock, no thread.

A worker is given its next chunk while it still has one only where chunks are so short that waiting for the answer would
cost more than the work. Such a chunk must not suffer from the one before it: if that one takes its time after all, what
is queued behind it is taken back, and if it takes the process with it, those behind it run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from mltoolkit.util.multiprocessing._results import Chunk

# A worker's queue holds about this much work: some times what it takes to hear from a worker and answer.
_QUEUED_S = 0.001
_MAX_QUEUED = 64
# A worker that has been at one chunk for this long is taken to be busy with it for longer.
STUCK_S = 0.005
# Weight of the newest chunk in the mean duration.
_NEWEST = 0.2


class Slot:
    """A worker as seen from here: which chunks it has, in the order in which it runs them.

    Parameters
    ----------
    worker : object
        Whatever stands for the worker.
    """

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.chunks: dict[int, Chunk] = {}
        self.num_started = 0
        self.head_since = 0.0
        self.taking_back = False
        self.lost: BaseException | None = None
        self.casualties: list[Chunk] = []


class Dispatcher:
    """The queue of chunks and the workers that run them.

    Not safe for use by several threads: the caller holds a lock.

    Parameters
    ----------
    queueing : bool
        Whether a worker may be given a chunk while it has one.
    """

    def __init__(self, queueing: bool) -> None:
        self.pending: deque[Chunk] = deque()
        self.slots: set[Slot] = set()
        self._queueing = queueing
        self._mean_s: float | None = None
        self._tickets = 0

    @property
    def depth(self) -> int:
        """How many chunks a worker may have, judging by how long the last ones took."""
        if not self._queueing or self._mean_s is None:
            return 1
        return max(1, min(_MAX_QUEUED, int(_QUEUED_S / max(self._mean_s, 1e-9))))

    def assign(self, now: float) -> tuple[Slot, int, Chunk] | None:
        """Give the next chunk to the worker with the fewest; None if there is none, or no room.

        Returns
        -------
        tuple of Slot, int and Chunk, or None
            The worker, the number of the chunk among all that were ever assigned, and the chunk.
        """
        if not self.pending:
            return None
        slot = min(self.slots, key=lambda slot: len(slot.chunks), default=None)
        if slot is None or len(slot.chunks) >= self._room(slot, now):
            slot = next((slot for slot in self.slots if len(slot.chunks) < self._room(slot, now)), None)
            if slot is None:
                return None
        if self.pending[0].alone and slot.chunks:
            return None
        chunk = self.pending.popleft()
        if not slot.chunks:
            slot.head_since = now
        self._tickets += 1
        slot.chunks[self._tickets] = chunk
        slot.num_started += 1
        return slot, self._tickets, chunk

    def _room(self, slot: Slot, now: float) -> int:
        """Return how many chunks a worker may have now."""
        if slot.lost is not None:
            return 0
        if not slot.chunks:
            return 1
        head = next(iter(slot.chunks.values()))
        if slot.taking_back or head.alone or now - slot.head_since > STUCK_S:
            return 1
        return self.depth

    def finish(self, slot: Slot, ticket: int, now: float, elapsed: float | None = None) -> Chunk | None:
        """Note that a worker has answered.

        Parameters
        ----------
        slot : Slot
            The worker.
        ticket : int
            Number of the chunk.
        now : float
            Time.
        elapsed : float, optional
            Seconds that the chunk took, if it ran.

        Returns
        -------
        Chunk or None
            The chunk; None if it has been taken back before.
        """
        if elapsed is not None:
            mean = self._mean_s
            self._mean_s = elapsed if mean is None else mean + _NEWEST * (elapsed - mean)
        slot.head_since = now
        return slot.chunks.pop(ticket, None)

    def stuck(self, now: float) -> list[tuple[Slot, list[int]]]:
        """List the chunks of workers that have been silent for long; these get no more until `taking_back` is reset."""
        found = []
        for slot in self.slots:
            if len(slot.chunks) > 1 and not slot.taking_back and now - slot.head_since > STUCK_S:
                slot.taking_back = True
                found.append((slot, list(slot.chunks)))
        return found

    def give_back(self, slot: Slot, tickets: Iterable[int], alone: bool = False) -> None:
        """Put chunks that a worker did not run in front of the queue, perhaps to be run alone."""
        chunks = [chunk for ticket in tickets if (chunk := slot.chunks.pop(ticket, None)) is not None]
        for chunk in chunks:
            chunk.alone = chunk.alone or alone
        self.pending.extendleft(reversed(chunks))

    def hungry(self) -> bool:
        """Tell whether a worker has nothing to do."""
        return any(not slot.chunks for slot in self.slots)

    def queued(self) -> bool:
        """Tell whether any chunk waits behind another one."""
        return any(len(slot.chunks) > 1 for slot in self.slots)

    def lose(self, slot: Slot, tickets: Iterable[int], error: BaseException) -> None:
        """Note that the process of a worker has ended before it answered for some chunks.

        Answers to others may still be on their way; `bury` the worker when all are in.
        """
        slot.lost = slot.lost or error
        slot.casualties += [chunk for ticket in tickets if (chunk := slot.chunks.pop(ticket, None)) is not None]

    def bury(self, slot: Slot) -> tuple[bool, Chunk | None]:
        """Settle what a lost worker leaves, once all its chunks have been answered for.

        A single chunk that went down with the process is to blame for it. Several run again, each alone, so that only
        the one to blame fails.

        Returns
        -------
        over : bool
            Whether the worker was lost and nothing more is to be heard from it.
        failed : Chunk or None
            The chunk to blame.
        """
        if slot.lost is None or slot.chunks or slot not in self.slots:
            return False, None
        self.slots.discard(slot)
        casualties, slot.casualties = slot.casualties, []
        if len(casualties) == 1:
            return True, casualties[0]
        for chunk in casualties:
            chunk.alone = True
        self.pending.extendleft(reversed(casualties))
        return True, None

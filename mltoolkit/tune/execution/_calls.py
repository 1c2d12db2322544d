"""Calls to the processes of trials that have not returned yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mltoolkit
from mltoolkit.tune.execution._slots import Slot

__all__ = ["Call", "PendingCalls", "Reaction"]

Reaction = Callable[[Slot, mltoolkit.ObjectRef], None]


@dataclass(frozen=True)
class Call:
    """A call under way.

    Attributes
    ----------
    ref : ObjectRef
        Of its result.
    slot : Slot
        Whose process it runs in.
    react : callable
        Takes slot and reference once it has returned or failed.
    deadline : float
        When to give up waiting, by ``time.monotonic()``.
    """

    ref: mltoolkit.ObjectRef
    slot: Slot
    react: Reaction
    deadline: float


class PendingCalls:
    """What a controller waits for."""

    def __init__(self) -> None:
        self._calls: dict[mltoolkit.ObjectRef, Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, slot: Slot, ref: mltoolkit.ObjectRef, react: Reaction, timeout: float = float("inf")) -> None:
        """Wait for a call as well; at most ``timeout`` seconds."""
        self._calls[ref] = Call(ref, slot, react, time.monotonic() + timeout)

    def wait(self, timeout: float) -> Iterator[Call]:
        """The calls that have returned, waiting up to ``timeout`` seconds for the first.

        Those of slots that are dropped meanwhile are left out.
        """
        refs = list(self._calls)
        if not refs:
            return
        ready, others = mltoolkit.wait(refs, num_returns=1, timeout=timeout)
        if ready and others:
            ready += mltoolkit.wait(others, num_returns=len(others), timeout=0)[0]
        for ref in ready:
            call = self._calls.pop(ref, None)
            if call is not None:
                yield call

    def drop(self, slot: Slot) -> None:
        """Wait no longer for the calls of a slot."""
        for ref in [ref for ref, call in self._calls.items() if call.slot is slot]:
            del self._calls[ref]

    def overdue(self) -> list[Slot]:
        """Slots of calls whose time is up."""
        now = time.monotonic()
        return [call.slot for call in self._calls.values() if call.deadline < now]

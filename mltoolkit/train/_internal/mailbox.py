"""Events that a worker sends to what directs it while a function runs, with answers to some of them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

__all__ = ["Mailbox", "own_mailbox"]


class Mailbox:
    """A queue of events that the directing process empties; safe to use from all threads."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, Any]] = deque()
        self._changed = threading.Condition()
        self._answers: dict[int, tuple[bool, Any]] = {}
        self._count = 0
        self._closed = False

    def post(self, event: Any) -> int:
        """Send an event; return its number."""
        with self._changed:
            self._count += 1
            self._events.append((self._count, event))
            self._changed.notify_all()
            return self._count

    def ask(self, event: Any) -> Any:
        """Send an event and wait for the answer.

        Raises
        ------
        BaseException
            If that is what the answer is.
        """
        number = self.post(event)
        with self._changed:
            while number not in self._answers:
                self._changed.wait()
            failed, answer = self._answers.pop(number)
        if failed:
            raise answer
        return answer

    def close(self) -> None:
        """No more events come: who waits for some is told."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, wait_s: float) -> list[tuple[int, Any]] | None:
        """What has come, after waiting for some; None when no more can come."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._closed, timeout=wait_s)
            if not self._events and self._closed:
                return None
            events = list(self._events)
            self._events.clear()
            return events

    def answer(self, number: int, answer: Any, *, failed: bool = False) -> None:
        """Let the sender of an event go on."""
        with self._changed:
            self._answers[number] = (failed, answer)
            self._changed.notify_all()


own_mailbox = Mailbox()
"""This process'."""

"""One thread that waits for all sockets, pipes and timers of a node."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mltoolkit.core.channel import NonBlockingSender

logger = logging.getLogger(__name__)

_LINGER_S = 0.05


class Reactor:
    """An event loop without coroutines: a callback for each readable descriptor.

    asyncio would cost some 20 microseconds an event here, as much as everything else about an actor call.
    """

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)
        self._woken = False
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_ids = itertools.count()
        self._dirty: deque[NonBlockingSender] = deque()
        self._writers: dict[int, NonBlockingSender] = {}
        self._readers: dict[int, Callable[[], Any]] = {}
        self._stopping = False
        self.lingering = False  # will look at the queues within `_LINGER_S`, woken or not
        self.after_events: Callable[[], None] | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    # ---- from any thread -------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Make the loop look at its queues; safe in finalizers and signal handlers."""
        if not self._woken:
            self._woken = True
            try:
                os.write(self._wake_write, b"\0")
            except (BlockingIOError, OSError):  # full: the loop wakes anyway; closed: there is no loop any more
                pass

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the loop's thread."""
        self._calls.append(callback)
        self.wake()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Run `callback` on the loop's thread after `delay_s` seconds."""
        when = time.monotonic() + delay_s
        self.call_soon(lambda: heapq.heappush(self._timers, (when, next(self._timer_ids), callback)))

    def flush_soon(self, sender: NonBlockingSender) -> None:
        """Have the loop write what `sender` holds."""
        self._dirty.append(sender)
        self.wake()

    def stop(self) -> None:
        """End the thread and close the descriptors; waits for the thread unless it is the caller."""
        self._stopping = True
        self._woken = False
        self.wake()
        if threading.current_thread() is not self.thread and self.thread.is_alive():
            self.thread.join(timeout=10)

    # ---- on the loop's thread --------------------------------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callable[[], Any]) -> None:
        """Call `callback` whenever `fd` is readable."""
        self._readers[fd] = callback
        self._set_interest(fd)

    def remove(self, fd: int) -> None:
        """Forget a descriptor; call it before closing."""
        self._readers.pop(fd, None)
        self._writers.pop(fd, None)
        self._set_interest(fd)

    def _set_interest(self, fd: int) -> None:
        events = (selectors.EVENT_READ if fd in self._readers else 0) | (
            selectors.EVENT_WRITE if fd in self._writers else 0
        )
        registered = fd in self._selector.get_map()
        if not events:
            if registered:
                self._selector.unregister(fd)
        elif registered:
            self._selector.modify(fd, events, None)
        else:
            self._selector.register(fd, events, None)

    def _on_wake(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
        # After reading: a wake in between is swallowed, but what it announces is in the queues, which are looked at next.
        self._woken = False

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._step()
            except Exception:
                logger.exception("mltoolkit: an internal error in the I/O thread")
        while self._calls:  # what was to be closed
            self._calls.popleft()()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _step(self) -> None:
        timeout = _LINGER_S if self.lingering else None
        if self._timers:
            until_timer = max(0.0, self._timers[0][0] - time.monotonic())
            timeout = until_timer if timeout is None else min(timeout, until_timer)
        ready = self._selector.select(timeout)
        # Cleared before `after_events` looks: whoever sees it set has queued what that look will find.
        self.lingering = bool(ready)
        for key, events in ready:
            if key.fd == self._wake_read:
                self._on_wake()
                continue
            if events & selectors.EVENT_READ:
                callback = self._readers.get(key.fd)
                if callback is not None:
                    callback()
            if events & selectors.EVENT_WRITE:
                sender = self._writers.get(key.fd)
                if sender is not None:
                    self._flush(sender)
        calls = self._calls
        for _ in range(len(calls)):
            calls.popleft()()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
        if self.after_events is not None:
            self.after_events()
        dirty = self._dirty
        for _ in range(len(dirty)):
            self._flush(dirty.popleft())

    def _flush(self, sender: NonBlockingSender) -> None:
        sender.scheduled = False
        if sender.closed:
            return
        fd = sender.sock.fileno()
        done = sender.flush()
        if fd < 0:
            return
        if not done and fd not in self._writers:
            self._writers[fd] = sender
            self._set_interest(fd)
        elif done and fd in self._writers:
            del self._writers[fd]
            self._set_interest(fd)

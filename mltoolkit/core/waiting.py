"""Small pieces for threads that wait for replies."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import time
from collections.abc import Callable
from typing import Any


class Waiter:
    """Block one thread until a counter reaches zero; cheaper than an Event, which builds a lock and a list each time."""

    __slots__ = ("_lock", "count", "value")

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.value: Any = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def notify(self) -> None:
        """Count one arrival; call it from one thread at a time."""
        self.count -= 1
        if self.count == 0:
            self._lock.release()

    def finish(self, value: Any = None) -> None:
        """Release the waiting thread at once."""
        if self.count > 0:
            self.count = 0
            self.value = value
            self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        """Wait; True if released, False if `timeout` seconds passed."""
        if timeout is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))


class Deadline:
    """What is left of a timeout in seconds; None never ends."""

    __slots__ = ("_end",)

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Return the seconds that are left, 0 at least; None without a limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


class CallbackThread:
    """Run callbacks that may execute user code off the I/O thread, in order; started at first use."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, callback: Callable[[], None]) -> None:
        """Queue a callback."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()
        self._queue.put(callback)

    def stop(self) -> None:
        """End the thread after what is queued."""
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout=5)
            self._thread = None

    def _run(self) -> None:
        while True:
            callback = self._queue.get()
            if callback is None:
                return
            try:
                callback()
            except concurrent.futures.InvalidStateError:  # the user cancelled the future meanwhile
                pass
            del callback

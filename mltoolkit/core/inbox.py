"""How an executor gets its messages: by its main thread while that is idle, by a second thread otherwise.

A message that one thread reads and another one handles costs a hand-over, a quarter of an actor call's time. So the main thread reads the
socket itself between calls. While it runs user code somebody else must listen (for cancellation, for replies to other threads, for
the driver's end): the reader's thread takes over as soon as a call has run for longer than `_TAKE_OVER_S`, or at once when the call waits for a
reply. Exactly one thread reads at a time: whoever holds `_reading`.
"""

from __future__ import annotations

import queue
import select
import threading
import time
from collections.abc import Callable

from mltoolkit.core.channel import BlockingConnection, Message

_TAKE_OVER_S = 0.002
_POLL_MS = 20
_COLD_S = 0.1  # the main thread idle for so long: the reader stops ticking until it is woken


class Inbox:
    """Deliver messages to `dispatch`, and work to the main thread.

    Parameters
    ----------
    connection : BlockingConnection
        Where messages come from.
    dispatch : callable
        ``dispatch(message)`` handles one, on whichever thread reads; what is for the main thread it hands to `put`.
    """

    def __init__(self, connection: BlockingConnection, dispatch: Callable[[Message], None]) -> None:
        self._connection = connection
        self._dispatch = dispatch
        self._work: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._reading = threading.Lock()
        self._tick = threading.Lock()
        self._tick.acquire()
        self._poller = select.poll()
        self._poller.register(connection.fileno(), select.POLLIN)
        self._busy_since = 0.0  # 0.0 while the main thread is idle
        self._idle_since = 0.0
        self._wanted = False  # somebody waits for a reply
        self._cold = False
        self._dedicated = False
        self.stopped = False

    # ---- for everybody -----------------------------------------------------------------------------------------------

    def put(self, message: Message | None) -> None:
        """Queue work for the main thread."""
        self._work.put(message)

    def empty(self) -> bool:
        """Return whether no work is queued."""
        return self._work.empty()

    def want_reply(self) -> None:
        """Have the reader listen at once: the caller is about to wait for a reply."""
        self._wanted = True
        self._wake_reader()

    def dedicate(self) -> None:
        """Leave all reading to the reader from now on: calls run on other threads than the main one."""
        self._dedicated = True
        self._wake_reader()

    def _wake_reader(self) -> None:
        try:
            self._tick.release()
        except RuntimeError:  # it has been told already
            pass

    # ---- the main thread ---------------------------------------------------------------------------------------------

    def get(self) -> Message | None:
        """Wait for work."""
        self._idle_since = time.monotonic()
        self._busy_since = 0.0
        while True:
            message: Message | None
            try:
                message = self._work.get_nowait()
            except queue.Empty:
                if self._dedicated or not self._reading.acquire(blocking=False):
                    message = self._work.get()
                else:
                    try:
                        for received in self._connection.receive():
                            self._dispatch(received)
                    finally:
                        self._reading.release()
                    continue
            if message is None or message[0] != "nudge":
                break
        self._busy_since = time.monotonic()
        if self._cold:
            self._cold = False
            self._wake_reader()
        return message

    # ---- the reader's thread -----------------------------------------------------------------------------------------

    def read_forever(self) -> None:
        """Listen while the main thread does not."""
        while True:
            if self._dedicated:
                with self._reading:
                    while True:
                        for received in self._connection.receive():
                            self._dispatch(received)
            if self._cold:
                self._tick.acquire()
            else:
                self._tick.acquire(timeout=_TAKE_OVER_S)
            if self._must_listen():
                with self._reading:
                    self._listen()
                self._work.put(("nudge",))  # the main thread may wait for work while nobody reads
            elif not self._busy_since and time.monotonic() - self._idle_since > _COLD_S:
                self._cold = True
                if self._busy_since:  # it began a call just now, and may have looked before
                    self._cold = False

    def _must_listen(self) -> bool:
        busy = self._busy_since
        return self._wanted or self._dedicated or bool(busy and time.monotonic() - busy > _TAKE_OVER_S)

    def _listen(self) -> None:
        while not self._dedicated:
            self._wanted = False
            if self._poller.poll(_POLL_MS):
                for received in self._connection.receive():
                    self._dispatch(received)
            if not self._busy_since and not self._wanted:
                return

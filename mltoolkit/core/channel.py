"""Framed, coalesced messages over a stream socket.

A message is a tuple whose first item names it. Messages that wait at the same time travel as one frame: eight bytes of length,
then one pickled list. Payloads of user values inside them are opaque bytes, so unpickling a frame never runs user code.
"""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

Message = tuple[Any, ...]

_LENGTH = struct.Struct("<Q")
# Received into a buffer that is kept: a fresh one of this size for each message would be mapped and unmapped each time, and unmapping
# in a process with threads interrupts the other cores, which costs more than everything else about a call.
RECV_BYTES = 1 << 18


class ConnectionLost(Exception):
    """The peer closed the connection or died."""


def encode(messages: list[Message]) -> bytes:
    """Return one frame that carries `messages`."""
    body = pickle.dumps(messages, 5)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cut a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = _LENGTH.size

    def feed(self, data: bytes | memoryview) -> list[Message]:
        """Take what arrived and return the messages that are complete, in order; nothing of `data` is kept."""
        buffer = self._buffer
        if not buffer and len(data) >= _LENGTH.size:
            # The usual case, a read that holds exactly one frame, needs no copy.
            (length,) = _LENGTH.unpack_from(data)
            if len(data) == length + _LENGTH.size:
                return pickle.loads(memoryview(data)[_LENGTH.size :])
        buffer += data
        if len(buffer) < self._need:
            return []
        messages: list[Message] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                self._need = _LENGTH.size + length
                break
            with memoryview(buffer) as view, view[start + _LENGTH.size : end] as body:
                messages.extend(pickle.loads(body))
            start = end
            self._need = _LENGTH.size
        del buffer[:start]
        return messages


class NonBlockingSender:
    """The sending half of a connection whose reading half a reactor owns.

    Any thread may `post`; who calls `flush` writes as much as the kernel takes.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._outbox: deque[Message | bytes] = deque()
        self._unsent: memoryview | None = None
        self._lock = threading.Lock()
        self.closed = False
        self.scheduled = False  # a reactor will flush it

    def post(self, message: Message | bytes) -> None:
        """Queue a message, or bytes that hold whole frames already, for the next flush."""
        self._outbox.append(message)

    def flush_soon(self, reactor: Any) -> None:
        """Have a reactor write what is queued."""
        if not self.scheduled:
            self.scheduled = True
            reactor.flush_soon(self)

    def flush(self) -> bool:
        """Write what is queued; False if the kernel's buffer is full and some is left."""
        if not self._lock.acquire(blocking=False):
            return False  # another thread is writing; the reactor looks again
        try:
            while True:
                unsent = self._unsent
                if unsent is None:
                    if not self._outbox:
                        return True
                    unsent = memoryview(self._next_frame())
                try:
                    sent = self.sock.send(unsent)
                except (BlockingIOError, InterruptedError):
                    sent = 0
                except OSError:
                    self.closed = True  # the reading half sees the end and tells why
                    self._outbox.clear()
                    self._unsent = None
                    return True
                if sent < len(unsent):
                    self._unsent = unsent[sent:]
                    return False
                self._unsent = None
        finally:
            self._lock.release()

    def _next_frame(self) -> bytes:
        batch: list[Message] = []
        while self._outbox:
            item = self._outbox[0]
            if isinstance(item, bytes):
                if batch:
                    break
                self._outbox.popleft()
                return item
            batch.append(item)
            self._outbox.popleft()
        return encode(batch)


class BlockingConnection:
    """Both halves of a connection for a process with few threads: an executor.

    Parameters
    ----------
    sock : socket.socket
        A connected stream socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._reader = FrameReader()
        self._received = memoryview(bytearray(RECV_BYTES))
        self._outbox: deque[Message] = deque()
        self._lock = threading.Lock()
        self._wanted = threading.Lock()
        self._wanted.acquire()
        self._flush_pending = False
        self.before_flush: Callable[[], None] = lambda: None

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def start_flusher(self) -> None:
        """Start the thread that writes posted messages."""
        threading.Thread(target=self._flush_forever, name="mltoolkit-flusher", daemon=True).start()

    def receive(self) -> list[Message]:
        """Wait for messages.

        Raises
        ------
        ConnectionLost
            If the peer is gone.
        """
        while True:
            try:
                count = self._sock.recv_into(self._received)
            except OSError as error:
                raise ConnectionLost(str(error)) from error
            if not count:
                raise ConnectionLost("closed by the peer")
            messages = self._reader.feed(self._received[:count])
            if messages:
                return messages

    def post(self, message: Message) -> None:
        """Queue a message; the flusher writes it as soon as this process lets it run.

        While the caller computes, the flusher waits for the interpreter lock (5 ms at most) and messages gather; as soon as
        the caller blocks they go out. So bursts are coalesced and nothing is held back by a long call.
        """
        self._outbox.append(message)
        self.request_flush()

    def append(self, message: Message) -> None:
        """Queue a message for whichever flush comes next."""
        self._outbox.append(message)

    def request_flush(self) -> None:
        """Have the flusher write what is queued; takes no lock, so finalizers may call it."""
        if not self._flush_pending:
            self._flush_pending = True
            try:
                self._wanted.release()
            except RuntimeError:  # the flusher was told already
                pass

    def send(self, message: Message) -> None:
        """Write a message, and what was posted before it, now."""
        self._outbox.append(message)
        self.flush()

    def flush(self) -> None:
        """Write what is queued."""
        self.before_flush()
        while self._outbox:
            with self._lock:
                batch = []
                while self._outbox:
                    batch.append(self._outbox.popleft())
                if not batch:
                    return
                try:
                    self._sock.sendall(encode(batch))
                except OSError:
                    return  # the reading half sees the end and ends the process

    def _flush_forever(self) -> None:
        while True:
            self._wanted.acquire()
            self._flush_pending = False
            self.flush()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


MessageHandler = Callable[[list[Message]], None]

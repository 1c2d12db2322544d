"""The connection between a driver and a node: events in both directions, gathered, over one of Dask's own comms."""

from __future__ import annotations

from collections import deque
from typing import Any

from distributed.comm import CommClosedError

CHUNK_BYTES = 16 << 20


class EventLink:
    """One end.

    Parameters
    ----------
    comm : distributed.comm.Comm
        The connection; with whatever security the cluster has.
    loop : tornado.ioloop.IOLoop
        The event loop that owns it.
    """

    def __init__(self, comm: Any, loop: Any) -> None:
        self._comm = comm
        self._loop = loop
        self._outbox: deque[tuple[Any, ...]] = deque()
        self._flushing = False
        self.closed = False

    def tell(self, *event: Any) -> None:
        """Send an event; from any thread. What is told while others are on their way travels together."""
        self._outbox.append(event)
        self._flush_later()

    def _flush_later(self) -> None:
        if not self._flushing and not self.closed:
            self._flushing = True
            self._loop.add_callback(self._flush)

    async def _flush(self) -> None:
        try:
            while self._outbox:
                events = []
                size = 0
                while self._outbox and size < CHUNK_BYTES:
                    event = self._outbox.popleft()
                    size += sum(len(part) for part in event if isinstance(part, bytes))
                    events.append(event)
                await self._comm.write({"events": events})
        except (CommClosedError, OSError):
            self.closed = True  # the reading side sees the end and acts on it
            self._outbox.clear()
        finally:
            self._flushing = False
            if self._outbox:
                self._flush_later()

    async def read(self) -> list[Any]:
        """Wait for the next events.

        Raises
        ------
        CommClosedError
            At the end of the connection.
        """
        try:
            message = await self._comm.read()
        except OSError as error:
            self.closed = True
            if isinstance(error, CommClosedError):
                raise
            raise CommClosedError(str(error)) from error
        return list(message["events"])

    def abort(self) -> None:
        """Close at once; call it on the event loop."""
        self.closed = True
        self._comm.abort()

"""A Dask worker as the driver sees it: a node whose executors are behind one of Dask's own connections."""

from __future__ import annotations

import pickle
from collections import deque
from typing import TYPE_CHECKING, Any

from distributed.comm import CommClosedError

from mltoolkit.core.channel import FrameReader, Message, encode
from mltoolkit.core.deaths import Death
from mltoolkit.core.event_link import EventLink
from mltoolkit.core.ledger import Pool
from mltoolkit.core.store import Segment

if TYPE_CHECKING:
    from mltoolkit.core.attached import AttachedSession


class RemoteSender:
    """The sending half of an executor on another node."""

    def __init__(self, node: RemoteNode, key: bytes) -> None:
        self._node = node
        self._key = key
        self._outbox: deque[Message] = deque()
        self.closed = False

    def post(self, message: Message) -> None:
        """Queue a message for the next flush."""
        self._outbox.append(message)

    def flush_soon(self, reactor: Any) -> None:
        """The link gathers messages anyway."""
        self.flush()

    def flush(self) -> bool:
        """Hand what is queued to the link."""
        batch = []
        while self._outbox:
            batch.append(self._outbox.popleft())
        if batch:
            self._node.tell("data", self._key, encode(batch))
        return True


class RemoteProcess:
    """An executor on another node, as the head sees it."""

    def __init__(self, node: RemoteNode, key: bytes) -> None:
        self.key = key
        self.pid: int | None = None
        self.label = "executor"
        self.kill_reason = ""
        self.ended = False
        self.sender = RemoteSender(node, key)
        self.frames = FrameReader()
        self.lease: Any = None
        self.leased_cpus = 0.0


class RemoteNode:
    """A Dask worker that is a node of this session."""

    def __init__(self, session: AttachedSession, worker: str, comm: Any, facts: dict[str, Any]) -> None:
        self.session = session
        self.worker = worker
        self.link = EventLink(comm, session.loop)
        self.node_id: str = facts["node_id"]
        self.host: str = facts["host"]
        self.hostname: str = facts["hostname"]
        self.resources = {str(k): float(v) for k, v in facts["resources"].items()}
        self.gpus = list(facts["gpus"])
        self.processes: dict[bytes, RemoteProcess] = {}
        self.lost = False
        self._fetches: dict[int, Any] = {}
        self._fetch_count = 0
        self._leased_cpus = 0.0

    # ---- what the pool asks (under the head's lock) ------------------------------------------------------------------

    def start_executor(self, key: bytes, boot: dict[str, Any]) -> RemoteProcess:
        """Ask Dask for a lease; the executor starts on the worker when it is granted."""
        process = RemoteProcess(self, key)
        self.processes[key] = process
        held = dict(boot.pop("held"))
        cpus = held.get("CPU", 0.0)
        if self._leased_cpus + cpus > self.resources.get("CPU", 0.0):
            self.session.head.pool.retire_idle_on(self)
        if cpus and self._leased_cpus + cpus > self.resources.get("CPU", 0.0) + 1e-6:
            # It runs on CPUs that a blocked task has lent: Dask's books have them under that task's lease.
            del held["CPU"]
            cpus = 0.0
        process.leased_cpus = cpus
        self._leased_cpus += cpus
        known = self.session.dask_resources(self, held)
        self.tell("start", key, pickle.dumps(boot), bool(known))
        if known:
            self.session.request_lease(self, process, known)
        return process

    def kill(self, process: RemoteProcess, reason: str = "", signum: int = 9) -> None:
        """Send a signal."""
        self.tell("kill", process.key, reason, int(signum))

    def describe(self, pool: Pool) -> dict[str, Any]:
        """Return the node as ``nodes()`` shows it."""
        return {
            "NodeID": self.node_id,
            "Alive": not self.lost,
            "NodeManagerAddress": self.worker.rpartition("://")[2].rpartition(":")[0],
            "NodeManagerHostname": self.hostname,
            "DaskWorker": self.worker,
            "Resources": dict(pool.total),
            "alive": not self.lost,
        }

    def delete_segment(self, segment: Segment) -> None:
        """Delete one of the node's segments."""
        self.tell("delete", b"", pickle.dumps(segment))

    def fetch(self, segment: Segment, callback: Any) -> None:
        """Copy a segment to this node's host; ``callback(segment or None, problem)`` runs under the head's lock."""
        self._fetch_count += 1
        self._fetches[self._fetch_count] = callback
        source = self.session.head.nodes.get(segment.node_id)
        if source is not None and source is not self:
            self.tell("fetch", self._fetch_count, pickle.dumps(segment), source.worker)
        else:
            try:
                with open(segment.path, "rb") as stream:
                    data = stream.read()
            except OSError as error:
                del self._fetches[self._fetch_count]
                callback(None, str(error))
                return
            self.tell("write", self._fetch_count, pickle.dumps((segment.spans, data), 5))

    # ---- the link (any thread; the client's event loop) --------------------------------------------------------------

    def tell(self, *event: Any) -> None:
        """Send an event to the node; from any thread."""
        self.link.tell(*event)

    async def read_forever(self) -> None:
        """Pass on what the node says until the connection ends."""
        try:
            while True:
                events = await self.link.read()
                self.session.reactor.call_soon(lambda events=events: self._on_events(events))  # type: ignore[misc]
        except CommClosedError:
            self.session.reactor.call_soon(lambda: self.session.on_node_lost(self))

    # ---- what the node says (the reactor's thread) -------------------------------------------------------------------

    def _on_events(self, events: list[Any]) -> None:
        head = self.session.head
        for kind, key, *data in events:
            process = self.processes.get(key) if isinstance(key, bytes) else None
            if kind == "data":
                if process is not None:
                    messages = process.frames.feed(data[0])
                    if messages:
                        head.on_messages(process, messages)  # type: ignore[arg-type]
            elif kind == "output":
                if process is not None:
                    process.pid = data[0] or process.pid
                    head.output.print_lines(process.label, process.pid, data[1], data[2])
            elif kind == "ended":
                if process is not None:
                    self.finish(process, pickle.loads(data[0]))
            elif kind == "retiring":
                self.session.on_retiring(self)
            elif kind == "fetched":
                with head.lock:
                    callback = self._fetches.pop(key, None)
                    if callback is not None:
                        callback(pickle.loads(data[1]) if data[0] else None, "" if data[0] else data[1])

    def finish(self, process: RemoteProcess, death: Death) -> None:
        """An executor of this node has ended."""
        if process.ended:
            return
        process.ended = True
        self.processes.pop(process.key, None)
        self._leased_cpus -= process.leased_cpus
        self.session.release_lease(process)
        if process.kill_reason and not death.reason:
            death = Death(
                death.pid, death.status, death.max_rss_kb, process.kill_reason, death.stderr_tail, death.oom, death.node
            )
        self.session.head.on_ended(process, death)  # type: ignore[arg-type]

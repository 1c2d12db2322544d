"""The worker's side of attached mode: a node inside a Dask worker.

The Dask worker never unpickles user values: frames of executors pass through it as opaque bytes, in both directions.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import platform
import sys
from typing import Any

import cloudpickle
from distributed import Worker, get_worker
from distributed.comm import CommClosedError
from distributed.core import Status
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.worker_state_machine import SecedeEvent

import mltoolkit
from mltoolkit.core import host, modules, serialization
from mltoolkit.core.deaths import Death
from mltoolkit.core.event_link import CHUNK_BYTES, EventLink
from mltoolkit.core.ids import new_id
from mltoolkit.core.node import ExecutorProcess, Node
from mltoolkit.core.reactor import Reactor
from mltoolkit.core.session import SessionDirectories, start_method
from mltoolkit.core.store import Segment, Store
from mltoolkit.core.zygote import THREAD_VARIABLES

logger = logging.getLogger(__name__)

_HAND_OVER_TIMEOUT_S = 60.0
_servers: dict[tuple[int, str], NodeServer] = {}
_declared: dict[int, set[str]] = {}  # resources that our sessions have declared, by worker


def undeclare_resources(names_by_worker: dict[str, list[str]], dask_scheduler: Any = None) -> None:
    """Run on the scheduler when a session ends: forget the resources it declared, unless another session is there."""
    if any(name.startswith("mltoolkit-") for name in dask_scheduler.worker_plugins):
        return
    for address, names in names_by_worker.items():
        state = dask_scheduler.workers.get(address)
        for name in names:
            dask_scheduler.resources.get(name, {}).pop(address, None)
            if state is not None:
                state.resources.pop(name, None)
                state.used_resources.pop(name, None)


def lease_key(executor_key: bytes) -> str:
    """Return the key of the Dask task that holds an executor's resources."""
    return f"mltoolkit-lease-{executor_key.hex()}"


async def hold_lease(session_id: str, executor_key: bytes) -> None:
    """Run as a Dask task: hold the resources that Dask has granted for as long as the executor lives.

    It secedes, so that it occupies none of the worker's threads; Dask keeps its resources in the books all the same.
    """
    worker = get_worker()
    worker.handle_stimulus(
        SecedeEvent(
            key=lease_key(executor_key), compute_duration=0.0, stimulus_id=f"mltoolkit-secede-{executor_key.hex()}"
        )
    )
    server = _servers.get((id(worker), session_id))
    if server is not None:
        await server.hold(executor_key)


class NotANodeError(RuntimeError):
    """A Dask worker is no node of a session."""


def hand_over(value: Any, session_id: str) -> Any:
    """Store what this Dask worker holds in the memory that its node shares with executors. Runs as a task of Dask's.

    Returns
    -------
    Payload
        Where the value lies; itself only if it is small.
    """
    server = _servers.get((id(get_worker()), session_id))
    if server is None or server.store is None:
        raise NotANodeError
    return serialization.serialize(value, server.store)


def describe_versions() -> dict[str, str]:
    """Return the versions that both ends of a session must agree on."""
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "cloudpickle": cloudpickle.__version__,
        "mltoolkit": mltoolkit.__version__,
    }


class NodePlugin(WorkerPlugin):
    """Make each Dask worker, present and future, a node of one session.

    Nothing is started on the worker until the session's driver asks for an executor.

    Parameters
    ----------
    session_id : str
        Names the session; several sessions share a cluster without seeing each other.
    settings : dict
        ``namespace``, ``logging_level``, ``store_limit``, ``compat``.
    """

    def __init__(self, session_id: str, settings: dict[str, Any]) -> None:
        self.session_id = session_id
        self.settings = settings
        self.name = f"mltoolkit-{session_id}"

    async def setup(self, worker: Worker) -> None:
        """Called by Dask on each worker."""
        server = NodeServer(worker, self.session_id, self.settings)
        _servers[(id(worker), self.session_id)] = server
        worker.handlers[f"{self.name}-attach"] = server.attach
        worker.handlers[f"{self.name}-read"] = server.read
        declared = worker.state.total_resources
        missing = {name: amount for name, amount in server.resources.items() if name not in declared}
        if missing:
            await worker.set_resources(**missing)
            _declared.setdefault(id(worker), set()).update(missing)

    async def teardown(self, worker: Worker) -> None:
        """Called by Dask when the worker closes or the session ends."""
        worker.handlers.pop(f"{self.name}-attach", None)
        worker.handlers.pop(f"{self.name}-read", None)
        server = _servers.pop((id(worker), self.session_id), None)
        if server is not None:
            await server.hand_over_objects()
            await server.stop()
        if not any(key[0] == id(worker) for key in _servers):  # the last session leaves the worker as it was
            for name in _declared.pop(id(worker), ()):
                worker.state.total_resources.pop(name, None)
                worker.state.available_resources.pop(name, None)


class NodeServer:
    """One session's node on one Dask worker.

    Parameters
    ----------
    worker : distributed.Worker
        The worker.
    session_id : str
        The session.
    settings : dict
        From the plugin.
    """

    raw = True  # frames pass through unread

    def __init__(self, worker: Worker, session_id: str, settings: dict[str, Any]) -> None:
        self.worker = worker
        self.session_id = session_id
        self.settings = settings
        self.node_id = new_id().hex()
        self.gpus = host.visible_gpus()
        self.resources: dict[str, float] = {"CPU": float(worker.state.nthreads)}
        limit = worker.memory_manager.memory_limit
        if limit:
            self.resources["memory"] = float(limit)
        if self.gpus:
            self.resources["GPU"] = float(len(self.gpus))
        self.node: Node | None = None
        self.store: Store | None = None
        self.directories: SessionDirectories | None = None
        self.reactor: Reactor | None = None
        self._link: EventLink | None = None
        self._waiting: dict[bytes, tuple[dict[str, Any], list[bytes]]] = {}
        self._leases: dict[bytes, asyncio.Event] = {}
        self._ended: set[bytes] = set()
        self._stopped = False
        self._moved: asyncio.Event | None = None
        self._background: set[Any] = set()

    # ---- the link to the driver (the worker's event loop) ------------------------------------------------------------

    async def attach(self, comm: Any, versions: dict[str, str]) -> str:
        """Serve the driver's connection until it closes; then nobody wants this node's work any more."""
        own = describe_versions()
        if own["python"] != versions["python"] or own["mltoolkit"] != versions["mltoolkit"]:
            await comm.write({"status": "versions", "versions": own})
            return "dont-reply"
        try:
            self._start()
        except Exception as error:
            logger.exception("mltoolkit: the node could not start")
            await comm.write({"status": "error", "error": f"{type(error).__name__}: {error}"})
            return "dont-reply"
        assert self.store is not None
        link = self._link = EventLink(comm, self.worker.loop)
        total = {**self.resources, **{k: float(v) for k, v in self.worker.state.total_resources.items()}}
        await comm.write(
            {
                "status": "OK",
                "node_id": self.node_id,
                "host": self.store.host,
                "hostname": platform.node(),
                "address": self.worker.address,
                "resources": total,
                "declared": sorted(_declared.get(id(self.worker), ())),
                "gpus": self.gpus or list(range(int(total.get("GPU", 0)))),
                "versions": own,
            }
        )
        try:
            while True:
                for event in await link.read():
                    self._on_event(*event)
        except CommClosedError:
            pass
        finally:
            self._link = None
            _servers.pop((id(self.worker), self.session_id), None)
            await self.stop()
        return "dont-reply"

    def _start(self) -> None:
        if self.node is not None:
            return
        self.directories = SessionDirectories()
        self.reactor = Reactor("mltoolkit-node-io")
        self.store = Store(
            self.directories.shm,
            self.directories.disk,
            self.settings["store_limit"],
            self.node_id,
            host.shared_memory_id(self.directories.shm_root),
        )
        self.node = Node(self.reactor, self, self.directories.all(), start_method())
        self.reactor.start()

    def _boot(self) -> dict[str, Any]:
        assert self.store is not None
        return {
            "shm_dir": self.store.shm_dir,
            "disk_dir": self.store.disk_dir,
            "store_limit": self.store.limit_bytes,
            "node_id": self.node_id,
            "host": self.store.host,
            "user_thread_variables": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        }

    def _on_event(self, kind: str, key: Any, *data: Any) -> None:
        if kind == "data":
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting[1].append(data[0])
                return
            executor = self._executor(key)
            if executor is not None and self.reactor is not None:
                executor.sender.post(data[0])
                self.reactor.flush_soon(executor.sender)
        elif kind == "start":
            self._waiting[key] = ({**self._boot(), **pickle.loads(data[0])}, [])
            if not data[1]:
                self._launch(key)
        elif kind == "kill":
            self._kill(key, data[0], data[1])
        elif kind == "moved":
            if self._moved is not None:
                self._moved.set()
        elif kind == "delete":
            if self.store is not None:
                self.store.delete(pickle.loads(data[0]))
        elif kind == "fetch":
            task = asyncio.ensure_future(self._fetch(key, pickle.loads(data[0]), data[1]))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        elif kind == "write":
            self._write(key, pickle.loads(data[0]))

    def _executor(self, key: bytes) -> ExecutorProcess | None:
        return self.node.executors.get(key) if self.node is not None else None

    def _kill(self, key: bytes, reason: str, signum: int) -> None:
        if self._waiting.pop(key, None) is not None:
            self._tell("ended", key, pickle.dumps(Death(None, None, reason=reason or "it was never started")))
            self._release(key)
            return
        executor = self._executor(key)
        if executor is not None and self.node is not None:
            self.node.kill(executor, reason, signum)

    def _launch(self, key: bytes) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is None or self.node is None or self.reactor is None:
            return
        boot, frames = waiting
        modules.hint(boot.pop("preload", ()))  # the fork server is this node's: the driver's own hints do not reach it
        executor = self.node.start_executor(key, boot)
        for frame in frames:
            executor.sender.post(frame)
        self.reactor.flush_soon(executor.sender)

    def _tell(self, *event: Any) -> None:
        """Send an event to the driver, if there is one; from any thread."""
        if self._link is not None:
            self._link.tell(*event)

    # ---- leases ------------------------------------------------------------------------------------------------------

    async def hold(self, key: bytes) -> None:
        """Start the executor that waited for this lease, and hold the lease until it has ended."""
        if key in self._ended or self._stopped:
            self._ended.discard(key)
            return
        event = self._leases.setdefault(key, asyncio.Event())
        self._launch(key)
        try:
            await event.wait()
        finally:
            self._leases.pop(key, None)

    def _release(self, key: bytes) -> None:
        event = self._leases.get(key)
        if event is not None:
            event.set()
        else:
            self._ended.add(key)

    # ---- what executors report (the reactor's thread) ----------------------------------------------------------------

    def on_bytes(self, executor: ExecutorProcess, data: bytes) -> None:
        """Pass on what an executor has said, unread."""
        self._tell("data", executor.key, data)

    def on_messages(self, executor: ExecutorProcess, messages: list[Any]) -> None:
        """Never called: see `raw`."""
        raise AssertionError("a Dask worker must not unpickle messages")

    def on_output(self, executor: ExecutorProcess, is_stderr: bool, lines: list[str]) -> None:
        """Pass on what an executor has printed."""
        self._tell("output", executor.key, executor.pid or 0, is_stderr, lines)

    def on_ended(self, executor: ExecutorProcess, death: Death) -> None:
        """Pass on that an executor has ended, and give its lease back."""
        self._tell("ended", executor.key, pickle.dumps(death))
        self.worker.loop.add_callback(self._release, executor.key)

    # ---- objects -----------------------------------------------------------------------------------------------------

    async def read(self, path: str, offset: int) -> bytes:
        """Return a piece of one of this node's segments; called by other nodes of the session and by the driver."""
        assert self.store is not None
        if os.path.dirname(path) not in (self.store.shm_dir, self.store.disk_dir):
            raise PermissionError(f"{path} is not a segment of this session.")
        with open(path, "rb") as stream:
            stream.seek(offset)
            return stream.read(CHUNK_BYTES)

    async def _fetch(self, request: int, segment: Segment, source: str) -> None:
        try:
            pieces = []
            remote = self.worker.rpc(source)
            read = getattr(remote, f"mltoolkit-{self.session_id}-read")
            offset = 0
            while offset < segment.nbytes:
                piece = await read(path=segment.path, offset=offset)
                if not piece:
                    break
                pieces.append(piece)
                offset += len(piece)
            self._write(request, (segment.spans, b"".join(pieces)))
        except Exception as error:
            self._tell("fetched", request, False, f"{type(error).__name__}: {error}")

    def _write(self, request: int, copy: tuple[tuple[tuple[int, int], ...], bytes]) -> None:
        spans, data = copy
        assert self.store is not None
        try:
            view = memoryview(data)
            segment = self.store.write(new_id().hex(), [view[offset : offset + length] for offset, length in spans])
        except Exception as error:
            self._tell("fetched", request, False, f"{type(error).__name__}: {error}")
        else:
            self._tell("fetched", request, True, pickle.dumps(segment))

    async def hand_over_objects(self) -> None:
        """Before the worker goes: let the driver take what only this node has."""
        if self._link is None or self.worker.status not in (Status.closing, Status.closing_gracefully):
            return
        self._moved = asyncio.Event()
        self._tell("retiring", b"")
        try:
            await asyncio.wait_for(self._moved.wait(), _HAND_OVER_TIMEOUT_S)
        except (TimeoutError, CommClosedError):
            logger.warning("mltoolkit: the driver did not take over this node's objects in time")

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End the node's processes and release its leases."""
        if self._stopped:
            return
        self._stopped = True
        for event in list(self._leases.values()):
            event.set()
        node, reactor, directories = self.node, self.reactor, self.directories
        self.node = None

        def end() -> None:
            if node is not None:
                node.stop()
            if reactor is not None:
                reactor.stop()
            if directories is not None:
                directories.remove()

        await asyncio.get_running_loop().run_in_executor(None, end)

"""The driver's side of attached mode: a session on the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
import time
from typing import Any

from distributed import Client
from distributed.comm import CommClosedError, connect

from mltoolkit.core import host, modules
from mltoolkit.core.dask_node import (
    NodePlugin,
    describe_versions,
    hand_over,
    hold_lease,
    lease_key,
    undeclare_resources,
)
from mltoolkit.core.deaths import Death
from mltoolkit.core.head import Head
from mltoolkit.core.ids import new_id
from mltoolkit.core.node import Node
from mltoolkit.core.objects import ObjectEntry
from mltoolkit.core.pool import ExecutorRecord
from mltoolkit.core.reactor import Reactor
from mltoolkit.core.remote_node import RemoteNode, RemoteProcess
from mltoolkit.core.serialization import SHARED, Payload
from mltoolkit.core.session import SessionDirectories
from mltoolkit.core.store import Segment, Store
from mltoolkit.core.waiting import CallbackThread
from mltoolkit.exceptions import ObjectLostError

logger = logging.getLogger(__name__)

_ATTACH_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 10.0
_MEMBERSHIP_INTERVAL_S = 0.25


class AttachedHead(Head):
    """A head whose nodes are Dask workers."""

    session: AttachedSession
    is_attached = True
    keep_lineage = True

    @property
    def may_grow(self) -> bool:  # type: ignore[override]
        """Whether nodes may yet come: there is none, or the cluster adapts."""
        return not self.nodes or self.session.adaptive

    def local_payload(self, entry: ObjectEntry) -> Payload:
        payload = entry.payload
        assert payload is not None
        if payload[0] == SHARED and payload[1].host != self.store.host:
            return (SHARED, self.session.fetch_to_driver(payload[1]), payload[2])
        return payload

    def on_starved(self) -> None:
        self.session.hint_demand()

    def on_segment_deleted(self, segment: Segment) -> None:
        self.session.on_segment_deleted(segment)


class AttachedSession:
    """A session on a Dask cluster.

    Parameters
    ----------
    address, cluster, client
        One of them says which cluster.
    """

    def __init__(
        self,
        *,
        address: str | None,
        cluster: Any,
        client: Any,
        namespace: str,
        log_to_driver: bool,
        logging_level: int,
        seed: int,
        store_limit: int | None,
    ) -> None:
        self._own_client = client is None
        if client is None:
            try:
                client = Client(
                    cluster if cluster is not None else address, timeout=_CONNECT_TIMEOUT_S, set_as_default=False
                )
            except (OSError, TimeoutError) as error:
                raise ConnectionError(
                    f"No Dask scheduler answers at {address or cluster!r}: {error}. Check the address; `mltoolkit start --head` starts one."
                ) from error
        if client.asynchronous:
            raise ValueError("`client` must be a synchronous distributed.Client (asynchronous=False).")
        self.client = client
        self.cluster = cluster if cluster is not None else client.cluster
        self.loop = client.loop
        self.address: str = client.scheduler.address
        self.directories = SessionDirectories()
        self.session_id = self.directories.session_id + "-" + platform.node()
        self.node_id = new_id().hex()
        self.reactor = Reactor("mltoolkit-io")
        host_id = host.shared_memory_id(self.directories.shm_root)
        store = Store(self.directories.shm, self.directories.disk, store_limit, self.node_id, host_id)
        self._boot = {
            "namespace": namespace,
            "logging_level": logging_level,
            "compat": os.environ.get("MLTOOLKIT_COMPAT") == "1",
            "driver_host": host_id,
        }
        self.head = AttachedHead(store, self.reactor, namespace, self._boot_for, log_to_driver=log_to_driver)
        self.head.session = self
        self.head.pool.session_seed = seed
        self.head.pool.by_demand = True
        self.head.requests.fetch = self.fetch_for
        self._leases = CallbackThread("mltoolkit-leases")
        self._copies: dict[str, list[tuple[RemoteNode | None, Segment]]] = {}
        self._attaching: set[str] = set()
        self._failed: dict[str, str] = {}
        self._declared: dict[str, list[str]] = {}
        self._background: set[Any] = set()
        self._stopping = False
        self._hint: Any = None
        self._plugin = NodePlugin(self.session_id, {"store_limit": store_limit})
        # Watches the driver: whatever ends it, its directories go.
        self._guardian = Node(self.reactor, self.head, self.directories.all(), "spawn")
        self.reactor.start()
        try:
            self._register()
        except BaseException:
            self.stop()
            raise

    def _boot_for(self, node_id: str) -> dict[str, Any]:
        node = self.head.nodes[node_id]
        return {
            **self._boot,
            "gpu_total": node.resources.get("GPU", 0),
            "remote": node.host != self.head.store.host,
            "preload": modules.hinted(),
        }

    # ---- membership --------------------------------------------------------------------------------------------------

    def _register(self) -> None:
        try:
            self.client.register_plugin(self._plugin, name=self._plugin.name)
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"The Dask cluster at {self.address} lacks a module that mltoolkit needs: {error}. Install mltoolkit on the "
                "scheduler and on every worker, in the same version as here."
            ) from error
        self._membership = asyncio.run_coroutine_threadsafe(self._watch_members(), self.loop.asyncio_loop)
        deadline = time.monotonic() + _ATTACH_TIMEOUT_S
        workers = set(self.client.scheduler_info(n_workers=-1)["workers"])
        while time.monotonic() < deadline:
            with self.head.lock:
                done = {node.worker for node in self.head.nodes.values()} | set(self._failed)
            if workers <= done:
                break
            threading.Event().wait(0.005)
        if self._failed and not self.head.nodes:
            problems = "\n".join(f"  {worker}: {problem}" for worker, problem in self._failed.items())
            raise RuntimeError(f"No Dask worker could become a node:\n{problems}")
        for worker, problem in self._failed.items():
            logger.warning("mltoolkit: Dask worker %s cannot be used: %s", worker, problem)

    async def _watch_members(self) -> None:
        while not self._stopping:
            if self.client.status in ("closing", "closed"):
                # Not waiting for the lock here: it may be held by a thread that waits for this event loop.
                threading.Thread(target=self._on_cluster_lost, name="mltoolkit-lost", daemon=True).start()
                return
            try:
                identity = await self.client.scheduler.identity(n_workers=-1)
            except (CommClosedError, OSError):
                if self._stopping:
                    return
                await asyncio.sleep(_MEMBERSHIP_INTERVAL_S)
                continue
            known = {node.worker for node in self.head.nodes.values()}
            for worker in identity["workers"]:
                if worker not in known and worker not in self._attaching and worker not in self._failed:
                    self._attaching.add(worker)
                    self._spawn(self._attach(worker))
            await asyncio.sleep(_MEMBERSHIP_INTERVAL_S if known else 0.02)

    def _spawn(self, coroutine: Any) -> None:
        """Run a coroutine on the client's event loop, which itself keeps only weak references to tasks."""
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _attach(self, worker: str) -> None:
        try:
            comm = await connect(worker, timeout=10, **self.client.connection_args)
            await comm.write({"op": f"{self._plugin.name}-attach", "versions": describe_versions()})
            facts = await asyncio.wait_for(comm.read(), _ATTACH_TIMEOUT_S)
            if facts.get("status") == "versions":
                self._failed[worker] = f"versions differ: here {describe_versions()}, there {facts['versions']}"
                comm.abort()
                return
            if facts.get("status") != "OK":
                comm.abort()
                if "error" in facts:
                    self._failed[worker] = str(facts["error"])
                return  # the plugin is not there yet: seen again at the next look
            node = RemoteNode(self, worker, comm, facts)
            resources = {**node.resources, f"node:{worker}": 1.0}
            self._declared[worker] = list(facts["declared"])
            self.head.add_node(node, resources, node.gpus)
            self._spawn(node.read_forever())
        except (TimeoutError, CommClosedError, OSError) as error:
            logger.debug("mltoolkit: could not attach %s: %s", worker, error)
        finally:
            self._attaching.discard(worker)

    def _on_cluster_lost(self) -> None:
        """The scheduler is gone for good: nothing can be placed any more, so everybody who waits must know."""
        if self._stopping:
            return
        self.head.closed_reason = (
            f"The Dask scheduler at {self.address} was lost, and the session with it. Start a new cluster, then init()."
        )
        self.head.close()

    def on_retiring(self, node: RemoteNode) -> None:
        """A Dask worker leaves in good order: take over the objects that only it has, before it goes."""

        def move() -> None:
            head = self.head
            with head.lock:
                entries = head.objects_on(node.node_id)
            for entry in entries:
                payload = entry.payload
                if payload is None or payload[0] != SHARED:
                    continue
                try:
                    copy = self._take_over(payload[1])
                except Exception as error:
                    logger.warning("mltoolkit: could not take over object %s: %s", entry.object_id.hex(), error)
                    continue
                with head.lock:
                    if entry.payload is payload:
                        entry.payload = (SHARED, copy, payload[2])
            node.tell("moved", b"")

        threading.Thread(target=move, name="mltoolkit-move", daemon=True).start()

    def _take_over(self, segment: Segment) -> Segment:
        store = self.head.store
        if segment.host != store.host:
            return self.fetch_to_driver(segment)
        with open(segment.path, "rb") as stream:
            view = memoryview(stream.read())
        return store.write(new_id().hex(), [view[offset : offset + length] for offset, length in segment.spans])

    def on_node_lost(self, node: RemoteNode) -> None:
        """A Dask worker is gone: its executors are lost, its objects too."""
        if node.lost:
            return
        node.lost = True
        head = self.head
        with head.lock:
            head.nodes.pop(node.node_id, None)
            head.ledger.remove_node(node.node_id)
            if self._stopping or head.closed:
                return
            head.recover_objects(node.node_id)
        death = Death(None, None, reason=f"its node, Dask worker {node.worker} on {node.hostname}, was lost")
        for process in list(node.processes.values()):
            process.kill_reason = ""
            node.finish(process, death)
        with head.lock:
            for callback in list(node._fetches.values()):
                callback(None, "the node was lost")
            head.tasks.dispatch()

    @property
    def adaptive(self) -> bool:
        """Whether the cluster grows by itself."""
        return getattr(self.cluster, "_adaptive", None) is not None

    def hint_demand(self) -> None:
        """Let an adaptive cluster see that work waits: a Dask task that needs a worker."""
        if not self.adaptive or (self._hint is not None and not self._hint.done()):
            return
        self._leases.submit(self._submit_hint)

    def _submit_hint(self) -> None:
        self._hint = self.client.submit(time.sleep, 0.5, key=f"mltoolkit-demand-{new_id().hex()}", pure=False)

    # ---- leases ------------------------------------------------------------------------------------------------------

    def dask_resources(self, node: RemoteNode, held: dict[str, float]) -> dict[str, float]:
        """Return the part of a demand that Dask keeps books of on that worker."""
        return {name: amount for name, amount in held.items() if name in node.resources}

    def request_lease(self, node: RemoteNode, process: RemoteProcess, resources: dict[str, float]) -> None:
        """Submit the Dask task that holds an executor's resources."""

        def submit() -> None:
            if process.ended or self._stopping:
                return
            process.lease = self.client.submit(
                hold_lease,
                self.session_id,
                process.key,
                key=lease_key(process.key),
                resources=resources,
                workers=[node.worker],
                allow_other_workers=False,
                pure=False,
                retries=0,
            )

        self._leases.submit(submit)

    def release_lease(self, process: RemoteProcess) -> None:
        """Let Dask forget a lease."""

        def release() -> None:
            if process.lease is not None:
                process.lease.release()
                process.lease = None

        self._leases.submit(release)

    # ---- objects between hosts ---------------------------------------------------------------------------------------

    def fetch_to_driver(self, segment: Segment) -> Segment:
        """Copy a segment of another host into the driver's store; waits."""
        with self.head.lock:
            for node, copy in self._copies.get(segment.path, ()):
                if node is None:
                    return copy
            source = self.head.nodes.get(segment.node_id)
        if source is None:
            raise ObjectLostError(os.path.basename(segment.path), "Its node is gone.")
        try:
            data = self.client.sync(self._read_remote, source.worker, segment)
        except OSError as error:  # Dask's closed comms are among them
            raise ObjectLostError(
                os.path.basename(segment.path), f"Its node, {source.worker}, went away while it was read: {error}"
            ) from error
        view = memoryview(data)
        made = self.head.store.write(
            new_id().hex(), [view[offset : offset + length] for offset, length in segment.spans]
        )
        with self.head.lock:
            self._copies.setdefault(segment.path, []).append((None, made))
        return made

    async def _read_remote(self, worker: str, segment: Segment) -> bytes:
        remote = self.client.rpc(worker)
        read = getattr(remote, f"{self._plugin.name}-read")
        pieces = []
        offset = 0
        while offset < segment.nbytes:
            piece = await read(path=segment.path, offset=offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def fetch_for(self, record: ExecutorRecord, segment: Segment, callback: Any) -> None:
        """Copy a segment to an executor's host; the caller holds the head's lock."""
        node: RemoteNode = record.node
        for owner, copy in self._copies.get(segment.path, ()):
            if (owner.host if owner is not None else self.head.store.host) == node.host:
                callback(copy, "")
                return

        def fetched(copy: Segment | None, problem: str) -> None:
            if copy is not None:
                self._copies.setdefault(segment.path, []).append((node, copy))
            callback(copy, problem)

        node.fetch(segment, fetched)

    def on_segment_deleted(self, segment: Segment) -> None:
        """Delete the copies of a segment; the caller holds the head's lock."""
        for node, copy in self._copies.pop(segment.path, ()):
            if node is None:
                self.head.store.delete(copy)
            elif not node.lost:
                node.delete_segment(copy)

    # ---- for the facade ----------------------------------------------------------------------------------------------

    def dask_client(self) -> Client:
        """Return the client of the cluster."""
        return self.client

    def hand_over(self, future: Any) -> Any:
        """Have the worker that holds a future's value store it for its node; None if it is another cluster's future.

        Returns
        -------
        distributed.Future or None
            Of the payload: the value itself does not come here.
        """
        if future.client.scheduler.address != self.client.scheduler.address:
            return None
        # Dask wants futures used by the client that made them.
        return future.client.submit(hand_over, future, self.session_id, key=f"mltoolkit-put-{new_id().hex()}")

    def start_dashboard(self, host_name: str, port: int | None) -> str:
        """Return the address of the cluster's own dashboard."""
        return self.client.dashboard_link or ""

    def stop(self) -> None:
        """Leave the cluster as it was."""
        self._stopping = True
        self.head.close()
        try:
            self.client.unregister_worker_plugin(self._plugin.name)
            self.client.run_on_scheduler(undeclare_resources, self._declared)
        except Exception as error:  # the cluster may be gone already
            logger.debug("mltoolkit: could not unregister the node plugin: %s", error)
        membership = getattr(self, "_membership", None)
        if membership is not None:
            membership.cancel()
        for node in list(self.head.nodes.values()):
            node.lost = True
            self.loop.add_callback(node.link.abort)
        self._leases.stop()
        self._guardian.stop()
        self.head.dispose()
        self.reactor.stop()
        if self._own_client:
            self.client.close()
        self.directories.remove()

    def abandon(self) -> None:
        """In a forked child: close what the parent shares with us, so that its end is seen by the guardian."""
        control = self._guardian._control
        if control is not None:
            os.close(control.detach())

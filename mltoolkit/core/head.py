"""The session's control plane: objects, tasks, actors and nodes, in the driver.

One lock guards all of it. Code that holds the lock never runs user code and never blocks; callbacks that may run user code go to a thread of
their own.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mltoolkit import exceptions
from mltoolkit.core import serialization
from mltoolkit.core.actors import ActorManager
from mltoolkit.core.channel import Message
from mltoolkit.core.deaths import Death
from mltoolkit.core.groups import GroupManager, GroupState
from mltoolkit.core.ids import new_id
from mltoolkit.core.ledger import Allocation, Ledger
from mltoolkit.core.modules import CodeWatch
from mltoolkit.core.node import ExecutorProcess
from mltoolkit.core.object_ref import ObjectRef
from mltoolkit.core.objects import ObjectEntry, ObjectTable
from mltoolkit.core.options import Demand
from mltoolkit.core.output import OutputPrinter
from mltoolkit.core.pool import ExecutorPool, ExecutorRecord
from mltoolkit.core.queries import Queries
from mltoolkit.core.reactor import Reactor
from mltoolkit.core.requests import RequestHandler
from mltoolkit.core.serialization import ERROR, SHARED, Payload
from mltoolkit.core.specs import CALL, CREATE, TaskSpec
from mltoolkit.core.store import Segment, Store
from mltoolkit.core.submission import SubmissionTracker
from mltoolkit.core.tasks import TaskManager
from mltoolkit.core.waiting import CallbackThread, Deadline, Waiter
from mltoolkit.exceptions import GetTimeoutError

logger = logging.getLogger(__name__)


class Head:
    """`Backend` of the driver, and what serves the executors.

    Parameters
    ----------
    store : Store
        The driver's part of the object store.
    reactor : Reactor
        Its I/O thread.
    namespace : str
        The job's namespace.
    boot : callable
        ``boot(node_id)`` returns what an executor on that node is told at its start.
    log_to_driver : bool
        Whether the output of executors is printed.
    """

    may_grow = False
    is_attached = False
    keep_lineage = False  # on one host a result is lost only together with the driver
    dashboard_url = ""

    def __init__(
        self,
        store: Store,
        reactor: Reactor,
        namespace: str,
        boot: Callable[[str], dict[str, Any]],
        *,
        log_to_driver: bool,
    ) -> None:
        self.store = store
        self.reactor = reactor
        self.namespace = namespace
        self.runtime_env: dict[str, Any] = {}
        self.lock = threading.RLock()
        self.closed = False
        self.closed_reason = ""  # why, if it was not the user's wish
        self.nodes: dict[str, Any] = {}
        self.ledger = Ledger()
        self.objects = ObjectTable(self.delete_segment)
        self.pool = ExecutorPool(self.nodes, reactor, self.objects, boot)
        self.pool.on_retire_timer = self._on_retire_timer
        self.tasks = TaskManager(self)
        self.actors = ActorManager(self)
        self.groups = GroupManager(self)
        self.requests = RequestHandler(self)
        self.queries = Queries(self)
        self.output = OutputPrinter(enabled=log_to_driver)
        self.callbacks = CallbackThread("mltoolkit-callbacks")
        self.released: deque[bytes] = deque()
        self.closed_streams: deque[bytes] = deque()
        self.max_without_cpu = 64
        self._watch = CodeWatch()
        self._submissions = SubmissionTracker()
        self._trim_timer = False
        reactor.after_events = self._after_events

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def add_node(self, node: Any, total: dict[str, float], gpu_ids: list[int]) -> None:
        """Add a node and start what waited for it."""
        with self.lock:
            self.nodes[node.node_id] = node
            self.ledger.add_node(node.node_id, total, gpu_ids)
            self.max_without_cpu = int(4 * self.ledger.totals().get("CPU", 1) + 16)
            self.groups.try_reserve()
            self.tasks.dispatch()

    def allocate(self, demand: Demand) -> Allocation | None:
        """Take what a demand needs."""
        return self.ledger.allocate(demand)

    def reserve_group(self, group: GroupState) -> bool:
        """Reserve the bundles of a placement group."""
        return self.ledger.reserve_group(group.group_id, group.bundles, group.strategy) is not None

    def release_allocation(self, record: ExecutorRecord) -> None:
        """Give back what an executor's work held."""
        allocation, record.allocation = record.allocation, None
        record.blocked = 0
        if allocation is not None:
            allocation.release()
            if self.groups.groups:
                self.groups.try_reserve()

    def why_never(self, spec: TaskSpec) -> Exception | None:
        """Return the error of a task or actor that no node can ever hold, else None."""
        demand = spec.demand
        assert demand is not None
        if self.ledger.feasible(demand) or self.may_grow:
            return None
        group = getattr(demand.strategy, "placement_group", None)
        what = f"{'Actor' if spec.kind == CREATE else 'Task'} {spec.name}"
        cls = exceptions.ActorUnschedulableError if spec.kind == CREATE else exceptions.TaskUnschedulableError
        if group is not None:
            state = self.groups.groups.get(group.id_bytes)
            if state is not None and state.state == "PENDING":
                return None
            if state is None or state.state == "REMOVED":
                return exceptions.TaskPlacementGroupRemoved(f"{what} wants a placement group that was removed.")
            if state.state == "INFEASIBLE":
                return self.groups.infeasible_error(state)
            return cls(
                f"{what} needs {demand.describe()}, which bundle {demand.strategy.placement_group_bundle_index} of its placement "
                f"group {state.bundles} can never offer. Ask for less, or make the bundle larger."
            )
        node_id = getattr(demand.strategy, "node_id", None)
        if node_id is not None and node_id not in self.ledger.nodes:
            return cls(f"{what} wants node {node_id!r}, which does not exist. Nodes: {sorted(self.ledger.nodes)}.")
        return cls(
            f"{what} needs {demand.describe()}, more than any node can ever offer: {self.ledger.largest()}. Ask for less, or declare "
            "more with init(num_cpus=..., num_gpus=..., resources=...)."
        )

    # ---- what nodes report (reactor's thread) ------------------------------------------------------------------------

    def on_messages(self, process: ExecutorProcess, messages: list[Message]) -> None:
        """Messages of an executor."""
        with self.lock:
            record = self.pool.records.get(process.key)
            if record is None:
                return
            handle = self.requests.handle
            for message in messages:
                handle(record, message)

    def on_bytes(self, process: ExecutorProcess, data: bytes) -> None:
        """Never called: this listener asks for messages."""
        raise AssertionError("the head takes messages, not bytes")

    def on_output(self, process: ExecutorProcess, is_stderr: bool, lines: list[str]) -> None:
        """Lines that an executor has printed."""
        self.output.print_lines(process.label, process.pid, is_stderr, lines)

    def on_ended(self, process: ExecutorProcess, death: Death) -> None:
        """An executor is gone."""
        with self.lock:
            record = self.pool.records.get(process.key)
            if record is None:
                return
            self.pool.forget(record)
            self.requests.forget_executor(record)
            if record.actor is not None:
                self.actors.on_ended(record, death)
            elif record.spec is not None:
                self.tasks.on_crash(record.spec, death)
            else:
                self.release_allocation(record)
                self.tasks.dispatch()

    def _after_events(self) -> None:
        if self.released or self.closed_streams:
            with self.lock:
                self._drain()

    def _on_retire_timer(self) -> None:
        with self.lock:
            if not self.closed:
                self.pool.retire_idle()

    # ---- references --------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Count references that finalizers released; finalizers cannot take the lock themselves."""
        released = self.released
        drop = self.objects.drop
        while released:
            drop(released.popleft())
        while self.closed_streams:
            self.tasks.stream_closed(self.closed_streams.popleft())

    def adopt_ref(self, object_id: bytes) -> ObjectRef:
        with self.lock:
            self.objects.hold(object_id)
        return ObjectRef(object_id, self)

    def release_ref(self, object_id: bytes) -> None:
        self.released.append(object_id)
        if not self.reactor.lingering and not self.closed:
            self.reactor.wake()

    def pin(self, object_id: bytes) -> None:
        with self.lock:
            self.objects.hold(object_id)

    def delete_segment(self, segment: Segment) -> None:
        """Delete a value's shared memory wherever it lies, copies included."""
        self.on_segment_deleted(segment)
        if segment.host == self.store.host:
            self.store.delete(segment)
            if not self._trim_timer:
                self._trim_timer = True
                self.reactor.call_later(2.0, self._on_trim_timer)
        else:
            node = self.nodes.get(segment.node_id)
            if node is not None:
                node.delete_segment(segment)

    def on_segment_deleted(self, segment: Segment) -> None:
        """Hook for sessions that copy segments between hosts."""

    def on_starved(self) -> None:
        """Hook for sessions whose cluster grows: work waits for resources."""

    def recover_objects(self, node_id: str) -> None:
        """Have what lay on a lost node computed again; what cannot be is lost with a clear error."""
        again: dict[bytes, TaskSpec] = {}
        for entry in self.objects_on(node_id):
            payload = entry.payload
            assert payload is not None
            spec: TaskSpec | None = entry.lineage
            may_retry = spec is not None and (spec.max_retries < 0 or spec.attempt < spec.max_retries)
            if spec is not None and may_retry and self.why_never(spec) is None:
                entry.payload = None
                entry.task = spec
                entry.refs += 1
                again[spec.task_id] = spec
            else:
                lost = exceptions.ObjectReconstructionFailedError(
                    entry.object_id.hex(),
                    "Its node was lost, and it cannot be computed again: it was put, or an actor made it, or its task has no "
                    "more retries or no other node.",
                )
                entry.payload = serialization.error_payload(lost)
            for contained in payload[2]:
                self.objects.drop(contained)
        for spec in again.values():
            spec.attempt += 1
            spec.executor = None
            self.tasks.resubmit(spec)

    def objects_on(self, node_id: str) -> list[ObjectEntry]:
        """Return the objects whose only copy lies on a node."""
        return [
            entry
            for entry in self.objects.entries.values()
            if entry.payload is not None and entry.payload[0] == SHARED and entry.payload[1].node_id == node_id
        ]

    def _on_trim_timer(self) -> None:
        self._trim_timer = self.store.trim()
        if self._trim_timer and not self.closed:
            self.reactor.call_later(1.0, self._on_trim_timer)

    def local_copy(self, payload: Payload, record: ExecutorRecord) -> Payload:
        """Return a payload that an executor's host can map; on one host it is the payload itself."""
        return payload

    def lost_error(self, object_id: bytes) -> Exception:
        """Return the error of a reference that points to nothing."""
        return exceptions.ObjectLostError(
            object_id.hex(),
            "It belongs to a session that has ended, or every reference that mltoolkit could see is gone.",
        )

    def _entry(self, object_id: bytes) -> ObjectEntry:
        entry = self.objects.get(object_id)
        if entry is None:
            raise self._closed_error(object_id) if self.closed else self.lost_error(object_id)
        return entry

    def _closed_error(self, object_id: bytes) -> Exception:
        if self.closed_reason:
            return exceptions.RaySystemError(self.closed_reason)
        return exceptions.OwnerDiedError(object_id.hex(), "Its session was shut down.")

    def _check_open(self) -> None:
        if self.closed and self.closed_reason:
            raise exceptions.RaySystemError(self.closed_reason)
        if self.closed:
            raise exceptions.RayError(
                "This session was shut down; its references, actors and handles are unusable. Make new ones after init()."
            )

    # ---- work --------------------------------------------------------------------------------------------------------

    def knows_function(self, function_id: bytes) -> bool:
        return function_id in self.pool.functions

    def export(self, function_id: bytes, payload: Payload) -> None:
        with self.lock:
            self._check_open()
            if function_id not in self.pool.functions:
                self.objects.hold_payload(payload)
                self.pool.functions[function_id] = payload

    def submission_key(self) -> bytes:
        """Return the key of the driver's present directory, import path and environment."""
        submission = self._submissions.current()
        self.pool.contexts.setdefault(submission.key, submission)
        if self._watch.changed():
            self.pool.new_epoch()
        return submission.key

    def submit(self, spec: TaskSpec) -> list[ObjectRef]:
        with self.lock:
            self._check_open()
            if self.released:
                self._drain()
            create = self.objects.create
            if spec.kind == CALL:
                self.check_pending_limit(spec)
                for object_id in spec.return_ids:
                    create(object_id, 2, spec)
                if not self.actors.send_at_once(spec):
                    self.tasks.submit(spec)
            else:
                spec.context_key = self.submission_key()
                for object_id in spec.return_ids:
                    create(object_id, 2, spec)
                self.tasks.submit(spec)
                self.tasks.dispatch()
        return [ObjectRef(object_id, self) for object_id in spec.return_ids]

    def check_pending_limit(self, spec: TaskSpec) -> None:
        """Refuse a call beyond the actor's ``max_pending_calls``."""
        actor = self.actors.actors.get(spec.actor_id)
        limit = actor.max_pending if actor is not None else -1
        if actor is not None and 0 <= limit <= actor.calls:
            raise exceptions.PendingCallsLimitExceeded(
                f"The actor {actor.class_name} has {actor.calls} calls waiting, max_pending_calls={limit} allows no more. "
                "Wait for results before calling again."
            )

    def create_actor(self, spec: TaskSpec) -> bytes:
        with self.lock:
            self._check_open()
            spec.context_key = self.submission_key()
            return self.actors.create(spec)

    def put(self, value: Any) -> ObjectRef:
        self._check_open()
        payload = serialization.serialize(value, self.store)
        object_id = new_id()
        self.put_payload(object_id, payload)
        return ObjectRef(object_id, self)

    def put_payload(self, object_id: bytes, payload: Payload) -> None:
        """Add an object that has its value, with one reference."""
        with self.lock:
            if self.released:
                self._drain()
            entry = self.objects.create(object_id, 1)
            entry.payload = payload
            if payload[2]:
                self.objects.hold_payload(payload)

    # ---- waiting -----------------------------------------------------------------------------------------------------

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        payloads = self._payloads(refs, timeout)
        return [serialization.deserialize(payload, self.store) for payload in payloads]

    def _payloads(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Payload]:
        with self.lock:
            entries = [self._entry(ref._id) for ref in refs]
            missing = []
            for entry in entries:
                payload = entry.payload
                if payload is None:
                    missing.append(entry)
                elif payload[0] == ERROR:
                    raise serialization.load_error(payload[1])
            if missing:
                waiter = Waiter(len(missing))
                for entry in missing:
                    self.objects.watch(entry, waiter)
        if missing:
            try:
                self._check_thread()
                done = waiter.wait(timeout)
            finally:
                if waiter.count:
                    with self.lock:
                        self.objects.unwatch(missing, waiter)
            if not done:
                pending = sum(entry.payload is None for entry in missing)
                if pending:
                    raise GetTimeoutError(
                        f"{pending} of {len(refs)} objects were not ready within {timeout:g} s. The work goes on; `get` them again later."
                    )
            for entry in missing:
                payload = entry.payload
                if payload is None:
                    if self.closed:
                        raise self._closed_error(entry.object_id)
                elif payload[0] == ERROR:
                    raise serialization.load_error(payload[1])
        return [self.local_payload(entry) for entry in entries]

    def local_payload(self, entry: ObjectEntry) -> Payload:
        """Return an entry's payload in a form that the driver can load."""
        assert entry.payload is not None
        return entry.payload

    def _check_thread(self) -> None:
        if threading.current_thread() is self.reactor.thread:
            raise RuntimeError(
                "A blocking call on mltoolkit's own I/O thread would never end; use a thread of your own."
            )

    def wait(self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None) -> set[bytes]:
        with self.lock:
            entries = [self._entry(ref._id) for ref in refs]
            missing = [entry for entry in entries if entry.payload is None]
            needed = num_returns - (len(entries) - len(missing))
            waiter = None
            if needed > 0 and timeout != 0:
                waiter = Waiter(needed)

                def notify(entry: ObjectEntry) -> None:
                    if waiter.count > 0:
                        waiter.notify()

                for entry in missing:
                    self.objects.watch(entry, notify)
        if waiter is not None:
            try:
                self._check_thread()
                waiter.wait(timeout)
            finally:
                with self.lock:
                    self.objects.unwatch(missing, notify)
            if self.closed:
                raise self._closed_error(refs[0]._id)
        return {entry.object_id for entry in entries if entry.payload is not None}

    def future(self, ref: ObjectRef) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def settle(entry: ObjectEntry) -> None:
            payload = entry.payload
            keep = ObjectRef.__new__(ObjectRef)
            keep._id, keep._backend = entry.object_id, self
            entry.refs += 1  # for `keep`, which holds the value until it has been loaded

            def load() -> None:
                if future.cancelled():
                    return
                try:
                    assert payload is not None
                    value = serialization.deserialize(self.local_payload(entry), self.store)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(value)
                nonlocal keep
                del keep

            self.callbacks.submit(load)

        with self.lock:
            entry = self._entry(ref._id)
            if entry.payload is not None:
                settle(entry)
            else:
                self.objects.watch(entry, settle)
        return future

    # ---- streams -----------------------------------------------------------------------------------------------------

    def _take_item(self, ref: ObjectRef, index: int, item: bytes) -> ObjectRef:
        with self.lock:
            self.objects.hold(item)
            self.tasks.stream_item_taken(ref._id, index)
        return ObjectRef(item, self)

    def stream_next(self, ref: ObjectRef, index: int, timeout: float | None) -> ObjectRef | None:
        waiter = Waiter()
        with self.lock:
            self._check_open()
            self.tasks.stream_next(ref._id, index, waiter.finish)
        if not waiter.wait(timeout):
            raise GetTimeoutError(f"The generator yielded nothing within {timeout:g} s.")
        if self.closed and waiter.value is None:
            raise self._closed_error(ref._id)
        return None if waiter.value is None else self._take_item(ref, index, waiter.value)

    def stream_next_future(self, ref: ObjectRef, index: int) -> concurrent.futures.Future[ObjectRef | None]:
        future: concurrent.futures.Future[ObjectRef | None] = concurrent.futures.Future()

        def answered(item: bytes | None) -> None:
            taken = None if item is None else self._take_item(ref, index, item)
            self.callbacks.submit(lambda: future.set_result(taken))

        with self.lock:
            self._check_open()
            self.tasks.stream_next(ref._id, index, answered)
        return future

    def stream_peek(self, ref: ObjectRef, index: int) -> concurrent.futures.Future[None]:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self.lock:
            self._check_open()
            self.tasks.stream_next(ref._id, index, lambda item: future.set_result(None))
        return future

    def stream_ready(self, ref: ObjectRef, index: int) -> bool:
        return bool(self.query("stream_ready", ref._id, index))

    def stream_exhausted(self, ref: ObjectRef, index: int) -> bool:
        return bool(self.query("stream_exhausted", ref._id, index))

    def stream_closed(self, object_id: bytes) -> None:
        self.closed_streams.append(object_id)
        if not self.closed:
            self.reactor.wake()

    # ---- the rest of the API -----------------------------------------------------------------------------------------

    def cancel(self, object_id: bytes, force: bool, recursive: bool) -> None:
        with self.lock:
            self._check_open()
            self.tasks.cancel(object_id, force, recursive)

    def kill_actor(self, actor_id: bytes, no_restart: bool) -> None:
        with self.lock:
            self._check_open()
            self.actors.kill(actor_id, no_restart)

    def query(self, what: str, *args: Any) -> Any:
        if what == "group_wait":
            return self._wait_for_group(*args)
        with self.lock:
            self._check_open()
            return self.queries.answer(what, args)

    def _wait_for_group(self, group_id: bytes, timeout: float | None) -> bool:
        waiter = Waiter()
        with self.lock:
            self._check_open()
            self.groups.on_settled(group_id, waiter.finish)
        return waiter.wait(Deadline(timeout).left()) and bool(waiter.value)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Refuse further work and release everybody who waits."""
        with self.lock:
            self.closed = True
            for entry in list(self.objects.entries.values()):
                waiters, entry.waiters = entry.waiters, None
                for waiter in waiters or ():
                    if type(waiter) is Waiter:
                        waiter.finish()
                    elif entry.payload is None:
                        entry.payload = serialization.error_payload(self._closed_error(entry.object_id))
                        waiter(entry)
                    else:
                        waiter(entry)
            for stream in self.tasks.streams.values():
                stream.ended = True
                self.tasks._answer(stream)
            for group in self.groups.groups.values():
                waiting, group.waiters = group.waiters, []
                for callback in waiting:
                    callback(False)

    def dispose(self) -> None:
        """Forget everything, after the nodes have stopped."""
        with self.lock:
            for entry in self.objects.entries.values():
                payload = entry.payload
                if payload is not None and payload[0] == SHARED:
                    self.delete_segment(payload[1])
            self.objects.entries.clear()
            self.tasks.live.clear()
            self.tasks.queues.clear()
            self.pool.records.clear()
            self.pool.functions.clear()
            self.pool.contexts.clear()
        self.callbacks.stop()
        self.output.flush()

"""Tasks: from submission over dependencies, placement, retries and cancellation to their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mltoolkit import exceptions
from mltoolkit.core import serialization
from mltoolkit.core.deaths import Death
from mltoolkit.core.ids import new_id
from mltoolkit.core.options import STREAMING, Demand
from mltoolkit.core.pool import ExecutorRecord
from mltoolkit.core.serialization import ERROR, NONE_PAYLOAD, SHARED, Payload
from mltoolkit.core.specs import CALL, CREATE, TASK, TaskSpec

if TYPE_CHECKING:
    from mltoolkit.core.head import Head


class Stream:
    """The items of a streaming task."""

    __slots__ = ("closed", "consumed", "ended", "items", "waiters")

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.ended = False
        self.closed = False
        self.consumed = 0
        self.waiters: list[tuple[int, Callable[[bytes | None], None]]] = []

    def pop_ready_waiters(self) -> list[tuple[Callable[[bytes | None], None], bytes | None]]:
        """Return the waiters that can be answered now, with their answers."""
        ready: list[tuple[Callable[[bytes | None], None], bytes | None]] = []
        waiting = []
        for index, callback in self.waiters:
            if index < len(self.items):
                ready.append((callback, self.items[index]))
            elif self.ended:
                ready.append((callback, None))
            else:
                waiting.append((index, callback))
        self.waiters = waiting
        return ready


class TaskManager:
    """The head's part that runs tasks; the caller holds the head's lock."""

    def __init__(self, head: Head) -> None:
        self.head = head
        head.objects.on_lineage_unused = self.on_lineage_unused
        self.live: dict[bytes, TaskSpec] = {}
        self.queues: dict[Demand, deque[TaskSpec]] = {}
        self.streams: dict[bytes, Stream] = {}
        self.running_without_cpu = 0
        self._dispatching = False

    # ---- submission --------------------------------------------------------------------------------------------------

    def submit(self, spec: TaskSpec) -> None:
        """Register a task, actor creation or call; its return entries exist already."""
        self.live[spec.task_id] = spec
        objects = self.head.objects
        for object_id in spec.args[2]:
            objects.hold(object_id)
        if spec.num_returns == STREAMING:
            self.streams[spec.task_id] = Stream()
        if spec.kind == CALL and not self.head.actors.accept(spec):
            return
        waiting = 0
        for object_id in spec.deps:
            entry = objects.get(object_id)
            if entry is None:
                spec.deps = tuple(d for d in spec.deps if objects.get(d) is not None)
                self._lost_dependency(spec, object_id)
                return
            entry.refs += 1
            if entry.payload is None:
                waiting += 1
                objects.watch(entry, lambda _, spec=spec: self._dependency_ready(spec))
        spec.waiting = waiting
        if not waiting:
            self._ready(spec)

    def _lost_dependency(self, spec: TaskSpec, object_id: bytes) -> None:
        spec.deps = ()
        self.fail(spec, serialization.error_payload(self.head.lost_error(object_id)))

    def _dependency_ready(self, spec: TaskSpec) -> None:
        spec.waiting -= 1
        if not spec.waiting and spec.task_id in self.live:
            self._ready(spec)
            self.dispatch()

    def _ready(self, spec: TaskSpec) -> None:
        objects = self.head.objects
        for object_id in spec.deps:
            entry = objects.get(object_id)
            if entry is not None and entry.payload is not None and entry.payload[0] == ERROR:
                self.fail(spec, entry.payload)
                return
        if spec.kind == CALL:
            self.head.actors.on_ready(spec)
            return
        assert spec.demand is not None
        problem = self.head.why_never(spec)
        if problem is not None:
            self.fail(spec, serialization.error_payload(problem))
            return
        self.enqueue(spec)

    def enqueue(self, spec: TaskSpec, *, first: bool = False) -> None:
        """Put a task or an actor's creation into the queue of its demand."""
        assert spec.demand is not None
        queue = self.queues.get(spec.demand)
        if queue is None:
            queue = self.queues[spec.demand] = deque()
        if first:
            queue.appendleft(spec)
        else:
            queue.append(spec)

    # ---- dispatch ----------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Start what can start."""
        if self._dispatching or self.head.closed:
            return
        self._dispatching = True
        try:
            for demand in list(self.queues):
                queue = self.queues.get(demand)
                while queue:
                    spec = queue[0]
                    if spec.cancelled or spec.task_id not in self.live:
                        queue.popleft()
                        continue
                    is_task = spec.kind == TASK
                    if is_task and not demand.held and self.running_without_cpu >= self.head.max_without_cpu:
                        break
                    allocation = self.head.allocate(demand)
                    if allocation is None:
                        break
                    queue.popleft()
                    if is_task:
                        self._start(spec, demand, allocation)
                    else:
                        self.head.actors.start(spec, demand, allocation)
                if not queue:
                    self.queues.pop(demand, None)
                else:
                    # Demands take turns: the one served now goes to the end.
                    self.queues[demand] = self.queues.pop(demand)
        finally:
            self._dispatching = False
        if self.queues:
            self.head.on_starved()

    def _start(self, spec: TaskSpec, demand: Demand, allocation: Any) -> None:
        record = self.head.pool.acquire(demand, allocation, fresh=False)
        if not demand.held:
            self.running_without_cpu += 1
        self._send(spec, demand, allocation, record)

    def _send(self, spec: TaskSpec, demand: Demand, allocation: Any, record: ExecutorRecord) -> None:
        pool = self.head.pool
        record.spec = spec
        record.outstanding = 0
        spec.executor = record
        record.process.label = spec.name
        pool.provide(record, spec.function_id, spec.context_key)
        extra: dict[str, Any] = {"context": spec.context_key, "resources": dict(demand.held)}
        if spec.options:
            extra.update(spec.options)
        if spec.retry_exceptions and spec.attempt != spec.max_retries:
            extra["retry_exceptions"] = spec.retry_exceptions
        if allocation.bundle is not None:
            extra["placement_group"] = self.head.groups.inherited(demand.strategy)
        deps = self.delivered_deps(record, spec)
        pool.deliver(record, spec.args)
        pool.send(record, ("task", spec.task_id, spec.function_id, spec.name, spec.args, deps, spec.num_returns, extra))

    def delivered_deps(self, record: ExecutorRecord, spec: TaskSpec) -> tuple[Payload, ...]:
        """Return the payloads of a spec's dependencies, counted for the executor that gets them."""
        if not spec.deps:
            return ()
        payloads = []
        for object_id in spec.deps:
            entry = self.head.objects.get(object_id)
            assert entry is not None and entry.payload is not None
            payload = self.head.local_copy(entry.payload, record)
            self.head.pool.deliver(record, payload)
            payloads.append(payload)
        return tuple(payloads)

    # ---- outcomes ----------------------------------------------------------------------------------------------------

    def _detach(self, spec: TaskSpec) -> None:
        """Give back what a running task held, and its executor to the pool."""
        record = spec.executor
        if record is None or record.spec is not spec:
            return
        spec.executor = None
        if not spec.demand.held:
            self.running_without_cpu -= 1
        self.head.release_allocation(record)
        if record.process.ended:
            record.spec = None
        else:
            self.head.pool.put_back(record)

    def on_done(self, task_id: bytes, payloads: list[Payload]) -> None:
        """An executor has finished a task or a call."""
        spec = self.live.get(task_id)
        if spec is None:
            for payload in payloads:  # cancelled or lost meanwhile: nobody wants the values
                self.head.objects.hold_payload(payload)
                self.head.objects.discard_payload(payload)
            return
        if spec.kind == CALL and spec.num_returns == 1 and not spec.deps and not spec.cancelled:
            # The same as `_finish`, for the plainest and most frequent case.
            del self.live[task_id]
            self.head.actors.on_call_finished(spec)
            self.head.objects.resolve(task_id, payloads[0])
            self.head.objects.drop(task_id)
            args = spec.args
            if args[2] or args[0] != serialization.INLINE:
                self._release_inputs(spec)
            return
        handed_over = False
        if spec.kind == TASK:
            handed_over = self._hand_over(spec)
            if not handed_over:
                self._detach(spec)
        if spec.cancelled:
            for payload in payloads:
                self.head.objects.hold_payload(payload)
                self.head.objects.discard_payload(payload)
            self.fail(spec, self._cancelled_payload(spec))
        else:
            self._finish(spec, payloads)
        if spec.kind == TASK and not handed_over:
            self.dispatch()

    def _hand_over(self, spec: TaskSpec) -> bool:
        """Give the executor of a finished task the next one of the same demand, if nobody else waits for resources."""
        record = spec.executor
        if len(self.queues) != 1 or record is None or record.retiring or record.shape[-1] != self.head.pool.epoch:
            return False
        demand = spec.demand
        queue = self.queues.get(demand) if demand is not None and demand.held else None
        while queue:
            following = queue.popleft()
            if following.kind != TASK:
                queue.appendleft(following)
                return False
            if following.cancelled or following.task_id not in self.live:
                continue
            spec.executor = None
            record.blocked = 0
            record.allocation.resume()
            assert demand is not None
            self._send(following, demand, record.allocation, record)
            if not queue:
                self.queues.pop(demand, None)
            return True
        return False

    def on_failed(self, task_id: bytes, payload: Payload, retry: bool) -> None:
        """User code raised."""
        spec = self.live.get(task_id)
        if spec is None:
            return
        if spec.kind == TASK:
            self._detach(spec)
        if spec.cancelled:
            payload = self._cancelled_payload(spec)
        elif retry and self._may_retry(spec):
            spec.attempt += 1
            self._again(spec)
            self.dispatch()
            return
        self.fail(spec, payload)
        self.dispatch()

    def _may_retry(self, spec: TaskSpec) -> bool:
        return spec.max_retries < 0 or spec.attempt < spec.max_retries

    def _again(self, spec: TaskSpec) -> None:
        if spec.kind == CALL:
            self.head.actors.on_ready(spec)
        else:
            self.enqueue(spec, first=True)

    def on_crash(self, spec: TaskSpec, death: Death) -> None:
        """The executor died while it ran the task."""
        self._detach(spec)
        if spec.cancelled:
            self.fail(spec, self._cancelled_payload(spec))
        elif self._may_retry(spec) and spec.task_id in self.live:
            spec.attempt += 1
            self._again(spec)
        else:
            tried = f" It was tried {spec.attempt + 1} times." if spec.attempt else ""
            retries = (
                f" max_retries={spec.max_retries} are used up."
                if spec.max_retries
                else " It is not retried (max_retries=0)."
            )
            text = f"The executor process of task {spec.name} died: {death.describe()}"
            first, _, rest = text.partition("\n")
            message = f"{first}.{tried}{retries}" + (f"\n{rest}" if rest else "")
            cls = exceptions.OutOfMemoryError if death.out_of_memory else exceptions.WorkerCrashedError
            self.fail(spec, serialization.error_payload(cls(message)))
        self.dispatch()

    def fail(self, spec: TaskSpec, payload: Payload) -> None:
        """Give all results of a task the same error."""
        if spec.task_id not in self.live:
            return
        if spec.kind == CREATE:
            self.live.pop(spec.task_id, None)
            self._release_inputs(spec)
            self.head.actors.on_creation_failed(spec, payload)
            return
        self._finish(spec, [payload] * max(1, len(spec.return_ids)))

    def _finish(self, spec: TaskSpec, payloads: list[Payload]) -> None:
        self.live.pop(spec.task_id, None)
        if spec.kind == CALL:
            self.head.actors.on_call_finished(spec)
        objects = self.head.objects
        stream = self.streams.get(spec.task_id) if spec.num_returns == STREAMING else None
        if stream is not None and payloads[0][0] == ERROR and not stream.closed:
            self._end_stream_with(spec, stream, payloads[0])
        for object_id, payload in zip(spec.return_ids, payloads, strict=False):
            objects.resolve(object_id, payload)
            if self.head.keep_lineage and spec.kind == TASK and payload[0] == SHARED:
                self._keep_lineage(spec, object_id)
            objects.drop(object_id)  # the pin that kept it while the task was under way
        if stream is not None:
            stream.ended = True
            self._answer(stream)
            if stream.closed:
                self.streams.pop(spec.task_id, None)
        if not spec.lineage_users:
            self._release_inputs(spec)

    def _keep_lineage(self, spec: TaskSpec, object_id: bytes) -> None:
        """Remember how to make a result again; its inputs live as long as it does."""
        entry = self.head.objects.get(object_id)
        if entry is not None and entry.lineage is None and spec.max_retries:
            entry.lineage = spec
            spec.lineage_users += 1

    def on_lineage_unused(self, spec: TaskSpec) -> None:
        """A result that the task could have made again is gone."""
        spec.lineage_users -= 1
        if not spec.lineage_users and spec.task_id not in self.live:
            self._release_inputs(spec)

    def resubmit(self, spec: TaskSpec) -> None:
        """Run a finished task again, because a result was lost; its inputs are held still."""
        self.live[spec.task_id] = spec
        objects = self.head.objects
        waiting = 0
        for object_id in spec.deps:
            entry = objects.get(object_id)
            if entry is not None and entry.payload is None:
                waiting += 1
                objects.watch(entry, lambda _, spec=spec: self._dependency_ready(spec))
        spec.waiting = waiting
        if not waiting:
            self._ready(spec)

    def _release_inputs(self, spec: TaskSpec) -> None:
        objects = self.head.objects
        args, spec.args = spec.args, NONE_PAYLOAD
        if args is not NONE_PAYLOAD and (args[2] or args[0] != serialization.INLINE):
            objects.discard_payload(args)
        deps, spec.deps = spec.deps, ()
        for object_id in deps:
            objects.drop(object_id)

    # ---- cancelling --------------------------------------------------------------------------------------------------

    def _cancelled_payload(self, spec: TaskSpec) -> Payload:
        return serialization.error_payload(exceptions.TaskCancelledError(spec.task_id.hex()))

    def cancel(self, object_id: bytes, force: bool, recursive: bool) -> None:
        """Cancel the task that makes an object."""
        entry = self.head.objects.get(object_id)
        spec = entry.task if entry is not None else None
        if spec is None or spec.task_id not in self.live:
            return
        if force and spec.kind == CALL:
            raise ValueError("`force=True` is not allowed for actor methods; use `kill(actor)` to end the actor.")
        self._cancel(spec, force, recursive)

    def _cancel(self, spec: TaskSpec, force: bool, recursive: bool) -> None:
        if recursive:
            for child in [
                s for s in self.live.values() if s.parent == spec.task_id and s is not spec and s.kind != CREATE
            ]:
                self._cancel(child, force and child.kind != CALL, True)
        if spec.task_id not in self.live:
            return
        first = not spec.cancelled
        spec.cancelled = True
        if spec.executor is None:
            if spec.kind == CALL:
                self.head.actors.forget_call(spec)
            self.fail(spec, self._cancelled_payload(spec))
            return
        if force:
            self.head.pool.kill(spec.executor, "ray.cancel(force=True) was called")
        elif first:
            self.head.pool.send(spec.executor, ("cancel", spec.task_id))

    # ---- streams -----------------------------------------------------------------------------------------------------

    def on_item(self, task_id: bytes, index: int, item_id: bytes, payload: Payload) -> None:
        """A streaming task has yielded."""
        objects = self.head.objects
        spec = self.live.get(task_id)
        stream = self.streams.get(task_id)
        objects.hold_payload(payload)
        if spec is None or stream is None or stream.closed or index < len(stream.items):
            objects.discard_payload(payload)  # nobody listens, or a retry repeats what was seen already
            return
        self._append_item(stream, item_id, payload)
        for contained in payload[2]:
            objects.drop(contained)
        self._answer(stream)

    def _append_item(self, stream: Stream, item_id: bytes, payload: Payload) -> None:
        self.head.objects.create(item_id, 1)
        self.head.objects.resolve(item_id, payload)
        stream.items.append(item_id)

    def _end_stream_with(self, spec: TaskSpec, stream: Stream, payload: Payload) -> None:
        """Make an error the last item, unless the executor has sent it as one."""
        last = self.head.objects.get(stream.items[-1]) if stream.items else None
        if last is not None and last.payload is not None and last.payload[0] == ERROR:
            return
        self._append_item(stream, new_id(), payload)

    def _answer(self, stream: Stream) -> None:
        for callback, item in stream.pop_ready_waiters():
            callback(item)

    def stream_next(self, task_id: bytes, index: int, callback: Callable[[bytes | None], None]) -> None:
        """Call back with the id of item `index`, or None at the end."""
        stream = self.streams.get(task_id)
        if stream is None:
            callback(None)
            return
        stream.waiters.append((index, callback))
        self._answer(stream)

    def stream_item_taken(self, task_id: bytes, index: int) -> None:
        """The consumer has a reference of its own: drop the stream's, and let the producer go on."""
        stream = self.streams.get(task_id)
        if stream is None:
            return
        self.head.objects.drop(stream.items[index])
        spec = self.live.get(task_id)
        consumed = index + 1
        if consumed > stream.consumed:
            stream.consumed = consumed
            if spec is not None and spec.executor is not None and (spec.options or {}).get("backpressure"):
                self.head.pool.send(spec.executor, ("consumed", task_id, consumed))

    def stream_closed(self, task_id: bytes) -> None:
        """The generator is gone: end its task and drop what nobody took."""
        stream = self.streams.get(task_id)
        if stream is None or stream.closed:
            return
        stream.closed = True
        for index in range(stream.consumed, len(stream.items)):
            self.head.objects.drop(stream.items[index])
        spec = self.live.get(task_id)
        if spec is None or stream.ended:
            self.streams.pop(task_id, None)
        else:
            self._cancel(spec, False, True)

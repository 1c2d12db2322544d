"""What executors ask of the head; the caller holds the head's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mltoolkit.core import serialization
from mltoolkit.core.channel import Message
from mltoolkit.core.objects import ObjectEntry
from mltoolkit.core.pool import ExecutorRecord
from mltoolkit.core.serialization import ERROR, Payload
from mltoolkit.core.specs import CALL, CREATE, TASK, TaskSpec
from mltoolkit.exceptions import DeadlockError, ObjectLostError

if TYPE_CHECKING:
    from mltoolkit.core.head import Head


class PendingRequest:
    """A get or wait of an executor that cannot be answered yet."""

    __slots__ = ("answered", "blocking", "endless", "entries", "record", "request_id", "watcher")

    def __init__(self, record: ExecutorRecord, request_id: int, blocking: bool) -> None:
        self.record = record
        self.request_id = request_id
        self.blocking = blocking
        self.entries: list[ObjectEntry] = []
        self.watcher: Callable[[ObjectEntry], None] | None = None
        self.answered = False
        self.endless = False  # a get without a timeout


def _describe_cycle(cycle: list[str]) -> str:
    return (
        f"Actors wait for each other in a cycle, so that none of them can ever go on: {'; '.join(cycle)}. Use an asyncio actor and `await`, "
        "`max_concurrency` > 1, or a timeout."
    )


class RequestHandler:
    """Handle the messages of executors."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.fetch: Callable[[ExecutorRecord, Any, Callable[[Any, str], None]], None] | None = None
        self._pending: dict[tuple[bytes, int], PendingRequest] = {}
        self._handlers: dict[str, Callable[[ExecutorRecord, Message], None]] = {
            name.removeprefix("_on_"): getattr(self, name) for name in dir(self) if name.startswith("_on_")
        }

    def handle(self, record: ExecutorRecord, message: Message) -> None:
        """Handle one message."""
        self._handlers[message[0]](record, message)

    # ---- outcomes of work --------------------------------------------------------------------------------------------

    def _on_done(self, record: ExecutorRecord, message: Message) -> None:
        self.head.tasks.on_done(message[1], message[2])

    def _on_failed(self, record: ExecutorRecord, message: Message) -> None:
        self.head.tasks.on_failed(message[1], message[2], message[3])

    def _on_crash(self, record: ExecutorRecord, message: Message) -> None:
        record.retiring = True
        record.process.kill_reason = message[2]

    def _on_yield(self, record: ExecutorRecord, message: Message) -> None:
        self.head.tasks.on_item(*message[1:])

    def _on_created(self, record: ExecutorRecord, message: Message) -> None:
        """The constructor has returned; calls were sent behind it already."""
        if message[2]:
            record.process.label = message[2]  # the class has a __repr__ of its own

    def _on_create_failed(self, record: ExecutorRecord, message: Message) -> None:
        self.head.actors.on_create_failed(message[1], message[2])

    def _on_exiting(self, record: ExecutorRecord, message: Message) -> None:
        record.retiring = True
        self.head.actors.on_exiting(record, message[1])

    def _on_retire(self, record: ExecutorRecord, message: Message) -> None:
        record.retiring = True

    # ---- references --------------------------------------------------------------------------------------------------

    def _on_decref(self, record: ExecutorRecord, message: Message) -> None:
        for object_id, count in message[1]:
            self.head.pool.release(record, object_id, count)

    def _on_hold(self, record: ExecutorRecord, message: Message) -> None:
        self.head.pool.hold(record, message[1])

    def _on_pin(self, record: ExecutorRecord, message: Message) -> None:
        self.head.objects.hold(message[1])

    # ---- submissions -------------------------------------------------------------------------------------------------

    def _on_export(self, record: ExecutorRecord, message: Message) -> None:
        _, function_id, payload = message
        if function_id not in self.head.pool.functions:
            self.head.objects.hold_payload(payload)
            self.head.pool.functions[function_id] = payload

    def _on_submit(self, record: ExecutorRecord, message: Message) -> None:
        spec: TaskSpec = message[1]
        self._adopt(record, spec)
        head = self.head
        if spec.kind == CREATE:
            head.actors.create(spec)
            record.held[spec.task_id] = record.held.get(spec.task_id, 0) + 1
            return
        for object_id in spec.return_ids:
            head.objects.create(object_id, 2, spec)
            record.held[object_id] = record.held.get(object_id, 0) + 1
        if spec.kind == CALL:
            try:
                head.check_pending_limit(spec)
            except Exception as error:
                head.tasks.live[spec.task_id] = spec
                head.tasks.fail(spec, serialization.error_payload(error))
                return
            if head.actors.send_at_once(spec):
                return
        head.tasks.submit(spec)
        if spec.kind == TASK:
            head.tasks.dispatch()

    def _adopt(self, record: ExecutorRecord, spec: TaskSpec) -> None:
        spec.caller = record.key
        if spec.kind != CALL and not spec.context_key:
            # Work submitted by a task sees what that task's own caller saw.
            parent = record.actor.spec if record.actor is not None else record.spec
            spec.context_key = parent.context_key if parent is not None else b""

    def _on_create_named(self, record: ExecutorRecord, message: Message) -> None:
        _, request_id, spec = message
        self._adopt(record, spec)
        try:
            actor_id = self.head.actors.create(spec)
        except ValueError as error:
            self._reply_error(record, request_id, error)
            return
        record.held[actor_id] = record.held.get(actor_id, 0) + 1
        self._reply(record, request_id, actor_id)

    def _on_put(self, record: ExecutorRecord, message: Message) -> None:
        _, object_id, payload = message
        self.head.put_payload(object_id, payload)
        record.held[object_id] = record.held.get(object_id, 0) + 1

    # ---- questions ---------------------------------------------------------------------------------------------------

    def _reply(self, record: ExecutorRecord, request_id: int, value: Any) -> None:
        self.head.pool.send(record, ("reply", request_id, True, value))

    def _reply_error(self, record: ExecutorRecord, request_id: int, error: BaseException) -> None:
        self.head.pool.send(record, ("reply", request_id, False, serialization.error_payload(error)[1]))

    def _on_fetch(self, record: ExecutorRecord, message: Message) -> None:
        """An executor needs a segment of another host."""
        _, request_id, segment = message
        request = PendingRequest(record, request_id, True)
        self._pending[(record.key, request_id)] = request
        self._block(record)

        def fetched(copy: Any, problem: str) -> None:
            if request.answered:
                return
            self._settle(request)
            if copy is None:
                name = segment.path.rpartition("/")[2]
                self._reply_error(record, request_id, ObjectLostError(name, f"It could not be copied here: {problem}"))
            else:
                self._reply(record, request_id, copy)

        if self.fetch is None:
            fetched(None, "this session has one host")
        else:
            self.fetch(record, segment, fetched)

    def _on_get(self, record: ExecutorRecord, message: Message) -> None:
        self._get(record, message[1], message[2], blocking=True, endless=message[3])

    def _on_get_async(self, record: ExecutorRecord, message: Message) -> None:
        self._get(record, message[1], message[2], blocking=False, endless=False)

    def _get(
        self, record: ExecutorRecord, request_id: int, ids: tuple[bytes, ...], *, blocking: bool, endless: bool
    ) -> None:
        entries = []
        for object_id in ids:
            entry = self.head.objects.get(object_id)
            if entry is None:
                self._reply_error(record, request_id, self.head.lost_error(object_id))
                return
            entries.append(entry)

        def try_answer() -> bool:
            payloads: list[Payload] = []
            for entry in entries:
                payload = entry.payload
                if payload is not None and payload[0] == ERROR:
                    payloads = [payload]
                    break
                if payload is not None:
                    payloads.append(payload)
                elif payloads is not None:
                    payloads = None  # type: ignore[assignment]
                    break
            if payloads is None:
                # A failure further behind ends the wait at once as well.
                failed = next((e.payload for e in entries if e.payload is not None and e.payload[0] == ERROR), None)
                if failed is None:
                    return False
                payloads = [failed]
            local = [self.head.local_copy(payload, record) for payload in payloads]
            for payload in local:
                self.head.pool.deliver(record, payload)
            self._reply(record, request_id, tuple(local))
            return True

        if try_answer():
            return
        missing = [entry for entry in entries if entry.payload is None]
        left = len(missing)
        request = PendingRequest(record, request_id, blocking)
        request.endless = endless

        def on_ready(entry: ObjectEntry) -> None:
            nonlocal left
            left -= 1
            if request.answered or (left and entry.payload is not None and entry.payload[0] != ERROR):
                return
            self._settle(request)
            try_answer()

        self._wait_for(request, missing, on_ready)
        if endless and not request.answered:
            cycle = self._find_cycle(record)
            if cycle:
                self._settle(request)
                self._reply_error(record, request_id, DeadlockError(_describe_cycle(cycle)))

    def _find_cycle(self, start: ExecutorRecord) -> list[str]:
        """Return the calls along a cycle of actors that wait for each other for ever; [] if there is none.

        An actor that runs one call at a time and waits in it, without a timeout, for a call of its own queue can never get on.
        """
        if start.actor is None or not start.actor.ordered:
            return []
        waiting: dict[bytes, list[PendingRequest]] = {}
        for request in self._pending.values():
            if request.endless and request.record.actor is not None and request.record.actor.ordered:
                waiting.setdefault(request.record.key, []).append(request)
        path: list[str] = []
        seen: set[bytes] = set()

        def search(record: ExecutorRecord) -> bool:
            seen.add(record.key)
            for request in waiting.get(record.key, ()):
                for entry in request.entries:
                    spec = entry.task
                    target = spec.executor if spec is not None and spec.kind == CALL else None
                    if target is None or target.actor is None:
                        continue
                    path.append(f"{record.actor.class_name} waits for {target.actor.class_name}.{spec.name}()")
                    if target is start or (target.key not in seen and target.key in waiting and search(target)):
                        return True
                    path.pop()
            return False

        return path if search(start) else []

    def _wait_for(
        self, request: PendingRequest, entries: list[ObjectEntry], watcher: Callable[[ObjectEntry], None]
    ) -> None:
        """Keep a request until its entries are ready; that may be before this returns, for waiting lends resources."""
        request.entries, request.watcher = entries, watcher
        self._pending[(request.record.key, request.request_id)] = request
        for entry in entries:
            self.head.objects.watch(entry, watcher)
        if request.blocking:
            self._block(request.record)

    def _settle(self, request: PendingRequest) -> None:
        """End a pending request; its caller runs again."""
        if request.answered:
            return
        request.answered = True
        self._pending.pop((request.record.key, request.request_id), None)
        if request.watcher is not None:
            self.head.objects.unwatch(request.entries, request.watcher)
        if request.blocking:
            self._unblock(request.record)

    def _block(self, record: ExecutorRecord) -> None:
        record.blocked += 1
        if record.blocked != 1 or record.actor is not None or record.spec is None:
            return
        if not record.spec.demand.held:
            self.head.tasks.running_without_cpu -= 1
            self.head.tasks.dispatch()
        elif record.allocation is not None and record.allocation.suspend():
            if self.head.groups.groups:
                self.head.groups.try_reserve()
            self.head.tasks.dispatch()

    def _unblock(self, record: ExecutorRecord) -> None:
        if not record.blocked:
            return
        record.blocked -= 1
        if record.blocked or record.actor is not None or record.spec is None:
            return
        if not record.spec.demand.held:
            self.head.tasks.running_without_cpu += 1
        elif record.allocation is not None:
            record.allocation.resume()

    def _on_wait(self, record: ExecutorRecord, message: Message) -> None:
        _, request_id, ids, num_returns, timeout = message
        entries = []
        for object_id in ids:
            entry = self.head.objects.get(object_id)
            if entry is None:
                self._reply_error(record, request_id, self.head.lost_error(object_id))
                return
            entries.append(entry)
        missing = [entry for entry in entries if entry.payload is None]
        needed = num_returns - (len(entries) - len(missing))

        def answer() -> None:
            self._reply(record, request_id, {e.object_id for e in entries if e.payload is not None})

        if needed <= 0 or timeout == 0:
            answer()
            return

        request = PendingRequest(record, request_id, True)

        def on_ready(entry: ObjectEntry) -> None:
            nonlocal needed
            needed -= 1
            if needed <= 0 and not request.answered:
                self._settle(request)
                answer()

        self._wait_for(request, missing, on_ready)
        if timeout is not None and not request.answered:

            def on_timeout() -> None:
                with self.head.lock:
                    if not request.answered:
                        self._settle(request)
                        answer()

            self.head.reactor.call_later(timeout, on_timeout)

    def _on_forget(self, record: ExecutorRecord, message: Message) -> None:
        request = self._pending.get((record.key, message[1]))
        if request is not None:
            self._settle(request)

    def forget_executor(self, record: ExecutorRecord) -> None:
        """Drop the requests of an executor that has ended."""
        for key in [key for key in self._pending if key[0] == record.key]:
            self._settle(self._pending[key])

    def _on_stream_next(self, record: ExecutorRecord, message: Message) -> None:
        _, request_id, task_id, index = message
        request = PendingRequest(record, request_id, True)

        def answered(item: bytes | None) -> None:
            if request.answered or record.process.ended:
                return
            self._settle(request)
            if item is not None:
                self.head.pool.hold(record, item)
                self.head.tasks.stream_item_taken(task_id, index)
            self._reply(record, request_id, item)

        self._pending[(record.key, request_id)] = request
        self._block(record)
        self.head.tasks.stream_next(task_id, index, answered)

    def _on_stream_peek(self, record: ExecutorRecord, message: Message) -> None:
        _, request_id, task_id, index = message

        def ready(item: bytes | None) -> None:
            if not record.process.ended:
                self._reply(record, request_id, None)

        self.head.tasks.stream_next(task_id, index, ready)

    def _on_stream_closed(self, record: ExecutorRecord, message: Message) -> None:
        self.head.tasks.stream_closed(message[1])

    def _on_cancel(self, record: ExecutorRecord, message: Message) -> None:
        _, request_id, object_id, force, recursive = message
        try:
            self.head.tasks.cancel(object_id, force, recursive)
        except ValueError as error:
            self._reply_error(record, request_id, error)
        else:
            self._reply(record, request_id, None)

    def _on_kill_actor(self, record: ExecutorRecord, message: Message) -> None:
        _, request_id, actor_id, no_restart = message
        self.head.actors.kill(actor_id, no_restart)
        self._reply(record, request_id, None)

    def _on_query(self, record: ExecutorRecord, message: Message) -> None:
        _, request_id, what, args = message
        if what == "group_wait":
            self._group_wait(record, request_id, *args)
            return
        try:
            value = self.head.queries.answer(what, args)
        except Exception as error:
            self._reply_error(record, request_id, error)
            return
        if what in ("get_actor", "group_ready_ref"):
            object_id = value[0] if what == "get_actor" else value
            record.held[object_id] = record.held.get(object_id, 0) + 1
        self._reply(record, request_id, value)

    def _group_wait(self, record: ExecutorRecord, request_id: int, group_id: bytes, timeout: float | None) -> None:
        request = PendingRequest(record, request_id, True)
        self._pending[(record.key, request_id)] = request
        self._block(record)

        def settle(ready: bool) -> None:
            if not request.answered:
                self._settle(request)
                self._reply(record, request_id, ready)

        self.head.groups.on_settled(group_id, settle)
        if timeout is not None and not request.answered:

            def on_timeout() -> None:
                with self.head.lock:
                    settle(False)

            self.head.reactor.call_later(timeout, on_timeout)

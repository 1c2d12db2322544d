"""Actors: creation, the order of calls, restarts, names and ends."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from mltoolkit import exceptions
from mltoolkit.core import serialization
from mltoolkit.core.deaths import Death
from mltoolkit.core.options import Demand
from mltoolkit.core.pool import DIRECT_SENDS, ExecutorRecord
from mltoolkit.core.serialization import Payload
from mltoolkit.core.specs import TaskSpec

if TYPE_CHECKING:
    from mltoolkit.core.head import Head

PENDING, ALIVE, RESTARTING, DEAD = "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD"


class ActorState:
    """One actor.

    Calls pass three stations: `order` (per caller, until they are ready and their turn comes), `backlog` (until there is a process),
    `inflight` (sent to the process).
    """

    __slots__ = (
        "actor_id",
        "backlog",
        "calls",
        "death",
        "exit_reason",
        "handles_gone",
        "inflight",
        "max_pending",
        "name",
        "namespace",
        "order",
        "ordered",
        "ready",
        "record",
        "restarts",
        "spec",
        "state",
    )

    def __init__(self, spec: TaskSpec) -> None:
        options = spec.options or {}
        self.actor_id = spec.task_id
        self.spec = spec
        self.state = PENDING
        self.name: str | None = options.get("name")
        self.namespace: str = options.get("namespace", "")
        self.ordered: bool = options["ordered"]
        self.max_pending: int = options.get("max_pending_calls", -1)
        self.record: ExecutorRecord | None = None
        self.order: dict[Any, deque[TaskSpec]] = {}
        self.ready: set[bytes] = set()
        self.backlog: deque[TaskSpec] = deque()
        self.inflight: dict[bytes, TaskSpec] = {}
        self.calls = 0
        self.restarts = 0
        self.exit_reason = ""
        self.handles_gone = False
        self.death: Payload | None = None

    @property
    def class_name(self) -> str:
        """Name of the actor's class."""
        return self.spec.name


class ActorManager:
    """The head's part that runs actors; the caller holds the head's lock."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.actors: dict[bytes, ActorState] = {}
        self.names: dict[tuple[str, str], bytes] = {}
        head.objects.on_handles_gone = self.on_handles_gone

    # ---- creation ----------------------------------------------------------------------------------------------------

    def create(self, spec: TaskSpec) -> bytes:
        """Register an actor with one reference to it; return its id, or that of the one which has the name already.

        Raises
        ------
        ActorAlreadyExistsError
            If the name is taken.
        """
        options = spec.options or {}
        name = options.get("name")
        if name:
            key = (options["namespace"], name)
            existing = self.names.get(key)
            if existing is not None:
                if options.get("get_if_exists"):
                    self.head.objects.hold(existing)
                    return existing
                raise exceptions.ActorAlreadyExistsError(
                    f"The name {name!r} is taken by a living actor of namespace {key[0]!r}. Choose another name, use "
                    "`get_actor(name)` for a handle of the existing one, or pass `get_if_exists=True`."
                )
            self.names[key] = spec.task_id
        actor = ActorState(spec)
        self.actors[spec.task_id] = actor
        detached = options.get("lifetime") == "detached"
        self.head.objects.create(spec.task_id, 2 if detached else 1)
        self.head.objects.actor_ids.add(spec.task_id)
        self.head.tasks.submit(spec)
        self.head.tasks.dispatch()
        return spec.task_id

    def start(self, spec: TaskSpec, demand: Demand, allocation: Any) -> None:
        """Give the actor a process; what follows is sent right behind its constructor."""
        actor = self.actors[spec.task_id]
        pool = self.head.pool
        record = pool.acquire(demand, allocation, fresh=True)
        record.actor = actor
        record.process.label = spec.name
        actor.record = record
        spec.executor = record
        pool.provide(record, spec.function_id, spec.context_key)
        options = spec.options or {}
        extra = {
            **options["runner"],
            "context": spec.context_key,
            "resources": dict(demand.held),
            "restarted": actor.restarts,
            "name": actor.name,
        }
        if allocation.bundle is not None:
            extra["placement_group"] = self.head.groups.inherited(demand.strategy)
        deps = self.head.tasks.delivered_deps(record, spec)
        pool.deliver(record, spec.args)
        pool.send(record, ("create", spec.task_id, spec.function_id, spec.name, spec.args, deps, 1, extra))
        actor.state = ALIVE
        backlog, actor.backlog = actor.backlog, deque()
        for call in backlog:
            self._send(actor, call)
        self._end_if_unused(actor)

    def on_creation_failed(self, spec: TaskSpec, payload: Payload) -> None:
        """The actor can never be created: a dependency failed, or nobody has the resources."""
        actor = self.actors.get(spec.task_id)
        if actor is not None:
            self._die(actor, payload)

    def on_create_failed(self, actor_id: bytes, payload: Payload) -> None:
        """The constructor raised."""
        actor = self.actors.get(actor_id)
        if actor is None or actor.state == DEAD:
            return
        error = serialization.load_error(payload[1])
        cause = exceptions.ActorDiedError(error, actor_id.hex())
        self._die(actor, serialization.error_payload(cause))

    # ---- calls -------------------------------------------------------------------------------------------------------

    def accept(self, spec: TaskSpec) -> bool:
        """Take a call at its submission; False if it has failed already."""
        actor = self.actors.get(spec.actor_id)
        if actor is None or actor.state == DEAD:
            payload = actor.death if actor is not None else None
            spec.deps = ()
            self.head.tasks.fail(spec, payload or self._unknown(spec))
            return False
        actor.calls += 1
        if actor.ordered:
            queue = actor.order.get(spec.caller)
            if queue is not None or spec.deps:
                if queue is None:
                    queue = actor.order[spec.caller] = deque()
                queue.append(spec)
                spec.queued = True
        return True

    def send_at_once(self, spec: TaskSpec) -> bool:
        """Send a call that needs nothing to be decided; False if it must take the long way.

        Most calls are like this, and a call must cost microseconds: no dependencies, no references or shared memory in its
        arguments, a living actor, nothing of the same caller ahead of it.
        """
        actor = self.actors.get(spec.actor_id)
        if actor is None or actor.state != ALIVE or spec.deps or actor.order or spec.num_returns != 1:
            return False
        if spec.args[2] or spec.group or spec.retry_exceptions or actor.max_pending >= 0:
            return False
        record = actor.record
        assert record is not None
        self.head.tasks.live[spec.task_id] = spec
        actor.calls += 1
        spec.executor = record
        actor.inflight[spec.task_id] = spec
        record.outstanding = outstanding = len(actor.inflight)
        sender = record.process.sender
        sender.post(("call", spec.task_id, spec.function_id, spec.name, spec.args, (), 1, spec.options or {}))
        if outstanding > DIRECT_SENDS or not sender.flush():
            sender.flush_soon(self.head.reactor)
        return True

    def _unknown(self, spec: TaskSpec) -> Payload:
        text = "The actor does not exist in this session: it has ended, or the handle comes from an earlier session."
        return serialization.error_payload(exceptions.ActorDiedError(text, spec.actor_id.hex()))

    def on_ready(self, spec: TaskSpec) -> None:
        """All dependencies of a call are there."""
        actor = self.actors.get(spec.actor_id)
        if actor is None or actor.state == DEAD:
            payload = actor.death if actor is not None else None
            self.head.tasks.fail(spec, payload or self._unknown(spec))
            return
        if not spec.queued:
            self._send(actor, spec)
            return
        actor.ready.add(spec.task_id)
        self._pump(actor, spec.caller, actor.order[spec.caller])

    def _pump(self, actor: ActorState, caller: Any, queue: deque[TaskSpec]) -> None:
        """Send the calls of one caller whose turn has come."""
        while queue and (queue[0].task_id in actor.ready or queue[0].task_id not in self.head.tasks.live):
            spec = queue.popleft()
            spec.queued = False
            if spec.task_id in actor.ready:
                actor.ready.discard(spec.task_id)
                self._send(actor, spec)
        if not queue:
            actor.order.pop(caller, None)

    def _send(self, actor: ActorState, spec: TaskSpec) -> None:
        if actor.state != ALIVE:
            actor.backlog.append(spec)
            return
        record = actor.record
        assert record is not None
        spec.executor = record
        actor.inflight[spec.task_id] = spec
        record.outstanding = len(actor.inflight)
        pool = self.head.pool
        extra: dict[str, Any] = spec.options or {}
        if spec.retry_exceptions and spec.attempt != spec.max_retries:
            extra = {**extra, "retry_exceptions": spec.retry_exceptions}
        if spec.group:
            extra = {**extra, "group": spec.group}
        deps = self.head.tasks.delivered_deps(record, spec) if spec.deps else ()
        if spec.args[2]:
            pool.deliver(record, spec.args)
        pool.send(record, ("call", spec.task_id, spec.function_id, spec.name, spec.args, deps, spec.num_returns, extra))

    def forget_call(self, spec: TaskSpec) -> None:
        """A call was cancelled before it was sent."""
        actor = self.actors.get(spec.actor_id)
        if actor is None:
            return
        try:
            actor.backlog.remove(spec)
        except ValueError:
            pass

    def on_call_finished(self, spec: TaskSpec) -> None:
        """A call has its result, whichever."""
        actor = self.actors.get(spec.actor_id)
        if actor is None:
            return
        actor.inflight.pop(spec.task_id, None)
        if actor.record is not None:
            actor.record.outstanding = len(actor.inflight)
        actor.calls -= 1
        queue = actor.order.get(spec.caller) if actor.order else None
        if queue and queue[0] is spec:
            self._pump(actor, spec.caller, queue)
        if actor.handles_gone and not actor.calls:
            self._end_if_unused(actor)

    # ---- ends --------------------------------------------------------------------------------------------------------

    def on_handles_gone(self, actor_id: bytes) -> None:
        """The last handle anywhere is gone."""
        actor = self.actors.get(actor_id)
        if actor is None:
            return
        if actor.state == DEAD:
            del self.actors[actor_id]
            return
        actor.handles_gone = True
        self._end_if_unused(actor)

    def _end_if_unused(self, actor: ActorState) -> None:
        if actor.handles_gone and not actor.calls and actor.state == ALIVE and actor.record is not None:
            record = actor.record
            self._die(actor, self._death(actor, "all handles to it are gone"), kill=False)
            self.head.pool.end(record)

    def _death(self, actor: ActorState, reason: str) -> Payload:
        text = f"The actor {actor.class_name} is gone: {reason}"
        if not text.endswith((".", "\n")) and "\n" not in text:
            text += "."
        return serialization.error_payload(exceptions.ActorDiedError(text, actor.actor_id.hex()))

    def on_exiting(self, record: ExecutorRecord, reason: str) -> None:
        """The process leaves by itself."""
        actor = record.actor
        if actor is not None and actor.state != DEAD:
            self._die(actor, self._death(actor, reason), kill=False)

    def _die(self, actor: ActorState, payload: Payload, *, kill: bool = True) -> None:
        if actor.state == DEAD:
            return
        actor.state = DEAD
        actor.death = payload
        if actor.name:
            self.names.pop((actor.namespace, actor.name), None)
        tasks = self.head.tasks
        tasks.live.pop(actor.actor_id, None)
        tasks._release_inputs(actor.spec)
        record, actor.record = actor.record, None
        waiting = [call for queue in actor.order.values() for call in queue]
        calls = [*actor.inflight.values(), *actor.backlog, *waiting]
        actor.inflight, actor.order = {}, {}
        actor.backlog.clear()
        for call in calls:
            tasks.fail(call, payload)
        if record is not None and kill:
            self.head.pool.kill(record, "the actor has ended")
        if actor.handles_gone:
            self.actors.pop(actor.actor_id, None)

    def kill(self, actor_id: bytes, no_restart: bool) -> None:
        """End an actor at once."""
        actor = self.actors.get(actor_id)
        if actor is None or actor.state == DEAD:
            return
        if not no_restart and actor.record is not None:
            actor.state = RESTARTING  # what is called from now on must not reach the process that is about to end
            self.head.pool.kill(actor.record, "kill(no_restart=False) was called")
            return
        self._die(actor, self._death(actor, "kill() was called on it"))

    def on_ended(self, record: ExecutorRecord, death: Death) -> None:
        """The process of an actor has ended."""
        actor: ActorState = record.actor
        record.actor = None
        self.head.release_allocation(record)
        if actor.record is not record:
            self.head.tasks.dispatch()
            return
        actor.record = None
        limit = (actor.spec.options or {}).get("max_restarts", 0)
        what = f"The executor process of actor {actor.class_name} died: {death.describe()}"
        if limit >= 0 and actor.restarts >= limit:
            if limit:
                what += f"\nIts max_restarts={limit} are used up."
            self._die(actor, serialization.error_payload(exceptions.ActorDiedError(what, actor.actor_id.hex())))
        else:
            self._restart(actor, what)
        self.head.tasks.dispatch()

    def _restart(self, actor: ActorState, what: str) -> None:
        actor.restarts += 1
        actor.state = RESTARTING
        inflight, actor.inflight = list(actor.inflight.values()), {}
        again = []
        lost = serialization.error_payload(
            exceptions.ActorUnavailableError(
                f"{what}\nThe actor is being restarted; this call was lost and may have run. Set max_task_retries to "
                "have such calls repeated.",
                actor.actor_id.hex(),
            )
        )
        for call in inflight:
            call.executor = None
            if not call.cancelled and (call.max_retries < 0 or call.attempt < call.max_retries):
                call.attempt += 1
                again.append(call)
            else:
                self.head.tasks.fail(call, lost)
        actor.backlog.extendleft(reversed(again))
        self.head.tasks.enqueue(actor.spec)

    # ---- looking up --------------------------------------------------------------------------------------------------

    def look_up(self, name: str, namespace: str) -> tuple[bytes, Any]:
        """Return the id and the handle's description of a named actor, with one reference counted for the caller."""
        actor_id = self.names.get((namespace, name))
        if actor_id is None or not self.head.objects.hold(actor_id):
            raise exceptions.ActorHandleNotFoundError(
                f"There is no living actor named {name!r} in namespace {namespace!r}. Names are per namespace; "
                f"known here: {sorted(n for ns, n in self.names if ns == namespace) or 'none'}."
            )
        return actor_id, (self.actors[actor_id].spec.options or {})["handle"]

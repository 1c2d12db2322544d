"""Executors of a session: started on demand, reused for tasks, retired when idle."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit.core.channel import Message
from mltoolkit.core.ids import new_id
from mltoolkit.core.ledger import Allocation
from mltoolkit.core.node import ExecutorProcess, Node
from mltoolkit.core.objects import ObjectTable
from mltoolkit.core.options import Demand
from mltoolkit.core.reactor import Reactor
from mltoolkit.core.serialization import Payload
from mltoolkit.core.submission import Submission

IDLE_S = 30.0  # how long an executor without work is kept
LEASED_IDLE_S = 1.0  # the same where other users of the cluster wait for what it holds
DIRECT_SENDS = 2  # messages under way to an executor up to which the sender writes itself, for latency


class ExecutorRecord:
    """An executor as the head sees it."""

    __slots__ = (
        "actor",
        "allocation",
        "blocked",
        "contexts",
        "functions",
        "held",
        "idle_since",
        "key",
        "node",
        "outstanding",
        "process",
        "retiring",
        "shape",
        "spec",
    )

    def __init__(self, key: bytes, node: Any, process: ExecutorProcess, shape: tuple[Any, ...]) -> None:
        self.key = key
        self.node = node
        self.process = process
        self.shape = shape
        self.functions: set[bytes] = set()
        self.contexts: set[bytes] = set()
        self.held: dict[bytes, int] = {}
        self.spec: Any = None
        self.actor: Any = None
        self.allocation: Allocation | None = None
        self.blocked = 0
        self.outstanding = 0
        self.retiring = False
        self.idle_since = 0.0


class ExecutorPool:
    """Find, start and retire executors; the caller holds the head's lock.

    Parameters
    ----------
    nodes : mapping of str to Node
        Where they can run.
    reactor : Reactor
        Writes what does not fit at once.
    objects : ObjectTable
        Counts the references that executors hold.
    boot : dict
        What every executor is told at its start.
    """

    def __init__(
        self, nodes: Mapping[str, Node], reactor: Reactor, objects: ObjectTable, boot: Callable[[str], dict[str, Any]]
    ) -> None:
        self.nodes = nodes
        self.reactor = reactor
        self.objects = objects
        self.boot = boot
        self.records: dict[bytes, ExecutorRecord] = {}
        self.functions: dict[bytes, Payload] = {}
        self.contexts: dict[bytes, Submission] = {}
        self._idle: dict[tuple[Any, ...], deque[ExecutorRecord]] = {}
        self._started = 0
        self.epoch = 0
        self.session_seed = 0
        self.by_demand = False  # executors hold leases of the cluster's resources while they live
        self._retire_timer = False

    # ---- getting one -------------------------------------------------------------------------------------------------

    def _shape(self, demand: Demand, allocation: Allocation) -> tuple[Any, ...]:
        threads = max(1, int(demand.amount("CPU")))
        gpus = tuple(allocation.gpus) if allocation.gpus else None
        leased = demand.held if self.by_demand else ()
        return (allocation.node_id, demand.runtime_env, gpus, threads, leased, self.epoch)

    def acquire(self, demand: Demand, allocation: Allocation, *, fresh: bool) -> ExecutorRecord:
        """Return an executor that fits; `fresh` for actors, whose process is theirs alone."""
        shape = self._shape(demand, allocation)
        idle = self._idle.get(shape)
        while idle and not fresh:
            record = idle.pop()
            if not record.retiring and not record.process.ended:
                record.allocation = allocation
                return record
        record = self._start(shape, demand)
        record.allocation = allocation
        return record

    def _start(self, shape: tuple[Any, ...], demand: Demand) -> ExecutorRecord:
        node_id, runtime_env, gpus, threads, leased, _ = shape
        environment = dict(runtime_env[0]) if runtime_env else {}
        inherited = {"env_vars": dict(environment), "working_dir": runtime_env[1]} if runtime_env else {}
        gpu_total = self.boot(node_id).get("gpu_total", 0)
        if gpus is not None or gpu_total:
            environment.setdefault("CUDA_VISIBLE_DEVICES", ",".join(str(gpu) for gpu in gpus or ()))
        self._started += 1
        boot = {
            **self.boot(node_id),
            "seed": (self.session_seed + self._started * 0x9E3779B97F4A7C15) % 2**63,
            "threads": threads,
            "environment": environment,
            "working_dir": runtime_env[1] if runtime_env else None,
            "runtime_env": {key: value for key, value in inherited.items() if value},
            "gpus": list(gpus or ()),
        }
        if self.by_demand:
            boot["held"] = leased
        key = new_id()
        node = self.nodes[node_id]
        record = ExecutorRecord(key, node, node.start_executor(key, boot), shape)
        self.records[key] = record
        return record

    def put_back(self, record: ExecutorRecord) -> None:
        """Keep an executor for the next task, or end it if it must not be reused."""
        record.spec = None
        record.allocation = None
        record.blocked = 0
        if record.retiring or record.shape[-1] != self.epoch:
            self.end(record)
            return
        record.idle_since = time.monotonic()
        self._idle.setdefault(record.shape, deque()).append(record)
        if not self._retire_timer:
            self._retire_timer = True
            self.reactor.call_later(self._idle_s / 2, self.on_retire_timer)

    on_retire_timer: Callable[[], None] = staticmethod(lambda: None)

    @property
    def _idle_s(self) -> float:
        return LEASED_IDLE_S if self.by_demand else IDLE_S

    def retire_idle(self, keep_s: float | None = None) -> bool:
        """End executors that have had no work for `keep_s` seconds; True if idle ones remain."""
        self._retire_timer = False
        limit = time.monotonic() - (self._idle_s if keep_s is None else keep_s)
        remain = False
        for idle in self._idle.values():
            while idle and idle[0].idle_since <= limit:
                self.end(idle.popleft())
            remain = remain or bool(idle)
        if remain:
            self._retire_timer = True
            self.reactor.call_later(self._idle_s / 2, self.on_retire_timer)
        return remain

    def retire_idle_on(self, node: Any) -> None:
        """End a node's idle executors, so that what they hold can go to others."""
        for idle in self._idle.values():
            for record in [record for record in idle if record.node is node]:
                idle.remove(record)
                self.end(record)

    def new_epoch(self) -> None:
        """Code has changed on disk: reuse no executor that may have the old one loaded."""
        self.epoch += 1
        self.retire_idle(0.0)

    def end(self, record: ExecutorRecord) -> None:
        """Let an idle executor leave by itself."""
        record.retiring = True
        self.send(record, ("exit",))

    def kill(self, record: ExecutorRecord, reason: str) -> None:
        """Kill an executor; the listener hears of its end."""
        record.retiring = True
        record.node.kill(record.process, reason)

    # ---- talking to one ----------------------------------------------------------------------------------------------

    def send(self, record: ExecutorRecord, message: Message) -> None:
        """Send a message: at once if little is under way, else together with others."""
        sender = record.process.sender
        sender.post(message)
        if record.outstanding > DIRECT_SENDS or not sender.flush():
            sender.flush_soon(self.reactor)

    def provide(self, record: ExecutorRecord, function_id: bytes, context_key: bytes) -> None:
        """Send the function and the submission context that the executor does not have yet."""
        if function_id not in record.functions:
            record.functions.add(function_id)
            payload = self.functions[function_id]
            self.deliver(record, payload)
            record.process.sender.post(("function", function_id, payload))
        if context_key and context_key not in record.contexts:
            record.contexts.add(context_key)
            record.process.sender.post(("context", self.contexts[context_key]))

    def deliver(self, record: ExecutorRecord, payload: Payload) -> None:
        """Count for the executor the references inside a payload that is about to be sent."""
        for object_id in payload[2]:
            self.hold(record, object_id)

    def hold(self, record: ExecutorRecord, object_id: bytes, count: int = 1) -> bool:
        """Count references that live in an executor."""
        if not self.objects.hold(object_id, count):
            return False
        record.held[object_id] = record.held.get(object_id, 0) + count
        return True

    def release(self, record: ExecutorRecord, object_id: bytes, count: int) -> None:
        """Undo `hold`."""
        held = record.held.get(object_id, 0)
        count = min(count, held)
        if count <= 0:
            return
        if held == count:
            del record.held[object_id]
        else:
            record.held[object_id] = held - count
        self.objects.drop(object_id, count)

    def forget(self, record: ExecutorRecord) -> None:
        """Remove an executor that has ended, with the references it held."""
        self.records.pop(record.key, None)
        record.retiring = True
        idle = self._idle.get(record.shape)
        if idle is not None:
            try:
                idle.remove(record)
            except ValueError:
                pass
        held, record.held = record.held, {}
        for object_id, count in held.items():
            self.objects.drop(object_id, count)

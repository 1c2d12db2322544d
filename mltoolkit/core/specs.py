"""``TaskSpec``: one task, one actor to be created, or one method call, as it travels to the head."""

from __future__ import annotations

from typing import Any

from mltoolkit.core.options import Demand
from mltoolkit.core.serialization import Payload

TASK = 0
CREATE = 1
CALL = 2

_FIELDS = (
    "kind",
    "task_id",
    "function_id",
    "name",
    "args",
    "deps",
    "return_ids",
    "num_returns",
    "demand",
    "max_retries",
    "retry_exceptions",
    "context_key",
    "actor_id",
    "group",
    "options",
    "parent",
)


class TaskSpec:
    """What to run, with what, where, and what comes back.

    A class with slots and no validation: thousands of them are made every second.

    Parameters
    ----------
    kind : int
        ``TASK``, ``CREATE`` or ``CALL``.
    task_id : bytes
        Names the execution; the first returned object's id for tasks and calls, the actor's id for ``CREATE``.
    function_id : bytes or str
        Id of the exported function or class; the method's name for ``CALL``.
    name : str
        For messages and prefixes.
    args : Payload
        Pickled ``(args, kwargs)`` in which top-level references stand as `Dependency`.
    deps : tuple of bytes
        Ids of those references.
    return_ids : tuple of bytes
        Ids of the results.
    num_returns : int
        As the user said; ``STREAMING`` or ``DYNAMIC`` for generators.
    demand : Demand or None
        None for ``CALL``.
    max_retries : int
        For crashes, -1 without end.
    retry_exceptions : bool or tuple of types
        Which user exceptions are retried as well; a pickled tuple travels as bytes.
    context_key : bytes
        Names the `Submission`.
    actor_id : bytes
        Of the actor called or created.
    group : str or None
        Concurrency group of a call.
    options : dict or None
        Further options.
    parent : bytes
        Id of the task that submitted this one, for recursive cancellation; b"" for the driver.
    """

    __slots__ = (
        *_FIELDS,
        "attempt",
        "caller",
        "cancelled",
        "executor",
        "lineage_users",
        "queued",
        "waiting",
    )

    def __init__(
        self,
        kind: int,
        task_id: bytes,
        function_id: Any,
        name: str,
        args: Payload,
        deps: tuple[bytes, ...] = (),
        return_ids: tuple[bytes, ...] = (),
        num_returns: int = 1,
        demand: Demand | None = None,
        max_retries: int = 0,
        retry_exceptions: Any = False,
        context_key: bytes = b"",
        actor_id: bytes = b"",
        group: str | None = None,
        options: dict[str, Any] | None = None,
        parent: bytes = b"",
    ) -> None:
        self.kind = kind
        self.task_id = task_id
        self.function_id = function_id
        self.name = name
        self.args = args
        self.deps = deps
        self.return_ids = return_ids
        self.num_returns = num_returns
        self.demand = demand
        self.max_retries = max_retries
        self.retry_exceptions = retry_exceptions
        self.context_key = context_key
        self.actor_id = actor_id
        self.group = group
        self.options = options
        self.parent = parent
        # What the head keeps while it is under way.
        self.attempt = 0
        self.caller: Any = None
        self.cancelled = False
        self.executor: Any = None
        self.queued = False
        self.lineage_users = 0
        self.waiting = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return (TaskSpec, tuple(getattr(self, name) for name in _FIELDS))

    def __repr__(self) -> str:
        return f"TaskSpec({self.name}, {self.task_id.hex()})"


class Dependency:
    """Stands in pickled arguments for a top-level reference; replaced by the value before the call."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        return (Dependency, (self.index,))

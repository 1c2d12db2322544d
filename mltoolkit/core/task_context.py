"""What the code that runs now runs for: the task, its actor, its placement group."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TaskContext:
    """The task or method call under way.

    Parameters
    ----------
    task_id : bytes
        Id of the call; b"" in the driver.
    name : str
        Function or ``Class.method``.
    actor_id : bytes
        Id of the actor, b"" in a task.
    resources : dict of str to float
        What it holds.
    """

    task_id: bytes = b""
    name: str = ""
    actor_id: bytes = b""
    resources: dict[str, float] = field(default_factory=dict)
    placement_group: Any = None
    cancelled: bool = False


_current: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar("mltoolkit_task", default=None)
_process_default: list[TaskContext] = [TaskContext()]
_is_shared = False


def share_process(shared: bool) -> None:
    """Say whether the driver and its tasks share this process; threads that have no context are the driver's then."""
    global _is_shared
    _is_shared = shared


def enter(context: TaskContext) -> None:
    """Make `context` current for this thread or coroutine, and for threads without one of their own."""
    _current.set(context)
    if not _is_shared:
        _process_default[0] = context


def current() -> TaskContext:
    """Return the current context; that of the process's latest task in threads which user code started."""
    return _current.get() or _process_default[0]

"""Errors of mltoolkit, with Ray's class names.

::

    RayError
    ├── RayTaskError              an exception in user code; also an instance of the user's class
    ├── TaskCancelledError        the task was cancelled
    ├── WorkerCrashedError        the executor process of a task died
    ├── OutOfMemoryError          ... because the memory limit was reached
    ├── RayActorError
    │   ├── ActorDiedError        the actor is gone for good
    │   │   └── ActorPlacementGroupRemoved
    │   └── ActorUnavailableError the actor is restarting, this call was lost
    ├── ActorAlreadyExistsError   (also ValueError) the name is taken
    ├── ActorUnschedulableError   no node can ever hold the actor
    ├── TaskUnschedulableError    no node can ever run the task
    ├── TaskPlacementGroupRemoved the placement group went away under the task
    ├── GetTimeoutError           (also TimeoutError)
    ├── DeadlockError             (also RuntimeError) a cycle of blocked ``get`` calls
    ├── ObjectLostError           the only copy of an object is gone
    │   ├── ObjectFreedError
    │   ├── ObjectFetchTimedOutError
    │   ├── ObjectReconstructionFailedError
    │   ├── OwnerDiedError
    │   └── ReferenceCountingAssertionError
    ├── ObjectStoreFullError      neither shared memory nor disk has room
    │   └── OutOfDiskError
    ├── RaySystemError            a bug in mltoolkit itself
    ├── ActorHandleNotFoundError  (also ValueError) no living actor of that name
    ├── NodeDiedError             the Dask worker that ran the work is gone
    ├── RuntimeEnvSetupError      the runtime_env could not be applied
    ├── CrossLanguageError        (named for programs that catch it; never raised)
    ├── PendingCallsLimitExceeded ``max_pending_calls`` of an actor was reached
    └── AsyncioActorExit          ends an asyncio actor (internal)
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = [
    "ActorAlreadyExistsError",
    "ActorDiedError",
    "ActorHandleNotFoundError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AsyncioActorExit",
    "CrossLanguageError",
    "DeadlockError",
    "GetTimeoutError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectStoreFullError",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "RayActorError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReferenceCountingAssertionError",
    "RuntimeEnvSetupError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "WorkerCrashedError",
]


class RayError(Exception):
    """Base class of all errors of mltoolkit."""


class CrossLanguageError(RayError):
    """Named for programs that catch it; mltoolkit runs Python only and never raises it."""


class TaskCancelledError(RayError):
    """The task was cancelled before it could finish.

    Parameters
    ----------
    task_id : str, optional
        Hex id of the task.
    error_message : str, optional
        Why it was cancelled.
    """

    def __init__(self, task_id: str | None = None, error_message: str | None = None) -> None:
        super().__init__(task_id, error_message)
        self.task_id = task_id

    def __str__(self) -> str:
        which = f"Task {self.task_id}" if self.task_id else "This task or its dependency"
        reason = f": {self.args[1]}" if self.args[1] else ""
        return f"{which} was cancelled{reason}"


class RayTaskError(RayError):
    """An exception raised by user code in a task or an actor's method.

    What ``get`` raises is an instance of this class *and* of the class of the user's exception, where Python
    allows to derive from that class.

    Parameters
    ----------
    function_name : str
        Name of the function or ``Class.method`` that raised.
    traceback_str : str
        Traceback on the executor, as text.
    cause : BaseException or None
        The user's exception; None if it could not be pickled or rebuilt.
    pid : int, optional
        Process that ran the function.
    ip : str, optional
        Host that ran the function.
    """

    def __init__(
        self,
        function_name: str = "",
        traceback_str: str = "",
        cause: BaseException | None = None,
        pid: int | None = None,
        ip: str | None = None,
    ) -> None:
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.pid = pid
        self.ip = ip
        super().__init__(function_name, traceback_str, cause, pid, ip)

    def __str__(self) -> str:
        where = f"{self.function_name}() (pid={self.pid}, ip={self.ip})"
        return f"{where}\n{self.traceback_str.rstrip()}"

    def as_instanceof_cause(self) -> RayTaskError:
        """Return an error that is also an instance of the cause's class.

        Returns
        -------
        RayTaskError
            ``self`` where the class of the cause cannot be derived from.
        """
        cause = self.cause
        if cause is None or isinstance(cause, RayTaskError):
            return self
        kind: Any = type(cause)
        cls = _dual_class(kind)
        if cls is None:
            return self
        try:
            if isinstance(cause, BaseExceptionGroup):
                return cls._as_group(self)  # type: ignore[attr-defined]
            error: RayTaskError = cls()
            error._fill(self)  # type: ignore[attr-defined]
            return error
        except Exception:  # a class with a hostile __new__ or read-only attributes: the text still arrives
            return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_task_error, (self.function_name, self.traceback_str, self.cause, self.pid, self.ip))


def _rebuild_task_error(*args: Any) -> RayTaskError:
    return RayTaskError(*args).as_instanceof_cause()


@functools.lru_cache(maxsize=1024)
def _dual_class(cause_cls: Any) -> type[RayTaskError] | None:
    """Make the class that is both a RayTaskError and a `cause_cls`; None where Python forbids it."""
    if issubclass(RayTaskError, cause_cls):
        return RayTaskError

    def _fill(self: Any, source: RayTaskError) -> None:
        cause = source.cause
        for name, value in getattr(cause, "__dict__", {}).items():
            try:
                setattr(self, name, value)
            except Exception:  # read-only on this class: the cause itself still has it
                continue
        for name in ("function_name", "traceback_str", "cause", "pid", "ip"):
            object.__setattr__(self, name, getattr(source, name))
        try:
            BaseException.args.__set__(self, getattr(cause, "args", ()))  # type: ignore[attr-defined]
        except Exception:
            return

    def __str__(self: Any) -> str:
        return RayTaskError.__str__(self)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        """Built by ``as_instanceof_cause`` only; the user's own constructor must not run a second time."""

    def __getattr__(self: Any, name: str) -> Any:
        # Slots and C-level fields (OSError.errno, ...) live in the cause, not in its __dict__.
        if name.startswith("__") or name == "cause":
            raise AttributeError(name)
        return getattr(self.cause, name)

    namespace = {
        "_fill": _fill,
        "__str__": __str__,
        "__init__": __init__,
        "__getattr__": __getattr__,
        "__reduce__": RayTaskError.__reduce__,
        "__module__": RayTaskError.__module__,
        "__doc__": RayTaskError.__doc__,
    }
    if issubclass(cause_cls, BaseExceptionGroup):
        return _dual_group_class(cause_cls, namespace)
    plain_new: dict[str, Any] = {}
    bare_new = {"__new__": lambda cls, *args, **kwargs: _bare_new(cls, cause_cls)}
    for extra in (plain_new, bare_new):
        try:
            cls = type(f"RayTaskError({cause_cls.__name__})", (RayTaskError, cause_cls), {**namespace, **extra})
            cls.__qualname__ = cls.__name__
            cls()  # not cls.__new__: some builtins allow only the way through the type
            return cls
        except Exception:  # final classes, layouts that conflict, an __init_subclass__ or __new__ that refuses
            continue
    return None


def _bare_new(cls: type[Any], cause_cls: type[BaseException]) -> Any:
    """Allocate without the user's ``__new__``, by the nearest builtin exception's own."""
    for base in cause_cls.__mro__:
        if base.__module__ == "builtins" and base is not object:
            return base.__new__(cls)  # type: ignore[call-overload]
    return Exception.__new__(cls)


def _dual_group_class(cause_cls: type[BaseException], namespace: dict[str, Any]) -> type[RayTaskError] | None:
    """Like `_dual_class` for exception groups, whose members live in C fields that only ``__new__`` sets."""

    def as_group(self: RayTaskError) -> RayTaskError:
        cause: Any = self.cause
        base: Any = ExceptionGroup if isinstance(cause, ExceptionGroup) else BaseExceptionGroup
        error = base.__new__(cls, cause.message, list(cause.exceptions))
        error._fill(self)
        return error

    def derive(self: Any, excs: Any) -> Any:
        return self.cause.derive(excs)

    try:
        members = {k: v for k, v in namespace.items() if k != "__getattr__"}
        cls = type(
            f"RayTaskError({cause_cls.__name__})",
            (RayTaskError, cause_cls),
            {**members, "_as_group": as_group, "derive": derive, "__new__": BaseExceptionGroup.__new__},
        )
        cls.__qualname__ = cls.__name__
        return cls
    except TypeError:
        return None


class WorkerCrashedError(RayError):
    """The executor process died while it ran the task; the message says how."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "The executor process died while it ran this task."


class OutOfMemoryError(WorkerCrashedError):
    """The executor process was killed because memory ran out; the message gives the figures."""


class RayActorError(RayError):
    """The actor died, or cannot be reached.

    Parameters
    ----------
    cause : str or BaseException, optional
        What happened.
    actor_id : str, optional
        Hex id of the actor.
    """

    def __init__(self, cause: Any = None, actor_id: str | None = None) -> None:
        super().__init__(cause, actor_id)
        self.cause = cause
        self.actor_id = actor_id
        if isinstance(cause, BaseException):
            self.__cause__ = cause

    def __str__(self) -> str:
        if self.cause is None:
            return "The actor died unexpectedly before it finished this call."
        if isinstance(self.cause, BaseException):
            return f"The actor died because its constructor raised an exception: {self.cause}"
        return str(self.cause)


class ActorDiedError(RayActorError):
    """The actor is gone for good: it crashed without restarts left, was killed, ended, or never came up."""


class ActorPlacementGroupRemoved(ActorDiedError):
    """The placement group that held the actor was removed."""


class ActorUnavailableError(RayActorError):
    """The actor is being restarted; this call was lost with the old process and may or may not have run."""


class ActorAlreadyExistsError(ValueError, RayError):
    """The name is taken by a living actor of the same namespace."""


class ActorUnschedulableError(RayError):
    """No node can ever offer what the actor asks for."""


class TaskUnschedulableError(RayError):
    """No node can ever offer what the task asks for."""


class TaskPlacementGroupRemoved(RayError):
    """The placement group of the task was removed."""


class GetTimeoutError(RayError, TimeoutError):
    """``get`` waited for as long as it was allowed to; the work goes on."""


class DeadlockError(RayError, RuntimeError):
    """Blocked ``get`` calls wait for each other in a cycle."""


class ObjectLostError(RayError):
    """The object cannot be had any more.

    Parameters
    ----------
    object_ref_hex : str
        Hex id of the object.
    reason : str, optional
        Why it is gone.
    """

    def __init__(self, object_ref_hex: str = "", reason: str = "") -> None:
        super().__init__(object_ref_hex, reason)
        self.object_ref_hex = object_ref_hex
        self.reason = reason

    def __str__(self) -> str:
        return f"Object {self.object_ref_hex} cannot be had any more. {self.reason}".rstrip()


class ObjectFreedError(ObjectLostError):
    """The object was freed although a reference to it was kept outside of mltoolkit's sight."""


class OwnerDiedError(ObjectLostError):
    """The session that created the object has ended."""


class ObjectFetchTimedOutError(ObjectLostError):
    """Copying the object from another host took too long."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The object was lost with its node and cannot be computed again."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object was deleted while references to it existed; this is a bug in mltoolkit."""


class ObjectStoreFullError(RayError):
    """Neither shared memory nor the session's directory has room for the object."""


class OutOfDiskError(ObjectStoreFullError):
    """The session's directory is full."""


class RaySystemError(RayError):
    """mltoolkit itself failed; this is a bug in it."""


class ActorHandleNotFoundError(ValueError, RayError):
    """There is no living actor of that name."""


class NodeDiedError(RayError):
    """The node that ran the work is gone."""


class RuntimeEnvSetupError(RayError):
    """The ``runtime_env`` could not be applied."""

    def __init__(self, error_message: str = "") -> None:
        super().__init__(error_message)
        self.error_message = error_message


class PendingCallsLimitExceeded(RayError):
    """The actor has ``max_pending_calls`` calls waiting already."""


class AsyncioActorExit(RayError):
    """Ends an asyncio actor from inside; raised by ``exit_actor``."""

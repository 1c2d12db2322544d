"""The functions of the public facade that work with a running session; see ``lifecycle`` for its beginning and end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, overload

from mltoolkit.core.actor import ActorClass, ActorHandle
from mltoolkit.core.backend import require_backend
from mltoolkit.core.object_ref import ObjectRef, ObjectRefGenerator
from mltoolkit.core.remote_function import RemoteFunction

logger = logging.getLogger("mltoolkit")

# ---- remote -----------------------------------------------------------------------------------------------------------


def remote(*args: Any, **given: Any) -> Any:
    """Turn a function into a task, or a class into an actor.

    Use it as ``@remote``, as ``@remote(num_cpus=2)``, or as a call, ``remote(function)``.

    Parameters
    ----------
    num_cpus : float, optional
        CPUs; a task holds 1 by default, an actor needs 1 to be placed and holds none.
    num_gpus : float, optional
        GPUs; sets ``CUDA_VISIBLE_DEVICES``.
    memory : float, optional
        Bytes of memory to reserve.
    resources : dict of str to float, optional
        Custom resources.
    num_returns : int or {'streaming', 'dynamic'}, optional
        Tasks: how many references a call returns. Generator functions stream by default.
    max_retries : int, default=3
        Tasks: how often to repeat after a crash of the process; -1 without end.
    retry_exceptions : bool or list of exception types, default=False
        Tasks: which exceptions of the function to retry as well.
    max_calls : int, default=0
        Tasks: after how many calls of this function its process ends; 0 never.
    name : str, optional
        Shown in messages; for an actor the name that ``get_actor`` finds.
    runtime_env : dict, optional
        ``env_vars`` and ``working_dir``.
    scheduling_strategy : str or strategy object, optional
        ``"DEFAULT"``, ``"SPREAD"``, a node affinity or a placement group strategy.
    max_restarts : int, default=0
        Actors: how often to start a new process after a crash; -1 without end.
    max_task_retries : int, default=0
        Actors: how often to repeat calls that were lost with a process.
    max_concurrency : int, optional
        Actors: how many calls run at once, on threads, or as coroutines (1000 by default) for asyncio actors.
    max_pending_calls : int, default=-1
        Actors: how many calls may wait before ``.remote()`` raises.
    concurrency_groups : dict of str to int, optional
        Actors: named groups of methods with their own concurrency.
    namespace, lifetime, get_if_exists
        Actors: namespace of the name; ``"detached"`` outlives its handles (embedded sessions only); return the living actor of
        that name.

    Returns
    -------
    RemoteFunction or ActorClass
        Or a decorator that returns one.

    Examples
    --------
    >>> import mltoolkit
    >>> @mltoolkit.remote
    ... def double(x):
    ...     return 2 * x
    >>> mltoolkit.get(double.remote(21))
    42
    """
    if len(args) == 1 and not given and callable(args[0]):
        return _make_remote(args[0], {})
    if args:
        raise TypeError(
            "`remote` takes keyword options only: @remote, @remote(num_cpus=2), or remote(function). It got "
            f"{', '.join(map(repr, args))}."
        )
    if not given:
        raise TypeError("Write `@remote` without parentheses, or with options such as `@remote(num_cpus=2)`.")
    return lambda target: _make_remote(target, given)


def _make_remote(target: Any, given: Mapping[str, Any]) -> RemoteFunction | ActorClass:
    if isinstance(target, (RemoteFunction, ActorClass)):
        raise TypeError(f"{target._name} is remote already.")
    if isinstance(target, type):
        return ActorClass(target, given)
    if callable(target):
        return RemoteFunction(target, given)
    raise TypeError(f"`remote` takes a function or a class, got {target!r}.")


# ---- objects ----------------------------------------------------------------------------------------------------------


def put(value: Any, *, _owner: Any = None) -> ObjectRef:
    """Store a value and return a reference to it.

    Parameters
    ----------
    value : object
        Anything that can be pickled. Large arrays go into shared memory once. A Dask collection is computed on the session's
        cluster.

    Returns
    -------
    ObjectRef

    Raises
    ------
    TypeError
        If it is an `ObjectRef` already, or cannot be pickled.
    """
    if isinstance(value, (ObjectRef, ObjectRefGenerator)):
        raise TypeError("`put` of an ObjectRef is not allowed, since it is a reference already. Pass it on as it is.")
    if _owner is not None:
        raise NotImplementedError("put() does not offer `_owner`; every object belongs to the session.")
    if _is_dask(value):
        from mltoolkit.core import dask_interop

        return dask_interop.put_collection(value)
    return require_backend().put(value)


@overload
def get(object_refs: ObjectRef, *, timeout: float | None = None) -> Any: ...
@overload
def get(object_refs: Sequence[Any], *, timeout: float | None = None) -> list[Any]: ...


def get(object_refs: Any, *, timeout: float | None = None, copy: bool = False) -> Any:
    """Wait for values.

    Parameters
    ----------
    object_refs : ObjectRef or list of ObjectRef
        What to wait for. Dask futures and collections are accepted too.
    timeout : float, optional
        Seconds to wait at most; 0 polls.
    copy : bool, default=False
        Return private, writable copies instead of read-only views of shared memory.

    Returns
    -------
    object or list of object

    Raises
    ------
    GetTimeoutError
        When `timeout` passes; the work goes on.
    RayTaskError
        Whatever a task raised, also an instance of that exception's class. A list raises as soon as one element has failed.
    """
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout < 0):
        raise ValueError(f"`timeout` must be a number of seconds >= 0 or None, got {timeout!r}.")
    backend = require_backend()
    if isinstance(object_refs, ObjectRef):
        value = backend.get((object_refs,), timeout)[0]
        return _writable(value) if copy else value
    if isinstance(object_refs, ObjectRefGenerator):
        raise TypeError("`get` of an ObjectRefGenerator is not allowed. Iterate it: [get(ref) for ref in generator].")
    if _is_dask(object_refs):
        from mltoolkit.core import dask_interop

        return dask_interop.get_dask(object_refs, timeout)
    if not isinstance(object_refs, (list, tuple)):
        raise TypeError(f"`get` takes an ObjectRef or a list of them, got {type(object_refs).__name__}.")
    for item in object_refs:
        if not isinstance(item, ObjectRef):
            if _is_dask(item):
                from mltoolkit.core import dask_interop

                return [dask_interop.get_any(one, timeout) for one in object_refs]
            raise ValueError(
                f"`get` takes an ObjectRef or a list of them; the list holds {item!r} ({type(item).__name__})."
            )
    if not object_refs:
        return []
    values = backend.get(object_refs, timeout)
    return [_writable(value) for value in values] if copy else values


def _writable(value: Any) -> Any:
    import copy

    return copy.deepcopy(value)


def _is_dask(value: Any) -> bool:
    if type(value).__module__ == "builtins":
        return False
    return hasattr(value, "__dask_graph__") or (
        type(value).__module__.startswith("distributed") and hasattr(value, "key")
    )


def wait(
    object_refs: Sequence[Any],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]:
    """Wait until some references are ready.

    Parameters
    ----------
    object_refs : list of ObjectRef
        Different references. A streaming generator counts as ready when its next item is.
    num_returns : int, default=1
        How many to wait for.
    timeout : float, optional
        Seconds to wait at most; 0 polls.
    fetch_local : bool, default=True
        Kept for compatibility: values are fetched when `get` needs them.

    Returns
    -------
    ready, not_ready : list of ObjectRef
        Both in the order of the input; `ready` has at most `num_returns`.

    Raises
    ------
    TypeError
        For a bare reference or foreign items.
    ValueError
        For repeats, and `num_returns` below 1 or above the number of references.
    """
    if isinstance(object_refs, (ObjectRef, ObjectRefGenerator)):
        raise TypeError("`wait` takes a list of ObjectRef, got a single one; write wait([ref]).")
    if not isinstance(object_refs, (list, tuple)):
        raise TypeError(f"`wait` takes a list of ObjectRef, got {type(object_refs).__name__}.")
    for item in object_refs:
        if not isinstance(item, (ObjectRef, ObjectRefGenerator)):
            raise TypeError(f"`wait` takes a list of ObjectRef; the list holds {item!r} ({type(item).__name__}).")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout < 0):
        raise ValueError(f"`timeout` must be a number of seconds >= 0 or None, got {timeout!r}.")
    backend = require_backend()
    refs = list(object_refs)
    if not refs:
        return [], []
    if len(set(refs)) != len(refs):
        raise ValueError("`wait` takes different references; the list holds one of them twice.")
    if isinstance(num_returns, bool) or not isinstance(num_returns, int) or not 1 <= num_returns <= len(refs):
        raise ValueError(
            f"`num_returns` must be an integer from 1 to the number of references, {len(refs)}, got {num_returns!r}."
        )
    if any(isinstance(item, ObjectRefGenerator) for item in refs):
        is_ready = _wait_with_generators(refs, num_returns, timeout)
    else:
        done = backend.wait(refs, num_returns, timeout)
        is_ready = [ref._id in done for ref in refs]
    ready: list[Any] = []
    not_ready: list[Any] = []
    for item, item_ready in zip(refs, is_ready, strict=True):
        if item_ready and len(ready) < num_returns:
            ready.append(item)
        else:
            not_ready.append(item)
    return ready, not_ready


def _wait_with_generators(items: list[Any], num_returns: int, timeout: float | None) -> list[bool]:
    """Wait for references and for the next items of generators; both become futures."""
    import concurrent.futures

    backend = require_backend()
    futures: list[concurrent.futures.Future[Any]] = []
    done = threading.Semaphore(0)
    for item in items:
        if isinstance(item, ObjectRefGenerator):
            future = backend.stream_peek(item._ref, item._index)
        else:
            future = backend.future(item)
        future.add_done_callback(lambda _: done.release())
        futures.append(future)
    from mltoolkit.core.waiting import Deadline

    deadline = Deadline(timeout)
    for _ in range(num_returns):
        if not done.acquire(timeout=deadline.left()):
            break
    return [future.done() for future in futures]


def cancel(ray_waitable: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel the task that a reference comes from.

    Pending work never runs. Running work gets ``KeyboardInterrupt``; asyncio methods get ``asyncio.CancelledError``. Finished work is
    left alone. ``get`` of the reference raises `TaskCancelledError`.

    Parameters
    ----------
    ray_waitable : ObjectRef or ObjectRefGenerator
        A result of the task.
    force : bool, default=False
        Kill the process; not for actor methods.
    recursive : bool, default=True
        Cancel the tasks that it submitted as well.

    Raises
    ------
    TypeError
        If it is no reference.
    ValueError
        With `force` for an actor method.
    """
    ref = ray_waitable._ref if isinstance(ray_waitable, ObjectRefGenerator) else ray_waitable
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"`cancel` takes an ObjectRef, got {type(ref).__name__}.")
    require_backend().cancel(ref._id, force, recursive)


# ---- actors -----------------------------------------------------------------------------------------------------------


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once; its calls in flight fail.

    Parameters
    ----------
    actor : ActorHandle
        Which.
    no_restart : bool, default=True
        False lets it restart if ``max_restarts`` allows.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(
            f"`kill` takes an actor handle, got {type(actor).__name__}. To end a task, use `cancel(ref, force=True)`."
        )
    require_backend().kill_actor(actor._ref._id, no_restart)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Return a handle of a named actor.

    Parameters
    ----------
    name : str
        As given to ``.options(name=...)``.
    namespace : str, optional
        Default: that of this job.

    Raises
    ------
    ValueError
        If there is no living actor of that name.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"`name` must be a non-empty string, got {name!r}.")
    if namespace is not None and (not isinstance(namespace, str) or not namespace):
        raise ValueError(f"`namespace` must be a non-empty string or None, got {namespace!r}.")
    backend = require_backend()
    actor_id, info = backend.query("get_actor", name, namespace or backend.namespace)
    return ActorHandle(ObjectRef(actor_id, backend), info)


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Return the names of living named actors.

    Parameters
    ----------
    all_namespaces : bool, default=False
        True returns ``{"namespace": ..., "name": ...}`` dicts of all namespaces.
    """
    backend = require_backend()
    names = backend.query("named_actors")
    if all_namespaces:
        return [{"namespace": namespace, "name": name} for namespace, name in names]
    return [name for namespace, name in names if namespace == backend.namespace]


# ---- cluster ----------------------------------------------------------------------------------------------------------


def nodes() -> list[dict[str, Any]]:
    """Return the nodes: id, address, host name, resources."""
    return require_backend().query("nodes")


def cluster_resources() -> dict[str, float]:
    """Return the resources of all nodes together."""
    return require_backend().query("cluster_resources")


def available_resources() -> dict[str, float]:
    """Return the resources that are free now."""
    return require_backend().query("available_resources")


def get_gpu_ids() -> list[int] | list[str]:
    """Return the ids of the GPUs that the running task or actor holds."""
    executor = getattr(require_backend(), "executor", None)
    return list(executor.boot.get("gpus", [])) if executor is not None else []

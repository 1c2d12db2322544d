"""References and Dask: futures and collections, in both directions."""

from __future__ import annotations

from typing import Any

from mltoolkit.core import lifecycle, serialization
from mltoolkit.core.backend import require_backend
from mltoolkit.core.ids import new_id
from mltoolkit.core.object_ref import ObjectRef
from mltoolkit.core.waiting import Deadline
from mltoolkit.exceptions import GetTimeoutError


def _is_future(value: Any) -> bool:
    return type(value).__module__.startswith("distributed") and hasattr(value, "add_done_callback")


def get_dask(value: Any, timeout: float | None) -> Any:
    """Compute a Dask collection, or wait for a Dask future.

    Parameters
    ----------
    value : dask collection or distributed.Future
        What to compute on the session's cluster.
    timeout : float or None
        Seconds to wait at most.

    Raises
    ------
    GetTimeoutError
        When the time passes; the computation of a future goes on, that of a collection is dropped.
    """
    future = value if _is_future(value) else lifecycle.dask_client().compute(value)
    try:
        return future.result(timeout=timeout)
    except TimeoutError as error:
        raise GetTimeoutError(f"The Dask computation was not ready within {timeout:g} s.") from error


def get_any(value: Any, timeout: float | None) -> Any:
    """Wait for a reference, a Dask future or a Dask collection."""
    if isinstance(value, ObjectRef):
        return require_backend().get((value,), Deadline(timeout).left())[0]
    return get_dask(value, timeout)


def put_collection(value: Any) -> ObjectRef:
    """Compute a Dask collection in the background and return a reference to its value."""
    if _is_future(value):
        return from_dask(value)
    return from_dask(lifecycle.dask_client().compute(value))


def from_dask(future: Any) -> ObjectRef:
    """Return a reference to the value of a Dask future, ready when the future is.

    A value on the session's own cluster stays where it is: the worker that holds it puts it into the memory that it shares
    with tasks and actors there, and only the driver's bookkeeping learns of it. Any other value comes by the driver.

    Parameters
    ----------
    future : distributed.Future
        Of any client; it is kept until the value is stored.

    Raises
    ------
    TypeError
        If it is no Dask future.
    RuntimeError
        Outside the driver, where no Dask client lives.
    """
    if not _is_future(future):
        raise TypeError(f"`from_dask` takes a distributed.Future, got {type(future).__name__}.")
    session = lifecycle.current_session()
    if session is None:
        require_backend()
        session = lifecycle.current_session()
    if session is None:
        raise RuntimeError("Dask futures live in the driver; pass their values, or a reference made there.")
    head = session.head
    object_id = new_id()
    with head.lock:
        head.objects.create(object_id, 2)

    def settle(payload: Any) -> None:
        with head.lock:
            if not head.closed:
                head.objects.resolve(object_id, payload)
                head.objects.drop(object_id)

    def gather(done: Any) -> None:
        # Runs on a thread of Dask's that may block: gathering the value is allowed here.
        try:
            payload = serialization.serialize(done.result(), head.store)
        except BaseException as error:
            payload = serialization.user_error_payload(error, str(done.key))
        settle(payload)

    def take_up(done: Any) -> None:
        try:
            payload = done.result()
        except Exception:
            # Either the computation failed, whose error it then is, or the worker is no node (yet).
            future.add_done_callback(gather)
        else:
            settle(payload)

    moved = session.hand_over(future) if head.is_attached else None
    if moved is not None:
        moved.add_done_callback(take_up)
    else:
        future.add_done_callback(gather)
    return ObjectRef(object_id, head)


def to_dask(ref: ObjectRef, *, timeout: float | None = None) -> Any:
    """Put the value of a reference on the session's Dask cluster.

    Parameters
    ----------
    ref : ObjectRef
        Waited for.
    timeout : float, optional
        Seconds to wait at most.

    Returns
    -------
    distributed.Future
        Of the session's client.
    """
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"`to_dask` takes an ObjectRef, got {type(ref).__name__}.")
    value = require_backend().get((ref,), timeout)[0]
    return lifecycle.dask_client().scatter(value, hash=False)

"""What the public API asks of a runtime, and which runtime this process has.

Three things implement it: the head in the driver, the executor's client of the head, and the inline runtime of ``local_mode``.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mltoolkit.core.object_ref import ObjectRef
    from mltoolkit.core.specs import TaskSpec
    from mltoolkit.core.store import Store


class Backend(Protocol):
    """The runtime's side of the public API."""

    store: Store
    namespace: str
    runtime_env: dict[str, Any]

    def adopt_ref(self, object_id: bytes) -> ObjectRef: ...
    def release_ref(self, object_id: bytes) -> None: ...
    def pin(self, object_id: bytes) -> None: ...
    def knows_function(self, function_id: bytes) -> bool: ...
    def export(self, function_id: bytes, payload: Any) -> None: ...
    def submit(self, spec: TaskSpec) -> list[ObjectRef]: ...
    def create_actor(self, spec: TaskSpec) -> bytes: ...
    def put(self, value: Any) -> ObjectRef: ...
    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]: ...
    def wait(self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None) -> set[bytes]: ...
    def future(self, ref: ObjectRef) -> concurrent.futures.Future[Any]: ...
    def stream_next(self, ref: ObjectRef, index: int, timeout: float | None) -> ObjectRef | None: ...
    def stream_next_future(self, ref: ObjectRef, index: int) -> concurrent.futures.Future[ObjectRef | None]: ...
    def stream_peek(self, ref: ObjectRef, index: int) -> concurrent.futures.Future[None]: ...
    def stream_ready(self, ref: ObjectRef, index: int) -> bool: ...
    def stream_exhausted(self, ref: ObjectRef, index: int) -> bool: ...
    def stream_closed(self, object_id: bytes) -> None: ...
    def cancel(self, object_id: bytes, force: bool, recursive: bool) -> None: ...
    def kill_actor(self, actor_id: bytes, no_restart: bool) -> None: ...
    def query(self, what: str, *args: Any) -> Any: ...


_backend: Backend | None = None
_backend_pid = 0


def current_backend() -> Backend | None:
    """Return this process's runtime, or None; a forked child has none of its parent's."""
    return _backend if _backend_pid == os.getpid() else None


def require_backend() -> Backend:
    """Return this process's runtime; starts an embedded one at first use, as Ray does."""
    backend = _backend
    if backend is not None and _backend_pid == os.getpid():
        return backend
    from mltoolkit.core import lifecycle

    lifecycle.init()
    assert _backend is not None
    return _backend


def set_backend(backend: Backend | None) -> None:
    """Make `backend` this process's runtime."""
    global _backend, _backend_pid
    _backend = backend
    _backend_pid = os.getpid()

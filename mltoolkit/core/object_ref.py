"""``ObjectRef``: a promise for a value, and generators of them."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any

from mltoolkit.core import serialization

if TYPE_CHECKING:
    from mltoolkit.core.backend import Backend


class ObjectRef:
    """A reference to a value that exists already or will be computed.

    References come from ``put`` and from ``.remote()`` calls, never from the constructor. They can be awaited, hashed, compared,
    pickled, passed to tasks and actors, and stored in objects; the value lives as long as any reference to it does.
    """

    __slots__ = ("__weakref__", "_backend", "_id")

    def __init__(self, object_id: bytes, backend: Backend) -> None:
        self._id = object_id
        self._backend = backend

    def binary(self) -> bytes:
        """Return the id as 16 bytes."""
        return self._id

    def hex(self) -> str:
        """Return the id as a hex string."""
        return self._id.hex()

    def is_nil(self) -> bool:
        """Return False: a reference always names an object."""
        return False

    def task_id(self) -> str:
        """Return the hex id of the task whose first result this is."""
        return self._id.hex()

    def future(self) -> concurrent.futures.Future[Any]:
        """Return a ``concurrent.futures.Future`` that gets the value or the error.

        Its callbacks run on a thread of the runtime's own; they may call the API.
        """
        return self._backend.future(self)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.as_future().__await__()

    def as_future(self) -> asyncio.Future[Any]:
        """Return an asyncio future of the running loop."""
        return asyncio.wrap_future(self._backend.future(self), loop=asyncio.get_running_loop())

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and self._id == other._id

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        if not serialization.note_contained(self._id):
            # Pickled by somebody else's pickler: nobody will tell us when that copy goes, so the object stays.
            self._backend.pin(self._id)
        return (_rebuild_ref, (self._id,))

    def __del__(self) -> None:
        try:
            self._backend.release_ref(self._id)
        except Exception:  # interpreter shutdown
            pass

    def __copy__(self) -> ObjectRef:
        return self

    def __deepcopy__(self, memo: Any) -> ObjectRef:
        return self

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "An ObjectRef is not iterable. Use `get(ref)` for its value, or `num_returns` for several references."
        )


def _rebuild_ref(object_id: bytes) -> ObjectRef:
    from mltoolkit.core.backend import require_backend

    return require_backend().adopt_ref(object_id)


class ObjectRefGenerator:
    """The references that a streaming task yields, each as soon as it is there.

    Iterate it, ``async for`` over it, or pass its next reference's readiness to ``wait``. Dropping it cancels the task.
    """

    def __init__(self, ref: ObjectRef, backend: Backend) -> None:
        self._ref = ref  # of the stream itself: ready when the task has ended
        self._backend = backend
        self._index = 0
        self._closed = False

    def __iter__(self) -> ObjectRefGenerator:
        return self

    def __next__(self) -> ObjectRef:
        return self._next(None)

    def _next(self, timeout: float | None) -> ObjectRef:
        object_id = self._backend.stream_next(self._ref, self._index, timeout)
        if object_id is None:
            raise StopIteration
        self._index += 1
        return object_id

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef:
        """Like ``next`` with a limit in seconds; GetTimeoutError when it passes."""
        return self._next(timeout_s)

    def __aiter__(self) -> AsyncIterator[ObjectRef]:
        return self

    async def __anext__(self) -> ObjectRef:
        future = self._backend.stream_next_future(self._ref, self._index)
        ref = await asyncio.wrap_future(future)
        if ref is None:
            raise StopAsyncIteration
        self._index += 1
        return ref

    def completed(self) -> ObjectRef:
        """Return a reference that is ready when the task has ended; its value is None or the task's error."""
        return self._ref

    def is_finished(self) -> bool:
        """Return whether the task has ended and every reference has been taken."""
        return self._backend.stream_exhausted(self._ref, self._index)

    def next_ready(self) -> bool:
        """Return whether ``next`` would return without waiting."""
        return self._backend.stream_ready(self._ref, self._index)

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._ref.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "An ObjectRefGenerator cannot be pickled. Pass the references that it yields, or `list(generator)`."
        )

    def __del__(self) -> None:
        try:
            self._backend.stream_closed(self._ref._id)
        except Exception:  # interpreter shutdown
            pass


class DynamicObjectRefGenerator:
    """The references of a task with ``num_returns="dynamic"``: the value of its single reference."""

    def __init__(self, refs: list[ObjectRef]) -> None:
        self._refs = refs

    def __iter__(self) -> Iterator[ObjectRef]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, index: int) -> ObjectRef:
        return self._refs[index]

"""Calls to bytes, with large arrays replaced by objects that are put once per ``Parallel`` call.

Pickle's own out-of-band buffers find the arrays, however deep they lie: arguments, attributes of estimators, blocks of
data frames, parts of sparse matrices. A buffer is known by its address and size, and the entry keeps the memory alive,
so that no other array can turn up at the same address. Its content is fingerprinted, so that an array changed in place
is put anew.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import sys
import threading
import time
import types
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import cloudpickle

import mltoolkit

_WIDTH = 4096  # 8-byte words per row of the fingerprint: rows and weights stay in the first-level cache
_NAMED = (types.FunctionType, type)
_scope = threading.local()

OUT_OF_BAND_MIN = 100_000  # bytes; below, two copies through a message cost less than shared memory


class Message(NamedTuple):
    """Pickled calls and what has to travel beside them."""

    blob: bytes
    carried: list[Any]
    buffers: list[Any]


class _Shared(NamedTuple):
    memory: pickle.PickleBuffer
    ref: Any
    fingerprint: tuple[int, ...]
    checked_at: float


class ArraySharer:
    """Pickle calls for the tasks of one ``Parallel`` call.

    Parameters
    ----------
    min_bytes : int or None
        Size from which an array is shared; None shares none.
    clock : callable, default=time.monotonic
        Returns the time in seconds.

    Notes
    -----
    Used by one thread at a time; `clear` may be called from any.
    """

    def __init__(self, min_bytes: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._min_bytes = None if min_bytes is None else max(min_bytes, 1)
        self._clock = clock
        self._shared: dict[tuple[int, int], _Shared] = {}
        self._packed: dict[int, tuple[Any, Any, float]] = {}
        self._pickling = _Pickling()

    def dumps(self, value: Any, captured_at: float) -> Message:
        """Pickle a value.

        Parameters
        ----------
        value : object
            Calls and their surroundings.
        captured_at : float
            When joblib took the calls from the iterable. An array whose content was checked later than that is taken as
            it is.

        Raises
        ------
        Exception
            Whatever pickling the value raises.
        """
        if self._min_bytes is None or "numpy" not in sys.modules:
            return self._pickling.dumps(value, lambda buffer: None, {})
        share = functools.partial(self._share, captured_at=captured_at)
        reduce = functools.partial(self._reduce_array, captured_at=captured_at)
        numpy = sys.modules["numpy"]
        return self._pickling.dumps(value, share, {numpy.ndarray: reduce, numpy.memmap: reduce})

    def clear(self) -> None:
        """Let go of all shared arrays."""
        self._shared.clear()
        self._packed.clear()

    def __len__(self) -> int:
        return len(self._shared)

    def _share(self, buffer: pickle.PickleBuffer, captured_at: float) -> Any | None:
        import numpy as np

        view = np.frombuffer(buffer.raw(), dtype=np.uint8)
        if self._min_bytes is None or view.nbytes < self._min_bytes:
            return None
        key = (view.__array_interface__["data"][0], view.nbytes)
        known = self._shared.get(key)
        if known is not None and known.checked_at > captured_at:
            return known.ref
        checked_at = self._clock()
        print_ = fingerprint(view)
        if known is not None and known.fingerprint == print_:
            self._shared[key] = known._replace(checked_at=checked_at)
            return known.ref
        ref = mltoolkit.put(view)
        self._shared[key] = _Shared(buffer, ref, print_, checked_at)
        return ref

    def _reduce_array(self, array: Any, captured_at: float) -> Any:
        """Reduce by a buffer where numpy itself would write the array inline."""
        assert self._min_bytes is not None
        if array.dtype.hasobject or array.nbytes < self._min_bytes:
            return array.__reduce_ex__(5)
        contiguous = array.flags.c_contiguous or array.flags.f_contiguous
        # A memory map becomes an array: its file may not exist where the task runs.
        plain = array.view(sys.modules["numpy"].ndarray) if contiguous else self._pack(array, captured_at)
        if array.dtype.kind in "mM":  # dates have no buffer protocol
            return (_with_dtype, (plain.view("i8"), array.dtype))
        return plain.__reduce_ex__(5)

    def _pack(self, array: Any, captured_at: float) -> Any:
        """Return a contiguous copy of a large array that is not: pickle would write it inline, each time."""
        import numpy as np

        known = self._packed.get(id(array))
        if known is not None and known[2] > captured_at:
            return known[1]
        checked_at = self._clock()
        copy = np.ascontiguousarray(array)
        if known is not None and _same_bytes(known[1], copy):
            copy = known[1]  # the copy that is shared already
        self._packed[id(array)] = (array, copy, checked_at)
        return copy


def dump(value: Any) -> Message:
    """Pickle a value once; what is large stays out of band, for the runtime to copy straight into shared memory."""

    def keep(buffer: pickle.PickleBuffer) -> Any | None:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_MIN or "numpy" not in sys.modules:
            return None
        return sys.modules["numpy"].frombuffer(raw, dtype="uint8")

    return _Pickling().dumps(value, keep, {})


def loads(blob: bytes, carried: list[Any], buffers: list[Any]) -> Any:
    """Rebuild what `ArraySharer.dumps` or `dump` pickled."""
    _scope.carried = carried
    try:
        return pickle.loads(blob, buffers=buffers)
    finally:
        _scope.carried = None


def fingerprint(view: Any) -> tuple[int, ...]:
    """Compress the content of an array of bytes so that a change of any byte shows.

    Parameters
    ----------
    view : ndarray of shape (n_bytes,), dtype=uint8

    Returns
    -------
    fingerprint : tuple of int
        Checksum of the weighted row sums, and of the tail.

    Notes
    -----
    Each row of 32 KiB is reduced to the sum of its words times fixed odd weights, modulo 2**64: a change of a single
    word always changes it, and so does, for all practical purposes, an exchange of words. This runs at the speed of
    memory, several times faster than a checksum of all bytes.
    """
    import numpy as np

    n_rows = view.nbytes // (8 * _WIDTH)
    body = n_rows * 8 * _WIDTH
    tail = zlib.crc32(view[body:])
    if not n_rows:
        return (tail,)
    rows = view[:body].view(np.uint64).reshape(n_rows, _WIDTH)
    return (zlib.crc32(np.einsum("ij,j->i", rows, _weights())), tail)


@functools.cache
def _weights() -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 2**63, _WIDTH, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _same_bytes(left: Any, right: Any) -> bool:
    import numpy as np

    return bool(np.array_equal(left.reshape(-1).view(np.uint8), right.reshape(-1).view(np.uint8)))


class _PlainPickler(pickle.Pickler):
    """The plain pickler, which refuses what other processes would look for in a ``__main__`` of their own."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _NAMED) and obj.__module__ == "__main__":
            raise pickle.PicklingError(f"{obj!r} has to be pickled by value.")
        return NotImplemented


class _Pickling:
    """Pickle with the plain pickler if possible, with cloudpickle if something is local or from ``__main__``.

    The plain one takes half the time for the many small objects that a batch is made of. References and actor handles
    are pickled by position: the task carries them as arguments, where the runtime counts them.
    """

    def __init__(self) -> None:
        self._plain = not cloudpickle.list_registry_pickle_by_value()

    def dumps(
        self,
        value: Any,
        out_of_band: Callable[[pickle.PickleBuffer], Any | None],
        reducers: dict[type, Callable[[Any], Any]],
    ) -> Message:
        """Pickle `value`; `out_of_band` returns what is to stand for a buffer, None to write it inline."""
        if self._plain:
            try:
                return self._dumps(_PlainPickler, copyreg.dispatch_table, value, out_of_band, reducers)
            except Exception:
                self._plain = False  # what follows will be much like this
        table = {**copyreg.dispatch_table, **cloudpickle.Pickler._dispatch_table}
        return self._dumps(cloudpickle.Pickler, table, value, out_of_band, reducers)

    @staticmethod
    def _dumps(
        pickler_class: Any,
        dispatch_table: dict[Any, Any],
        value: Any,
        out_of_band: Callable[[pickle.PickleBuffer], Any | None],
        reducers: dict[type, Callable[[Any], Any]],
    ) -> Message:
        carried: list[Any] = []
        buffers: list[Any] = []

        def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
            kept = out_of_band(buffer)
            if kept is not None:
                buffers.append(kept)
            return kept is None

        def carry(obj: Any) -> Any:
            carried.append(obj)
            return (_carried_at, (len(carried) - 1,))

        stream = io.BytesIO()
        pickler = pickler_class(stream, protocol=5, buffer_callback=keep_in_band)
        carriers = {mltoolkit.ObjectRef: carry, mltoolkit.actor.ActorHandle: carry}
        pickler.dispatch_table = {**dispatch_table, **reducers, **carriers}
        pickler.dump(value)
        return Message(stream.getvalue(), carried, buffers)


def _with_dtype(array: Any, dtype: Any) -> Any:
    return array.view(dtype)


def _carried_at(position: int) -> Any:
    return _scope.carried[position]

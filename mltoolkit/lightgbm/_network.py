"""LightGBM's network, carried by a mesh.

LightGBM asks for two operations only, which it lets its host provide (``LGBM_NetworkInitWithFunctions``). Whatever one of
them meets must not leave it, since LightGBM could not handle it: after a failure they answer as if all ranks were like
this one, so that the round ends at once, and the error is raised then.
"""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any

from mltoolkit.lightgbm._mesh import Mesh

__all__ = ["Network"]

_POINTER = ctypes.c_void_p
_INT = ctypes.c_int32
_REDUCER = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, ctypes.c_int, _INT)
_ALLGATHER = ctypes.CFUNCTYPE(None, _POINTER, _INT, _POINTER, _POINTER, ctypes.c_int, _POINTER, _INT)
_REDUCE_SCATTER = ctypes.CFUNCTYPE(
    None, _POINTER, _INT, ctypes.c_int, _POINTER, _POINTER, ctypes.c_int, _POINTER, _INT, _POINTER
)
_READ, _WRITE = 0x100, 0x200


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)
def _SILENT(_message: bytes) -> None:
    """Drop a message."""


_view_of = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of.argtypes = (_POINTER, ctypes.c_ssize_t, ctypes.c_int)
_view_of.restype = ctypes.py_object


class Network:
    """Makes a mesh the network of LightGBM, for the thread that enters it.

    Parameters
    ----------
    mesh : Mesh

    Attributes
    ----------
    error : BaseException or None
        What went wrong; nothing that LightGBM has computed since is of any worth.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.error: BaseException | None = None
        self._functions = (_REDUCE_SCATTER(self._reduce_scatter), _ALLGATHER(self._allgather))
        self._received = [bytearray() for _ in range(mesh.size)]
        self._others = [at for at in range(mesh.size) if at != mesh.index]

    def __enter__(self) -> Network:
        library = _library()
        reduce_scatter, allgather = (ctypes.cast(function, _POINTER) for function in self._functions)
        library.LGBM_RegisterLogCallback(_SILENT)  # each rank would introduce itself
        failed = library.LGBM_NetworkInitWithFunctions(
            ctypes.c_int(self.mesh.size), ctypes.c_int(self.mesh.index), reduce_scatter, allgather
        )
        # Like the network, where messages go is LightGBM's own for each thread; only the importing one was told.
        library.LGBM_RegisterLogCallback(getattr(library, "callback", None))
        if failed:
            raise RuntimeError("LightGBM could not set its network up.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _library().LGBM_NetworkFree()

    def check(self) -> None:
        """Raise what went wrong since the last time, if anything did."""
        if self.error is not None:
            raise self.error

    # ---- what LightGBM calls -------------------------------------------------------------------------------------------

    def _allgather(
        self, source: int, _size: int, starts: int, lengths: int, count: int, target: int, target_size: int
    ) -> None:
        start, length = _numbers(starts, count), _numbers(lengths, count)
        own = self.mesh.index
        if target + start[own] != source:
            ctypes.memmove(target + start[own], source, length[own])
        out = _view_of(target, target_size, _WRITE)
        mine = out[start[own] : start[own] + length[own]]
        if self.error is None:
            try:
                self.mesh.exchange(
                    dict.fromkeys(self._others, mine),
                    {at: out[start[at] : start[at] + length[at]] for at in self._others},
                )
                return
            except BaseException as error:
                self.error = error
        for at in self._others:
            _fill(out[start[at] : start[at] + length[at]], mine)

    def _reduce_scatter(
        self,
        source: int,
        source_size: int,
        item_size: int,
        starts: int,
        lengths: int,
        count: int,
        target: int,
        _target_size: int,
        reducer: int,
    ) -> None:
        start, length = _numbers(starts, count), _numbers(lengths, count)
        own = self.mesh.index
        size = length[own]
        if self.error is None:
            try:
                view = _view_of(source, source_size, _READ)
                for at in self._others:
                    if len(self._received[at]) < size:
                        self._received[at] = bytearray(size)
                self.mesh.exchange(
                    {at: view[start[at] : start[at] + length[at]] for at in self._others},
                    {at: memoryview(self._received[at])[:size] for at in self._others},
                )
            except BaseException as error:
                self.error = error
        ctypes.memmove(target, source + start[own], size)
        if self.error is None and size:
            # A reference to a function pointer, in C++.
            reduce = _REDUCER(ctypes.c_void_p.from_address(reducer).value or 0)
            for at in self._others:
                received = (ctypes.c_char * size).from_buffer(self._received[at])
                reduce(ctypes.addressof(received), target, item_size, size)
                del received


def _numbers(address: int, count: int) -> list[int]:
    numbers: list[int] = _view_of(address, 4 * count, _READ).cast("i").tolist()
    return numbers


def _fill(target: memoryview, pattern: memoryview) -> None:
    """Repeat the pattern, which leaves numbers and records whole."""
    for at in range(0, len(target), max(1, len(pattern))):
        piece = target[at : at + len(pattern)]
        piece[:] = pattern[: len(piece)]


def _library() -> Any:
    from lightgbm.basic import _LIB

    return _LIB

"""Values to bytes and back: pickle protocol 5, large buffers out of band into shared memory.

A *payload* is what travels in messages and lies in the object table, a plain tuple so that a batch of them pickles fast:

``(INLINE, bytes, contained)``     a pickled value, at most ``INLINE_MAX`` bytes
``(SHARED, Segment, contained)``   a value in the object store
``(ERROR, bytes, contained)``      a pickled exception, raised where the value is asked for

`contained` lists the ids of the references inside the value, which must live as long as the payload does.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pickle
import platform
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle

from mltoolkit import exceptions
from mltoolkit.core.ids import new_id
from mltoolkit.core.store import Store

INLINE = 0
SHARED = 1
ERROR = 2
INLINE_MAX = 100_000  # bytes; about where a map of shared memory begins to cost less than two copies through a socket

Payload = tuple[int, Any, tuple[bytes, ...]]

_ATOMS = frozenset({int, float, bool, str, bytes, type(None), complex})
_scope = threading.local()
_custom_reducers: dict[type, Callable[[Any], Any]] = {}

NONE_PAYLOAD: Payload = (INLINE, pickle.dumps(None, 5), ())


def note_contained(object_id: bytes) -> bool:
    """Record that a reference is being pickled; False if no value of ours is being pickled on this thread."""
    contained = getattr(_scope, "contained", None)
    if contained is None:
        return False
    contained.append(object_id)
    return True


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Pickle instances of exactly `cls` by a pair of functions.

    Parameters
    ----------
    cls : type
        The class; subclasses are not affected.
    serializer : callable
        ``serializer(obj)`` returns something picklable.
    deserializer : callable
        ``deserializer(that)`` returns the object again.
    """
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise TypeError(f"`{name}` must be callable, got {function!r}.")
    _custom_reducers[cls] = lambda obj: (deserializer, (serializer(obj),))


def deregister_serializer(cls: type) -> None:
    """Forget what `register_serializer` said about `cls`."""
    _custom_reducers.pop(cls, None)


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if _custom_reducers:
            reducer = _custom_reducers.get(type(obj))
            if reducer is not None:
                return reducer(obj)
        if (
            isinstance(obj, types.ModuleType)
            and type(obj) is not types.ModuleType
            and sys.modules.get(obj.__name__) is obj
        ):
            # Modules that load lazily are of classes that cloudpickle does not know.
            return (importlib.import_module, (obj.__name__,))
        return super().reducer_override(obj)


def _pickle(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None) -> bytes | memoryview:
    stream = io.BytesIO()
    try:
        _Pickler(stream, protocol=5, buffer_callback=buffer_callback).dump(value)
    except RecursionError as error:
        raise pickle.PicklingError(f"{_describe(value)} is nested too deeply to be pickled.") from error
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, NotImplementedError) as error:
        raise _explain(value, error) from error
    return stream.getbuffer()


def _describe(value: Any) -> str:
    text = repr(type(value)) if not isinstance(value, types.FunctionType) else f"function {value.__qualname__}"
    return text


def _explain(value: Any, error: Exception) -> Exception:
    """Name the part that cannot be pickled, as far down as it can be found cheaply."""
    path, culprit = _find_culprit(value, "value", 0, set())
    detail = (
        f"`{path}` is {_describe(culprit)}, which cannot be pickled"
        if path != "value"
        else f"{_describe(culprit)} cannot be pickled"
    )
    message = (
        f"Could not serialize {_describe(value)}: {detail} ({type(error).__name__}: {error}). Create it inside the task or actor, or "
        "pass what it is made from; mltoolkit.util.inspect_serializability shows every part."
    )
    kind = type(error) if type(error) in (TypeError, pickle.PicklingError) else TypeError
    return kind(message)


def _find_culprit(value: Any, path: str, depth: int, seen: set[int]) -> tuple[str, Any]:
    if depth > 6 or id(value) in seen:
        return path, value
    seen.add(id(value))
    for name, part in _parts(value):
        try:
            cloudpickle.dumps(part)
        except Exception:
            return _find_culprit(part, path + name, depth + 1, seen)
    return path, value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in list(value.items())[:1000])
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{i}]", item) for i, item in enumerate(list(value)[:1000]))
    elif isinstance(value, types.FunctionType):
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=False):
            with contextlib.suppress(ValueError):
                yield f".<closure {name}>", cell.cell_contents
        for name in value.__code__.co_names:
            if name in value.__globals__ and not isinstance(value.__globals__[name], types.ModuleType):
                yield f".<global {name}>", value.__globals__[name]
        for i, default in enumerate(value.__defaults__ or ()):
            yield f".<default {i}>", default
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, type):
        yield from ((f".{name}", item) for name, item in vars(value).items() if not name.startswith("__"))
    elif hasattr(value, "__dict__"):
        yield from ((f".{name}", item) for name, item in vars(value).items())


def dumps_function(function: Any) -> bytes:
    """Pickle a function or class by cloudpickle; the caller keeps the bytes and reuses them."""
    _scope.contained = []
    try:
        return bytes(_pickle(function, None))
    finally:
        _scope.contained = None


def serialize(value: Any, store: Store | None) -> Payload:
    """Pickle a value.

    Parameters
    ----------
    value : object
        What to pickle.
    store : Store or None
        Where large buffers go; None keeps everything inline.

    Returns
    -------
    Payload
        See the module's docstring.
    """
    kind = type(value)
    if kind in _ATOMS and (kind is not str and kind is not bytes or len(value) < INLINE_MAX):
        return (INLINE, pickle.dumps(value, 5), ())
    outer = getattr(_scope, "contained", None)
    contained: list[bytes] = []
    buffers: list[pickle.PickleBuffer] = []

    def keep_out_of_band(buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if raw.nbytes < INLINE_MAX:
                return True
        buffers.append(buffer)
        return False

    _scope.contained = contained
    try:
        stream = _pickle(value, keep_out_of_band if store is not None else None)
    finally:
        _scope.contained = outer
    refs = tuple(contained)
    if store is None or (not buffers and len(stream) <= INLINE_MAX):
        return (INLINE, bytes(stream), refs)
    raws = [buffer.raw() for buffer in buffers]
    try:
        return (SHARED, store.write(new_id().hex(), [stream, *raws]), refs)
    finally:
        for raw in raws:
            raw.release()


def deserialize(payload: Payload, store: Store) -> Any:
    """Rebuild a value; large buffers are read-only views of shared memory.

    Raises
    ------
    BaseException
        The exception that an ``ERROR`` payload holds.
    """
    kind, data, _ = payload
    if kind == INLINE:
        return pickle.loads(data)
    if kind == SHARED:
        stream, *buffers = store.map(data)
        return pickle.loads(stream, buffers=buffers)
    raise load_error(data)


def load_error(data: bytes) -> BaseException:
    """Rebuild the exception of an ``ERROR`` payload."""
    error = pickle.loads(data)
    if isinstance(error, tuple):
        return _rebuild_user_error(*error)
    return error


def error_payload(error: BaseException) -> Payload:
    """Pickle one of mltoolkit's own errors."""
    try:
        return (ERROR, bytes(_pickle(error, None)), ())
    except Exception:
        return (ERROR, pickle.dumps(exceptions.RayError(str(error))), ())


def user_error_payload(error: BaseException, function_name: str, skip_frames: int = 0) -> Payload:
    """Pickle an exception of user code with its traceback.

    Whatever the exception is made of, this succeeds: what cannot be pickled and rebuilt travels as text.
    """
    if isinstance(error, exceptions.RayTaskError) and error.cause is not None:
        cause: BaseException = error.cause  # passed on from a task that this one waited for
    else:
        cause = error
    if isinstance(error, ValueError) and "read-only" in str(error):
        error.add_note(
            "Arrays from the object store are read-only views of shared memory. Work on a copy: x = x.copy(), or get(ref, copy=True)."
        )
    text = format_traceback(error, skip_frames)
    contained: list[bytes] = []
    _scope.contained = contained
    try:
        blob = bytes(_pickle(cause, None))
        rebuilt = pickle.loads(blob)
        if type(rebuilt) is not type(cause):
            blob = b""
    except BaseException as failure:
        blob = b""
        text += f"\n(The exception itself could not be sent: {type(failure).__name__}: {failure})"
    finally:
        _scope.contained = None
    data = pickle.dumps((function_name, text, blob, os.getpid(), platform.node()), 5)
    return (ERROR, data, tuple(contained) if blob else ())


def format_traceback(error: BaseException, skip_frames: int = 0) -> str:
    """Format a traceback without the frames of mltoolkit that stand above the user's code."""
    tb = error.__traceback__
    for _ in range(skip_frames):
        if tb is None or tb.tb_next is None:
            break
        tb = tb.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, tb))
    except Exception as failure:  # a hostile __str__
        return f"{type(error).__name__} (its text could not be formatted: {failure!r})"


def _rebuild_user_error(function_name: str, text: str, blob: bytes, pid: int, host: str) -> BaseException:
    cause = None
    if blob:
        try:
            cause = pickle.loads(blob)
        except Exception as failure:
            text += f"\n(The exception itself could not be rebuilt here: {type(failure).__name__}: {failure})"
    error = exceptions.RayTaskError(function_name, text, cause, pid, host)
    return error.as_instanceof_cause()

"""Custom serializers for classes that cannot be pickled, or not fast enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mltoolkit.core import serialization as _core


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Let instances of a class travel by a pair of functions of your own.

    It holds for what this process sends from now on: arguments, results of tasks, ``put``. A task or actor that sends
    such objects itself has to register as well.

    Parameters
    ----------
    cls : type
        The class; instances of its subclasses are not affected.
    serializer : callable
        Takes an instance and returns something that can be pickled.
    deserializer : callable
        Takes what `serializer` returned and rebuilds the instance. It travels with the object and must be picklable.

    Raises
    ------
    TypeError
        If `cls` is not a class, or one of the functions cannot be called.

    Examples
    --------
    >>> import threading
    >>> from mltoolkit.util import deregister_serializer, register_serializer
    >>> Lock = type(threading.Lock())
    >>> register_serializer(Lock, serializer=lambda lock: lock.locked(), deserializer=lambda _: threading.Lock())
    >>> deregister_serializer(Lock)
    """
    if not isinstance(cls, type):
        raise TypeError(f"`cls` must be a class, got {cls!r}.")
    _core.register_serializer(cls, serializer=serializer, deserializer=deserializer)


def deregister_serializer(cls: type) -> None:
    """Undo `register_serializer`; nothing happens if there is none.

    Parameters
    ----------
    cls : type
        The class whose instances are pickled in the ordinary way again.
    """
    _core.deregister_serializer(cls)

"""Find out which part of an object keeps it from being sent to other processes."""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Iterator
from typing import Any, TextIO

from mltoolkit.core import serialization

_MAX_TEXT = 80  # characters of a value's repr in the printed tree


class FailureTuple:
    """A part that cannot be serialized, and where it was found.

    Parameters
    ----------
    obj : object
        The part.
    path : tuple of str
        Names that lead to it from the object that was inspected.
    parent : object
        What refers to the part; None for the inspected object itself.
    """

    def __init__(self, obj: Any, path: tuple[str, ...], parent: Any) -> None:
        self.obj = obj
        self.path = path
        self.parent = parent

    @property
    def name(self) -> str:
        """Name under which `parent` refers to the part; empty for the inspected object itself."""
        return self.path[-1] if self.path else ""

    def __repr__(self) -> str:
        return f"FailureTuple({self.name} [path={' -> '.join(self.path)}, obj={self.obj!r}, parent={self.parent!r}])"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Check whether an object can be serialized; if not, find and print the parts that cannot.

    Functions are searched through what they close over, the globals they use and their defaults; classes and instances
    through their attributes; containers through their items.

    Parameters
    ----------
    base_obj : object
        What to inspect: a function, class, or any value.
    name : str, optional
        What to call it in the output; by default its own name, or that of its type.
    depth : int, default=3
        How many levels to search below `base_obj`.
    print_file : text file, optional
        Where the tree is printed; standard output if None.

    Returns
    -------
    serializable : bool
        Whether the whole object can be serialized.
    failures : set of FailureTuple
        The innermost parts that cannot; empty if all can.

    Raises
    ------
    ValueError
        If `depth` is negative.

    Examples
    --------
    >>> import threading
    >>> from mltoolkit.util import inspect_serializability
    >>> lock = threading.Lock()
    >>> def task():
    ...     with lock:
    ...         return 1
    >>> ok, failures = inspect_serializability(task)  # doctest: +ELLIPSIS
    task: FAILS (TypeError: cannot pickle '_thread.lock' object)
    ...
    >>> ok, [failure.name for failure in failures]
    (False, ['lock'])
    """
    if depth < 0:
        raise ValueError(f"`depth` must be >= 0, got {depth!r}.")
    inspector = _Inspector(print_file or sys.stdout)
    inspector.visit(base_obj, name or _label(base_obj), () if name is None else (name,), None, depth, "", "")
    inspector.summarize()
    return not inspector.failures, set(inspector.failures.values())


class _Inspector:
    """One walk through an object; prints as it goes."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.failures: dict[int, FailureTuple] = {}
        self.open: set[int] = set()
        self.closed: set[int] = set()

    def visit(
        self, obj: Any, label: str, path: tuple[str, ...], parent: Any, depth: int, indent: str, below: str
    ) -> bool:
        """Check one part and, where it fails, what it consists of; return whether it brings no failure."""
        error = _failure(obj)
        if error is None:
            self._print(f"{indent}{label}: ok")
            return True
        self._print(f"{indent}{label}: FAILS ({type(error).__name__}: {error})")
        if id(obj) in self.open:
            return True  # refers back to what is being searched: no news
        if id(obj) in self.closed:
            return False
        self.open.add(id(obj))
        inner = list(_parts(obj)) if depth > 0 else []
        found = False
        for position, (kind, name, part) in enumerate(inner, 1):
            last = position == len(inner)
            passed = self.visit(
                part,
                f"{kind} {name} = {_short(part)}",
                (*path, name),
                obj,
                depth - 1,
                below + ("└── " if last else "├── "),
                below + ("    " if last else "│   "),
            )
            found = found or not passed
        if not found:
            self.failures[id(obj)] = FailureTuple(obj, path, parent)
        self.open.discard(id(obj))
        self.closed.add(id(obj))
        return False

    def summarize(self) -> None:
        """Say what follows from the walk."""
        for failure in self.failures.values():
            where = " -> ".join(failure.path) or "the object itself"
            self._print(f"Cannot be serialized: {where}, {_short(failure.obj)} of {type(failure.obj)!r}.")
        if self.failures:
            self._print(
                "Create such objects inside the task or actor, or send what they can be made from; or give their class "
                "a serializer with mltoolkit.util.register_serializer."
            )

    def _print(self, line: str) -> None:
        self.file.write(line + "\n")


def _failure(obj: Any) -> BaseException | None:
    """Return why an object cannot be serialized, None if it can."""
    try:
        serialization.dumps_function(obj)
    except Exception as error:
        # The runtime words its errors for whoever meets one in the middle of a call; here the bare reason is enough.
        return error.__cause__ or error
    return None


def _parts(obj: Any) -> Iterator[tuple[str, str, Any]]:
    """Iterate over what is pickled along with an object, as (kind, name, part)."""
    if isinstance(obj, types.FunctionType):
        yield from _parts_of_function(obj)
    elif isinstance(obj, types.MethodType):
        yield "object", "__self__", obj.__self__
        yield "function", "__func__", obj.__func__
    elif isinstance(obj, functools.partial):
        yield "function", "func", obj.func
        yield from (("argument", str(i), value) for i, value in enumerate(obj.args))
        yield from (("argument", key, value) for key, value in obj.keywords.items())
    elif isinstance(obj, (staticmethod, classmethod)):
        yield "function", "__func__", obj.__func__
    elif isinstance(obj, property):
        yield from (("function", key, f) for key in ("fget", "fset", "fdel") if (f := getattr(obj, key)) is not None)
    elif isinstance(obj, type):
        yield from (("base", base.__name__, base) for base in obj.__bases__ if base is not object)
        yield from (("attribute", key, value) for key, value in vars(obj).items() if not _is_machinery(key, value))
    else:
        yield from _parts_of_instance(obj)


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield "closure variable", name, cell.cell_contents
        except ValueError:
            pass  # not assigned yet
    for name in sorted(_names_used(function.__code__)):
        if name in function.__globals__:
            yield "global", name, function.__globals__[name]
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from (("default of", name, value) for name, value in zip(names[-len(defaults) :], defaults, strict=False))
    yield from (("default of", name, value) for name, value in (function.__kwdefaults__ or {}).items())
    yield from (("attribute", name, value) for name, value in vars(function).items())


def _names_used(code: types.CodeType) -> set[str]:
    """Collect names of globals that a function, or a function defined inside it, may use."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_used(constant)
    return names


def _parts_of_instance(obj: Any) -> Iterator[tuple[str, str, Any]]:
    if isinstance(obj, dict):
        for key, value in obj.items():
            yield "key", repr(key), key
            yield "item", repr(key), value
    elif isinstance(obj, (list, tuple, set, frozenset, deque)):
        yield from (("item", str(i), value) for i, value in enumerate(obj))
    yield from (("attribute", name, value) for name, value in getattr(obj, "__dict__", {}).items())
    for cls in type(obj).__mro__:
        slots = vars(cls).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(obj, slot):
                yield "attribute", slot, getattr(obj, slot)
    if _failure(type(obj)) is not None:
        yield "class", type(obj).__name__, type(obj)


def _is_machinery(name: str, value: Any) -> bool:
    """Tell whether an attribute of a class was put there by Python: it is made again, not pickled."""
    return isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)) or name in (
        "__dict__",
        "__weakref__",
        "__module__",
        "__doc__",
        "__qualname__",
        "__slotnames__",
    )


def _label(obj: Any) -> str:
    return getattr(obj, "__qualname__", None) or f"{type(obj).__name__} object"


def _short(obj: Any) -> str:
    try:
        text = repr(obj)
    except Exception as error:
        text = f"<{type(obj).__name__} whose repr raised {type(error).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."

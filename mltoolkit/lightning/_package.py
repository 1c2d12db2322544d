"""Which of the two Lightning packages a program uses, and classes that are made for it.

``lightning.pytorch`` and ``pytorch_lightning`` hold the same classes twice, and each accepts only its own. A class of ours
is therefore written once, without its base, and combined with the package's class when an object is made.
"""

from __future__ import annotations

import importlib
import sys
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from mltoolkit._optional import is_installed, require

__all__ = ["PACKAGES", "PackageClass", "implementation", "package_of", "which_package"]

PACKAGES = {"lightning.pytorch": "lightning.fabric", "pytorch_lightning": "lightning_fabric"}
"""The packages, and the one with the parts that each shares with Lightning Fabric."""


def which_package(frame: FrameType | None = None) -> str:
    """Find the package that the program uses.

    Parameters
    ----------
    frame : frame, optional
        Where an object of ours is being made: its module says which package it works with, where both are loaded.

    Returns
    -------
    str
        ``"lightning.pytorch"`` or ``"pytorch_lightning"``.

    Raises
    ------
    ImportError
        If neither is installed.
    """
    loaded = [name for name in PACKAGES if name in sys.modules]
    if len(loaded) == 1:
        return loaded[0]
    if len(loaded) > 1:
        while frame is not None:
            if not frame.f_globals.get("__name__", "").startswith("mltoolkit."):
                # Locals with the variables of enclosing functions: nearer, and all that a function sent here may have.
                for names in (frame.f_locals, frame.f_globals):
                    used = {name for value in list(names.values()) if (name := _home(value)) is not None}
                    if len(used) == 1:
                        return used.pop()
            frame = frame.f_back
        return loaded[0]
    for name in PACKAGES:
        if is_installed(name.partition(".")[0]):
            return name
    require("lightning", purpose="RayStrategy", extra="lightning")
    raise AssertionError("unreachable")


def _home(value: Any) -> str | None:
    """The package that a global of a program comes from."""
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    if not isinstance(name, str):
        return None
    root = name.partition(".")[0]
    return {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}.get(root)


def package_of(thing: object) -> str:
    """The package that an object of Lightning's is of."""
    for cls in type(thing).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in ("lightning", "pytorch_lightning"):
            return {"lightning": "lightning.pytorch"}.get(root, root)
    raise TypeError(f"{thing!r} is not of Lightning.")


_implementations: dict[tuple[type, str], type] = {}


def implementation(cls: type[PackageClass], package: str) -> type:
    """The class that is both `cls` and the package's own class that it extends."""
    path, name = cls._base_in_package
    base = getattr(importlib.import_module(path.format(package=package, fabric=PACKAGES[package])), name)
    made = _implementations.get((cls, package))
    if made is None or base not in made.__mro__:  # a forked process may have had to import the package anew
        namespace = {"__doc__": cls.__doc__, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        made = type(cls.__name__, (cls, base), {**namespace, "_package": package})
        _implementations[cls, package] = made
    return made


class PackageClass:
    """A class that is combined with one of the package's when an object is made.

    Subclasses name that class in ``_base_in_package``, as a module path with ``{package}`` or ``{fabric}`` in it and a
    name. Objects are instances of both, and they can be sent to other processes.
    """

    _base_in_package: ClassVar[tuple[str, str]]
    _package: ClassVar[str] = ""

    if TYPE_CHECKING:  # what the package's class has

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls._package:
            return object.__new__(cls)
        # A frame further up than this one: that of the program, whatever subclasses do in between.
        return object.__new__(implementation(cls, which_package(sys._getframe(1))))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (_blank, (_plain_class(type(self)), self._package), self.__getstate__())

    def __getstate__(self) -> Any:
        return self.__dict__.copy()


def _plain_class(made: type) -> type:
    """The class as its author wrote it, of one that :func:`implementation` has made."""
    return made.__mro__[1] if (made.__mro__[1], vars(made).get("_package")) in _implementations else made


def _blank(cls: type[PackageClass], package: str) -> Any:
    return object.__new__(cls if cls._package else implementation(cls, package))

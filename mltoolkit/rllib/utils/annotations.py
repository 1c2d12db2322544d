"""Marks that RLlib's users put on classes and methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["DeveloperAPI", "ExperimentalAPI", "OverrideToImplementCustomLogic", "PublicAPI", "override"]

_T = TypeVar("_T")


def override(parent_cls: type) -> Callable[[_T], _T]:
    """Say that a method overrides one of `parent_cls`.

    Parameters
    ----------
    parent_cls : type

    Raises
    ------
    NameError
        If the class has no method of that name, so that a misspelt one is not silently a new one.

    Examples
    --------
    >>> class Base:
    ...     def step(self): ...
    >>> class Mine(Base):
    ...     @override(Base)
    ...     def step(self): ...
    """

    def check(method: _T) -> _T:
        name = getattr(method, "__name__", None)
        if name is not None and name not in dir(parent_cls):
            raise NameError(f"{name!r} overrides nothing: {parent_cls.__name__} has no method of that name.")
        return method

    return check


def PublicAPI(obj: Any = None, *, stability: str = "stable") -> Any:  # RLlib's name
    """Mark something as public; it stays as it is."""
    return obj if obj is not None else lambda marked: marked


def _mark(obj: Any) -> Any:
    return obj


DeveloperAPI = ExperimentalAPI = OverrideToImplementCustomLogic = _mark

"""What a function given to ``sample_from`` sees: the values that are resolved so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mltoolkit.tune.error import TuneError
from mltoolkit.tune.search._nested import copy_containers

__all__ = ["RecursiveDependencyError", "SpecView", "plain"]


class RecursiveDependencyError(TuneError, ValueError):
    """Functions given to ``sample_from`` need each other's values, or their own."""


class SpecView(dict):
    """A configuration of which some values are not known yet.

    Items are reached as ``config["x"]`` and as ``config.x``. Both ``view.config`` and ``view["config"]`` are the view
    itself, unless the configuration has such an item: functions may be written for the configuration or for the
    older specification around it. Values that are not known yet are left out; reaching for one raises
    :class:`RecursiveDependencyError`.

    Parameters
    ----------
    config : dict
    is_unresolved : callable
        Tells whether a value is still to be resolved.
    path : str
        Where the configuration lies, for errors.
    """

    def __init__(self, config: dict[Any, Any], is_unresolved: Callable[[Any], bool], path: str = "") -> None:
        unresolved = {key for key, value in config.items() if is_unresolved(value)}
        super().__init__(
            {
                key: _view(value, is_unresolved, f"{path}{key}/")
                for key, value in config.items()
                if key not in unresolved
            }
        )
        # The attributes of a plain dict are its items here, so our own are kept out of their way.
        object.__setattr__(self, "_SpecView__unresolved", unresolved)
        object.__setattr__(self, "_SpecView__path", path)

    def __missing__(self, key: Any) -> Any:
        if key in self.__unresolved:
            raise _not_known(f"{self.__path}{key}")
        if key == "config" and not self.__path:
            return self
        raise KeyError(key)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__") and dict.__contains__(self, name):
            return dict.__getitem__(self, name)  # before the methods of dict: `config.items` may be a hyperparameter
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"The configuration has no {name!r}; it has {list(self)}.") from None

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, or a default where there is none."""
        try:
            return self[key]
        except RecursiveDependencyError:
            raise
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, key) or key in self.__unresolved


class _SequenceView(list):
    """A list of which some elements are not known yet."""

    def __init__(self, items: Any, is_unresolved: Callable[[Any], bool], path: str) -> None:
        self.__unresolved = {i for i, item in enumerate(items) if is_unresolved(item)}
        self.__path = path
        super().__init__(
            None if i in self.__unresolved else _view(item, is_unresolved, f"{path}{i}/")
            for i, item in enumerate(items)
        )

    def __getitem__(self, index: Any) -> Any:
        for i in sorted(self.__unresolved.intersection(_touched(index, len(self)))):
            raise _not_known(f"{self.__path}{i}")
        return super().__getitem__(index)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))


def _touched(index: Any, length: int) -> Any:
    if isinstance(index, slice):
        return range(*index.indices(length))
    return [index + length if index < 0 else index]


def _view(value: Any, is_unresolved: Callable[[Any], bool], path: str) -> Any:
    if isinstance(value, dict):
        return SpecView(value, is_unresolved, path)
    if isinstance(value, (list, tuple)) and any(is_unresolved(item) for item in value):
        return _SequenceView(value, is_unresolved, path)
    return value


def _not_known(path: str) -> RecursiveDependencyError:
    return RecursiveDependencyError(f"The value of {path!r} is not resolved yet.")


def plain(value: Any) -> Any:
    """Copies of dicts, lists and tuples at any depth, with plain ones in place of views."""
    if isinstance(value, SpecView):
        return {key: plain(item) for key, item in dict.items(value)}
    if isinstance(value, _SequenceView) or type(value) is list:
        return [plain(item) for item in value]
    if type(value) is dict:
        return {key: plain(item) for key, item in value.items()}
    if type(value) is tuple:
        return tuple(map(plain, value))
    return copy_containers(value)

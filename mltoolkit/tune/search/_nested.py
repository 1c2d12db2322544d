"""Nested dicts and lists: walking, copying and flattening them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

__all__ = [
    "assign_value",
    "copy_containers",
    "flatten",
    "get_value",
    "lookup",
    "merge",
    "unflatten",
]

Path = tuple[Any, ...]


def copy_containers(value: Any) -> Any:
    """Copy dicts, lists and tuples at any depth; what they hold is shared."""
    kind = type(value)
    if kind is dict:
        return {key: copy_containers(item) for key, item in value.items()}
    if kind is list:
        return [copy_containers(item) for item in value]
    if isinstance(value, tuple):
        items = [copy_containers(item) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return rebuild_tuple(value, items)
    if isinstance(value, (dict, list)):
        copied = copy(value)  # subclasses keep their class and what else they know
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            new = copy_containers(item)
            if new is not item:
                copied[key] = new
        return copied
    return value


def rebuild_tuple(like: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
    """A tuple of other items and the same class, named ones included."""
    make = getattr(type(like), "_make", type(like))
    built: tuple[Any, ...] = make(items)
    return built


def get_value(nested: Any, path: Path) -> Any:
    """What lies at a path of keys and indices."""
    for key in path:
        nested = nested[key]
    return nested


def assign_value(nested: Any, path: Path, value: Any) -> None:
    """Put a value at a path, in place; tuples on the way are built anew in what holds them."""
    parents = [nested]
    for key in path[:-1]:
        parents.append(parents[-1][key])
    for parent, key in zip(reversed(parents), reversed(path), strict=True):
        if not isinstance(parent, tuple):
            parent[key] = value
            return
        items = list(parent)
        items[key] = value
        value = rebuild_tuple(parent, items)
    raise ValueError("Cannot assign into a tuple that nothing holds.")


def flatten(nested: Mapping[Any, Any], delimiter: str = "/", *, flatten_list: bool = False) -> dict[str, Any]:
    """Flatten nested dicts into one whose names tell the path.

    Parameters
    ----------
    nested : dict
    delimiter : str, default='/'
    flatten_list : bool, default=False
        Whether lists and tuples count as nested too.

    Returns
    -------
    dict of str to value
        Empty dicts at the end of a path stay values.

    Examples
    --------
    >>> flatten({"model": {"lr": 0.1, "layers": [2, 3]}}, flatten_list=True)
    {'model/lr': 0.1, 'model/layers/0': 2, 'model/layers/1': 3}
    """
    flat: dict[str, Any] = {}
    _flatten_into(flat, "", nested, delimiter, (list, tuple) if flatten_list else ())
    return flat


def _flatten_into(flat: dict[str, Any], prefix: str, nested: Any, delimiter: str, sequences: tuple[type, ...]) -> None:
    items = nested.items() if isinstance(nested, Mapping) else enumerate(nested)
    for key, value in items:
        name = f"{prefix}{key}"
        if isinstance(value, (dict, *sequences)) and value:
            _flatten_into(flat, f"{name}{delimiter}", value, delimiter, sequences)
        else:
            flat[name] = value


def unflatten(flat: Mapping[str, Any], delimiter: str = "/") -> dict[str, Any]:
    """Make nested dicts of flat names: the inverse of :func:`flatten`, but for lists, which become dicts.

    Raises
    ------
    ValueError
        If one name is a value and a prefix of another one.

    Examples
    --------
    >>> unflatten({"model/lr": 0.1, "seed": 3})
    {'model': {'lr': 0.1}, 'seed': 3}
    """
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(delimiter)
        node = nested
        for key in parents:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name!r} needs {key!r} to be a dict, but another name makes it the value {node!r}.")
        if last in node:
            raise ValueError(f"{name!r} is a value and the prefix of other names: {sorted(node[last])}.")
        node[last] = copy_containers(value)
    return nested


def lookup(nested: Mapping[str, Any], name: str, default: Any = None, delimiter: str = "/") -> Any:
    """The value under a name, flat or nested: ``lookup({"eval": {"loss": 1}}, "eval/loss")``."""
    if name in nested:
        return nested[name]
    node: Any = nested
    for key in name.split(delimiter):
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif isinstance(node, (list, tuple)) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return default
    return node


def merge(base: Any, update: Any) -> Any:
    """``base`` with the values of ``update`` put over it, nested; neither is changed.

    Where ``base`` holds a list or tuple and ``update`` a dict of its indices (as ints or their digits), the elements
    are replaced.

    Examples
    --------
    >>> merge({"a": {"b": 1, "c": [1, 2]}}, {"a": {"b": 2, "c": {"0": 5}}})
    {'a': {'b': 2, 'c': [5, 2]}}
    """
    if isinstance(base, dict) and isinstance(update, dict):
        keys = {str(key): key for key in base}  # flat names turn keys such as 1 into "1"
        update = {key if key in base else keys.get(str(key), key): item for key, item in update.items()}
        merged = {
            key: merge(item, update[key]) if key in update else copy_containers(item) for key, item in base.items()
        }
        merged.update({key: copy_containers(item) for key, item in update.items() if key not in base})
        return merged
    if isinstance(base, (list, tuple)) and isinstance(update, dict) and update and _are_indices(update, len(base)):
        items = [copy_containers(item) for item in base]
        for key, value in update.items():
            items[int(key)] = merge(items[int(key)], value)
        return rebuild_tuple(base, items) if isinstance(base, tuple) else items
    return copy_containers(update)


def _are_indices(keys: Mapping[Any, Any], length: int) -> bool:
    return all(
        (isinstance(key, int) or (isinstance(key, str) and key.isdigit())) and 0 <= int(key) < length for key in keys
    )

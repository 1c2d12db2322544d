"""Nested dicts: flat and back, merged, searched."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "deep_update",
    "flatten_dict",
    "merge_dicts",
    "unflatten_dict",
    "unflatten_list_dict",
    "unflattened_lookup",
]

_NOTHING = object()


def flatten_dict(
    dt: dict[str, Any], delimiter: str = "/", prevent_delimiter: bool = False, flatten_list: bool = False
) -> dict[str, Any]:
    """Flatten a nested dict.

    Parameters
    ----------
    dt : dict
        Not changed.
    delimiter : str, default='/'
        Put between the keys of a path.
    prevent_delimiter : bool, default=False
        Refuse keys that hold the delimiter, which could not be told apart from paths.
    flatten_list : bool, default=False
        Whether lists count as nested too.

    Returns
    -------
    dict
        Of the type of `dt`. Empty dicts, and empty lists with `flatten_list`, are left out.

    Raises
    ------
    ValueError
        If a key holds the delimiter, with `prevent_delimiter`.

    Examples
    --------
    >>> flatten_dict({"model": {"lr": 0.1, "layers": [2, 3]}}, flatten_list=True)
    {'model/lr': 0.1, 'model/layers/0': 2, 'model/layers/1': 3}
    """
    flat = type(dt)()
    for path, value in _leaves(dt, (dict, list) if flatten_list else (dict,)):
        if prevent_delimiter:
            for key in path:
                if delimiter in str(key):
                    raise ValueError(f"The key {key!r} holds the delimiter {delimiter!r}: rename it, or give another.")
        flat[path[0] if len(path) == 1 else delimiter.join(map(str, path))] = value
    return flat


def _leaves(value: Any, nested: tuple[type, ...], path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if path and not isinstance(value, nested):
        yield path, value
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(inner, nested, (*path, key))


def unflatten_dict(dt: dict[str, Any], delimiter: str = "/") -> dict[str, Any]:
    """Make a nested dict of a flat one: the inverse of :func:`flatten_dict`, but for lists.

    Parameters
    ----------
    dt : dict
    delimiter : str, default='/'

    Returns
    -------
    dict
        Of the type of `dt`, as those within it.

    Raises
    ------
    TypeError
        If a key stands for a value and is the beginning of another key.

    Examples
    --------
    >>> unflatten_dict({"model/lr": 0.1, "model/layers": 2, "seed": 3})
    {'model': {'lr': 0.1, 'layers': 2}, 'seed': 3}
    """
    kind = type(dt)
    nested = kind()
    made = {id(nested)}
    for key, value in dt.items():
        *parents, last = key.split(delimiter)
        node = nested
        for parent in parents:
            if parent not in node:
                node[parent] = kind()
                made.add(id(node[parent]))
            node = node[parent]
            if id(node) not in made:
                raise TypeError(f"The key {key!r} needs {parent!r} to be a dict, but another key makes it {node!r}.")
        if last in node:
            raise TypeError(f"The key {key!r} is a value and the beginning of other keys.")
        node[last] = value
    return nested


def unflatten_list_dict(dt: dict[str, Any], delimiter: str = "/") -> Any:
    """Make nested dicts and lists of a flat dict: the inverse of ``flatten_dict(..., flatten_list=True)``.

    Parameters
    ----------
    dt : dict
        Keys that are numbers stand for positions of lists, which must be complete.
    delimiter : str, default='/'

    Returns
    -------
    dict or list

    Raises
    ------
    TypeError
        If a key stands for a value and is the beginning of another key.
    ValueError
        If positions of a list are missing.

    Examples
    --------
    >>> unflatten_list_dict({"layers/0/size": 12, "layers/1/size": 56, "seed": 3})
    {'layers': [{'size': 12}, {'size': 56}], 'seed': 3}
    """
    leaves: set[int] = {id(value) for value in dt.values() if isinstance(value, dict)}
    return _with_lists(unflatten_dict(dt, delimiter), leaves, "")


def _with_lists(node: Any, leaves: set[int], path: str) -> Any:
    if not isinstance(node, dict) or id(node) in leaves:
        return node
    built = {key: _with_lists(value, leaves, f"{path}{key}/") for key, value in node.items()}
    if not built or not all(key.isdigit() for key in built):
        return type(node)(built)
    by_position = {int(key): value for key, value in built.items()}
    if sorted(by_position) != list(range(len(built))):
        raise ValueError(f"The list {path.rstrip('/')!r} lacks elements: there are {sorted(by_position)}.")
    return [by_position[position] for position in range(len(built))]


def merge_dicts(d1: dict[str, Any], d2: dict[str, Any]) -> dict[str, Any]:
    """A new dict with the values of `d2` put over a deep copy of `d1`, nested.

    Parameters
    ----------
    d1, d2 : dict
        Not changed.

    Returns
    -------
    dict

    Examples
    --------
    >>> merge_dicts({"model": {"lr": 0.1, "layers": 2}}, {"model": {"lr": 0.5}, "seed": 3})
    {'model': {'lr': 0.5, 'layers': 2}, 'seed': 3}
    """
    return deep_update(copy.deepcopy(d1), d2, new_keys_allowed=True)


def deep_update(
    original: dict[str, Any],
    new_dict: Mapping[str, Any],
    new_keys_allowed: bool = False,
    allow_new_subkey_list: Sequence[str] | None = None,
    override_all_if_type_changes: Sequence[str] | None = None,
    override_all_key_list: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Put the values of a dict over those of another one, nested.

    Parameters
    ----------
    original : dict
        Changed.
    new_dict : dict
    new_keys_allowed : bool, default=False
        Whether `new_dict` may have keys that `original` lacks.
    allow_new_subkey_list : list of str, optional
        Keys of the first level below which there may be new ones all the same.
    override_all_if_type_changes : list of str, optional
        Keys of the first level whose dict is replaced as a whole where its ``"type"`` changes.
    override_all_key_list : list of str, optional
        Keys whose dict is replaced as a whole.

    Returns
    -------
    dict
        `original`.

    Raises
    ------
    ValueError
        If a key is new that may not be.

    Examples
    --------
    >>> deep_update({"model": {"lr": 0.1, "layers": 2}}, {"model": {"lr": 0.5}})
    {'model': {'lr': 0.5, 'layers': 2}}
    """
    for key, value in new_dict.items():
        if key not in original and not new_keys_allowed:
            raise ValueError(f"Unknown key {key!r}: there are {', '.join(map(repr, original)) or 'none'}.")
        old = original.get(key)
        if not (isinstance(old, dict) and isinstance(value, dict)):
            original[key] = value
            continue
        of_another_type = "type" in old and "type" in value and old["type"] != value["type"]
        if key in (override_all_key_list or ()) or (of_another_type and key in (override_all_if_type_changes or ())):
            original[key] = value
        else:
            allowed = new_keys_allowed or key in (allow_new_subkey_list or ())
            deep_update(old, value, allowed, override_all_key_list=override_all_key_list)
    return original


def unflattened_lookup(flat_key: str, lookup: Any, delimiter: str = "/", default: Any = _NOTHING) -> Any:
    """The value under a path, such as ``lookup["a"][0]["b"]`` for ``"a/0/b"``.

    Parameters
    ----------
    flat_key : str
    lookup : dict or list
        Nested, or with `flat_key` itself for a key.
    delimiter : str, default='/'
    default : object, optional
        Returned where there is no such value.

    Returns
    -------
    object

    Raises
    ------
    KeyError
        If there is no such value, and no `default`.

    Examples
    --------
    >>> unflattened_lookup("eval/losses/1", {"eval": {"losses": [0.3, 0.2]}})
    0.2
    """
    if isinstance(lookup, Mapping) and flat_key in lookup:
        return lookup[flat_key]
    node = lookup
    for key in flat_key.split(delimiter):
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif isinstance(node, Sequence) and not isinstance(node, str) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        elif default is not _NOTHING:
            return default
        else:
            raise KeyError(flat_key)
    return node

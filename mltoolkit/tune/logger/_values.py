"""Results as files want them: flat, and in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["flatten", "jsonable", "step_of", "to_json"]


def flatten(values: Mapping[Any, Any], delimiter: str = "/") -> dict[str, Any]:
    """Nested keys joined, level by level: plain ones first, then those of the first level of nesting.

    Examples
    --------
    >>> flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3})
    {'e': 3, 'a/b': 1, 'a/c/d': 2}
    """
    flat: dict[str, Any] = {}
    level: list[tuple[str, Mapping[Any, Any]]] = [("", values)]
    while level:
        below: list[tuple[str, Mapping[Any, Any]]] = []
        for prefix, nested in level:
            for key, value in nested.items():
                name = f"{prefix}{key}"
                if isinstance(value, dict):
                    below.append((f"{name}{delimiter}", value))
                else:
                    flat[name] = value
        level = below
    return flat


def to_json(value: Any, **options: Any) -> str:
    """JSON text of ``value``; arrays become lists, and what JSON cannot express becomes its string.

    Examples
    --------
    >>> to_json({"activation": complex(1, 2), 3: (4, 5)})
    '{"activation": "(1+2j)", "3": [4, 5]}'
    """
    try:
        return json.dumps(value, default=_fallback, **options)
    except (TypeError, ValueError, RecursionError):  # keys that are no strings, or a cycle
        return json.dumps(jsonable(value), default=_fallback, **options)


def jsonable(value: Any, _above: tuple[int, ...] = ()) -> Any:
    """A copy of nested values of which every key is a string and no part contains itself."""
    if isinstance(value, (dict, list, tuple)):
        if id(value) in _above:
            return "..."
        above = (*_above, id(value))
        if isinstance(value, dict):
            return {str(key): jsonable(entry, above) for key, entry in value.items()}
        return [jsonable(entry, above) for entry in value]
    return value


def _fallback(value: Any) -> Any:
    tolist = getattr(value, "tolist", None)  # arrays and scalars of numpy, tensors of torch
    if callable(tolist):
        try:
            return tolist()
        except Exception:  # such as a tensor that has no storage: its text must do
            return str(value)
    return str(value)


def step_of(result: Mapping[str, Any]) -> int:
    """Where on the time axis a result stands: its time steps if it counts them, else its iteration."""
    step = result.get("timesteps_total") or result.get("training_iteration")
    return int(step) if step is not None else 0

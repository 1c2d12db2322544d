"""Metrics by name."""

from __future__ import annotations

from typing import Any

__all__ = ["lookup"]


def lookup(result: dict[str, Any], name: str, default: Any = None) -> Any:
    """A metric of a result, ``"a/b"`` for a nested one.

    Examples
    --------
    >>> lookup({"eval": {"loss": 0.5}}, "eval/loss")
    0.5
    """
    if name in result:
        return result[name]
    value: Any = result
    for part in name.split("/"):
        if not isinstance(value, dict) or part not in value:
            return default
        value = value[part]
    return value

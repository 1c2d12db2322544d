"""Names of what was chosen: flat names, and the tags of trials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["flatten_resolved_vars", "format_path", "format_vars", "path_key"]

Path = tuple[Any, ...]

_UNTAGGED = {("run",), ("env",), ("resources_per_trial",)}
_NOT_IN_TAGS = re.compile(r"[^a-zA-Z0-9_-]+")


def format_path(path: Path) -> str:
    """The flat name of a path: ``"model/layers/0"``. A leading ``config`` is left out."""
    return "/".join(map(str, path[1:] if len(path) > 1 and path[0] == "config" else path))


def flatten_resolved_vars(resolved_vars: Mapping[Path, Any]) -> dict[str, Any]:
    """Chosen values under flat names (``"model/lr"``)."""
    return {format_path(path): value for path, value in resolved_vars.items()}


def format_vars(resolved_vars: Mapping[Any, Any]) -> str:
    """Chosen values as the tag of a trial, fit for the name of a file.

    Parameters
    ----------
    resolved_vars : dict
        By path (tuples) or by flat name (``"model/lr"``).

    Returns
    -------
    str
        The last part of each name with its value, ordered by path, floats with four decimals. May be empty.

    Examples
    --------
    >>> format_vars({("config", "model", "lr"): 0.1, ("config", "act"): "re/lu"})
    'act=re_lu,lr=0.1000'
    >>> format_vars({"model/lr": 0.1, "act": "re/lu"})
    'act=re_lu,lr=0.1000'
    """
    by_path = {_as_path(name): value for name, value in resolved_vars.items()}
    return ",".join(
        f"{_clean(path[-1])}={_clean(by_path[path])}" for path in sorted(by_path, key=path_key) if path not in _UNTAGGED
    )


def _clean(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return _NOT_IN_TAGS.sub("_", str(value)).strip("_")


def _as_path(name: Any) -> Path:
    if isinstance(name, tuple):
        return name
    return tuple(int(part) if part.isdigit() else part for part in str(name).split("/"))


def path_key(path: Path) -> list[tuple[int, Any]]:
    """Orders paths whose keys are of different types."""
    return [
        (0, part) if isinstance(part, (int, float)) else (1, part) if isinstance(part, str) else (2, repr(part))
        for part in path
    ]

"""Gymnasium's spaces as data that JSON holds."""

from __future__ import annotations

import math
from typing import Any

from mltoolkit._optional import require

__all__ = ["is_space", "space_from_data", "space_to_data"]

_KINDS = ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple")


def _spaces() -> Any:
    return require("gymnasium.spaces", purpose="A configuration with spaces", extra="rllib")


def is_space(value: Any) -> bool:
    """Whether a value is a space of gymnasium's, without importing gymnasium."""
    return any(base.__name__ == "Space" and base.__module__ == "gymnasium.spaces.space" for base in type(value).__mro__)


def space_to_data(space: Any) -> dict[str, Any] | None:
    """Describe a space.

    Parameters
    ----------
    space : gymnasium.Space

    Returns
    -------
    dict or None
        None for kinds other than Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple. The space's own random
        generator is left out.

    Examples
    --------
    >>> from gymnasium.spaces import Discrete
    >>> space_to_data(Discrete(3))
    {'kind': 'Discrete', 'n': 3, 'start': 0, 'dtype': 'int64'}
    """
    kind = type(space).__name__
    if kind not in _KINDS or type(space).__module__.partition(".")[0] != "gymnasium":
        return None
    if kind == "Box":
        return {
            "kind": kind,
            "low": _bound_to_data(space.low),
            "high": _bound_to_data(space.high),
            "shape": list(space.shape),
            "dtype": space.dtype.name,
        }
    if kind == "Discrete":
        return {"kind": kind, "n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}
    if kind == "MultiDiscrete":
        return {
            "kind": kind,
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": space.dtype.name,
        }
    if kind == "MultiBinary":
        return {"kind": kind, "n": list(space.shape)}
    named = list(space.spaces.items()) if kind == "Dict" else [(None, each) for each in space.spaces]
    inner = [(name, space_to_data(each)) for name, each in named]
    if any(data is None for _, data in inner):
        return None
    # A list of pairs: JSON sorts or not, but keys that are no strings it would change.
    return {"kind": kind, "spaces": [[name, data] for name, data in inner] if kind == "Dict" else [d for _, d in inner]}


def space_from_data(data: dict[str, Any]) -> Any:
    """Make the space that `space_to_data` described.

    Raises
    ------
    ValueError
        If the data describe no space.

    Examples
    --------
    >>> space_from_data({"kind": "Discrete", "n": 3, "start": 0, "dtype": "int64"})
    Discrete(3)
    """
    import numpy as np

    spaces = _spaces()
    try:
        kind = data["kind"]
        if kind == "Box":
            dtype = np.dtype(data["dtype"])
            shape = tuple(data["shape"])
            low, high = (_bound_from_data(data[name], shape, dtype) for name in ("low", "high"))
            return spaces.Box(low, high, shape, dtype)
        if kind == "Discrete":
            return spaces.Discrete(data["n"], start=data["start"], dtype=np.dtype(data["dtype"]))
        if kind == "MultiDiscrete":
            return spaces.MultiDiscrete(np.array(data["nvec"]), dtype=np.dtype(data["dtype"]), start=data["start"])
        if kind == "MultiBinary":
            shape = tuple(data["n"])
            return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
        if kind == "Dict":
            return spaces.Dict([(name, space_from_data(each)) for name, each in data["spaces"]])
        if kind == "Tuple":
            return spaces.Tuple([space_from_data(each) for each in data["spaces"]])
    except (KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"These data describe no space: {data!r}.") from error
    raise ValueError(f"These data describe no space: {data!r}. Kinds are {', '.join(_KINDS)}.")


def _bound_to_data(bound: Any) -> Any:
    """One number where all are the same, as in images; infinities as strings, which JSON has no numbers for."""
    if bound.size and (bound == bound.flat[0]).all():
        return _number_to_data(bound.flat[0].item())
    return [_number_to_data(each) for each in bound.ravel().tolist()]


def _number_to_data(value: float) -> Any:
    return value if math.isfinite(value) else repr(value)


def _bound_from_data(data: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    import numpy as np

    if isinstance(data, list):
        return np.array([float(each) if isinstance(each, str) else each for each in data], dtype).reshape(shape)
    return np.full(shape, float(data) if isinstance(data, str) else data, dtype)

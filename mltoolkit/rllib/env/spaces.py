"""Which spaces are supported, and whether observations lie in theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mltoolkit._optional import require
from mltoolkit.rllib.env.errors import InvalidObservationError, UnsupportedSpaceError

__all__ = [
    "NestedObservationChecker",
    "check_action_space",
    "check_observation_space",
    "check_observations",
    "is_array_space",
    "to_gymnasium_space",
]

#: Observations may leave their bounds by this much, relative to the bound: float32 against float64.
TOLERANCE = 1e-4


def _spaces() -> Any:
    return require("gymnasium", purpose="mltoolkit.rllib", extra="rllib").spaces


def to_gymnasium_space(space: Any) -> Any:
    """The gymnasium space of the same meaning as one of the older ``gym`` package; others are returned unchanged.

    Parameters
    ----------
    space : Space of gymnasium or of gym

    Returns
    -------
    Space of gymnasium, or what was given
    """
    spaces = _spaces()
    if isinstance(space, spaces.Space) or type(space).__module__.partition(".")[0] != "gym":
        return space
    kind = type(space).__name__
    if kind == "Box":
        return spaces.Box(np.asarray(space.low), np.asarray(space.high), dtype=np.dtype(space.dtype).type)
    if kind == "Discrete":
        return spaces.Discrete(int(space.n), start=int(getattr(space, "start", 0)))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.asarray(space.nvec))
    if kind == "MultiBinary":
        return spaces.MultiBinary(space.n)
    if kind == "Tuple":
        return spaces.Tuple([to_gymnasium_space(part) for part in space.spaces])
    if kind == "Dict":
        return spaces.Dict({key: to_gymnasium_space(part) for key, part in space.spaces.items()})
    return space


def is_array_space(space: Any) -> bool:
    """Whether a batch of its elements is one array: Box, Discrete, MultiDiscrete and MultiBinary."""
    spaces = _spaces()
    return isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary))


def check_observation_space(space: Any, name: str) -> None:
    """Refuse observation spaces that cannot be turned into numbers of one shape.

    Parameters
    ----------
    space : Space
    name : str
        The environment's name, for the error.

    Raises
    ------
    UnsupportedSpaceError
        Naming the space, the part of it that is not supported, and what is.
    """
    part = _unsupported_part(space, "")
    if part:
        raise UnsupportedSpaceError(
            f"The observation space of environment {name} is not supported: {part}. Supported: Box, Discrete, "
            "MultiDiscrete, MultiBinary, and Dict and Tuple of these. Turn the observations into one of them, for "
            "instance with `gymnasium.wrappers.TransformObservation`."
        )


def check_action_space(space: Any, name: str) -> None:
    """Refuse action spaces for which there is no distribution.

    Parameters
    ----------
    space : Space
    name : str
        The environment's name, for the error.

    Raises
    ------
    UnsupportedSpaceError
        Naming the space and what is supported.
    """
    spaces = _spaces()
    hint = "Translate the actions with `gymnasium.ActionWrapper`."
    if isinstance(space, spaces.Box):
        if space.dtype.kind == "f" and space.shape is not None and int(np.prod(space.shape)) > 0:
            return
        hint = "For integers take `gymnasium.spaces.MultiDiscrete`."
    elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return
    raise UnsupportedSpaceError(
        f"The action space of environment {name} is not supported: {space!r}. Supported: Discrete, MultiDiscrete, "
        f"MultiBinary, and Box of floating-point numbers. {hint}"
    )


def _unsupported_part(space: Any, path: str) -> str:
    spaces = _spaces()
    where = f" at {path}" if path else ""
    if isinstance(space, spaces.Dict):
        parts = ((f"{path}[{key!r}]", part) for key, part in space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        parts = ((f"{path}[{index}]", part) for index, part in enumerate(space.spaces))
    elif isinstance(space, spaces.Box) and (space.dtype.kind not in "biuf" or int(np.prod(space.shape)) == 0):
        return f"{space!r}{where}, of shape {space.shape} and dtype {space.dtype}"
    elif is_array_space(space):
        return ""
    elif isinstance(space, dict):
        return f"{space!r}{where} is a plain dictionary, not a space; take `gymnasium.spaces.Dict`"
    else:
        return f"{space!r}{where}"
    return next((text for text in (_unsupported_part(part, at) for at, part in parts) if text), "")


def check_observations(
    observations: Any, space: Any, *, name: str = "", when: Callable[[int], str] = "at step {}".format
) -> None:
    """Check that observations are finite and inside their space, all at once.

    Parameters
    ----------
    observations : ndarray of shape (T, N, *space.shape)
        Of ``T`` steps of ``N`` environments.
    space : Box, Discrete, MultiDiscrete or MultiBinary
    name : str, optional
        The environment's name, for the error.
    when : callable, optional
        Puts the row of an observation into words, for the error.

    Raises
    ------
    InvalidObservationError
        Naming environment, step, the value given and the bounds. Bounds may be left by 1e-4 of their size.

    Examples
    --------
    >>> import numpy as np
    >>> from gymnasium.spaces import Box
    >>> check_observations(np.zeros((8, 2, 3)), Box(-1.0, 1.0, (3,)))
    """
    bad = _outside(observations, space)
    if bad is None:
        return
    row, env_index, *position = (int(i) for i in np.argwhere(bad)[0])
    value = observations[(row, env_index, *position)]
    raise invalid_observation(value, space, tuple(position), name=name, env_index=env_index, when=when(row))


def _outside(observations: Any, space: Any) -> Any:
    """Where elements are not finite or out of bounds; None if nowhere."""
    spaces = _spaces()
    bad = None
    if observations.dtype.kind == "f" and not np.isfinite(observations).all():
        return ~np.isfinite(observations)
    if isinstance(space, spaces.Box):
        if observations.dtype == space.dtype and _covers_dtype(space):
            return None
        low, high = _loosened(space)
        bad = (observations < low) | (observations > high)
    elif isinstance(space, spaces.Discrete):
        bad = (observations < space.start) | (observations >= space.start + space.n)
    elif isinstance(space, spaces.MultiDiscrete):
        bad = (observations < space.start) | (observations >= space.start + space.nvec)
    elif isinstance(space, spaces.MultiBinary):
        bad = (observations != 0) & (observations != 1)
    return bad if bad is not None and bad.any() else None


def _loosened(space: Any) -> tuple[Any, Any]:
    if space.dtype.kind != "f":
        return space.low, space.high
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    # Bounds of zero need an absolute tolerance too.
    return low - TOLERANCE * np.maximum(np.abs(low), 1.0), high + TOLERANCE * np.maximum(np.abs(high), 1.0)


def _covers_dtype(space: Any) -> bool:
    if space.dtype.kind == "b":
        return True
    if space.dtype.kind == "f":
        return bool(np.isneginf(space.low).all() and np.isposinf(space.high).all())
    limits = np.iinfo(space.dtype)
    return bool((space.low <= limits.min).all() and (space.high >= limits.max).all())


def invalid_observation(
    value: Any, space: Any, position: tuple[int, ...], *, name: str, env_index: int, when: str
) -> InvalidObservationError:
    """The error for one element of an observation."""
    spaces = _spaces()
    if isinstance(space, spaces.Box):
        allowed = f"{space.low[position]!s} to {space.high[position]!s}"
    elif isinstance(space, spaces.Discrete):
        allowed = f"{space.start} to {space.start + space.n - 1}"
    elif isinstance(space, spaces.MultiDiscrete):
        allowed = f"{space.start[position]} to {space.start[position] + space.nvec[position] - 1}"
    else:
        allowed = "0 and 1"
    where = f" at index {list(position)}" if position else ""
    finite = "" if np.isfinite(value) else ", and only finite numbers"
    return InvalidObservationError(
        f"Environment {env_index}{f' ({name})' if name else ''} gave an observation outside its space {when}: "
        f"{value!s}{where}. "
        f"The space allows {allowed} there{finite}: {space!r}. Correct the environment or its "
        "`observation_space`; `disable_env_checking=True` lets such values through.",
        env_index=env_index,
    )


class NestedObservationChecker:
    """Checks single observations of a Dict or Tuple space: structure, shapes and values.

    Faster than ``space.contains`` and says what is wrong where.

    Parameters
    ----------
    space : Dict or Tuple
    name : str
        The environment's name.
    """

    def __init__(self, space: Any, name: str) -> None:
        self._space = space
        self._name = name

    def __call__(self, observation: Any, env_index: int, step: int) -> None:
        """Raise InvalidObservationError unless ``observation`` is an element of the space."""
        self._check(observation, self._space, "", env_index, step)

    def _check(self, value: Any, space: Any, path: str, env_index: int, step: int) -> None:
        spaces = _spaces()
        if isinstance(space, spaces.Dict):
            if not isinstance(value, dict) or value.keys() != space.spaces.keys():
                given = (
                    f"the keys {sorted(map(str, value))}" if isinstance(value, dict) else f"a {type(value).__name__}"
                )
                self._refuse(
                    path, f"{given}, where a dictionary of {sorted(map(str, space.spaces))} belongs", env_index, step
                )
            for key, part in space.spaces.items():
                self._check(value[key], part, f"{path}[{key!r}]", env_index, step)
        elif isinstance(space, spaces.Tuple):
            if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
                given = f"{len(value)} parts" if isinstance(value, (tuple, list)) else f"a {type(value).__name__}"
                self._refuse(path, f"{given}, where a tuple of {len(space.spaces)} belongs", env_index, step)
            for index, part in enumerate(space.spaces):
                self._check(value[index], part, f"{path}[{index}]", env_index, step)
        else:
            array = np.asarray(value)
            shape = space.shape if space.shape is not None else ()
            if array.shape != shape or array.dtype.kind not in "biuf":
                given = f"an array of shape {array.shape} and dtype {array.dtype}"
                self._refuse(path, f"{given}, where shape {shape} of {space!r} belongs", env_index, step)
            bad = _outside(array, space)
            if bad is not None:
                position = tuple(int(i) for i in np.argwhere(bad)[0])
                raise invalid_observation(
                    array[position],
                    space,
                    position,
                    name=f"{self._name}{path}",
                    env_index=env_index,
                    when=f"at step {step}",
                )

    def _refuse(self, path: str, problem: str, env_index: int, step: int) -> None:
        where = f" at {path}" if path else ""
        raise InvalidObservationError(
            f"Environment {env_index} ({self._name}) gave an observation that its space does not allow at step {step}: "
            f"{problem}{where}. The space is {self._space!r}.",
            env_index=env_index,
            step=step,
        )

"""Observations of any supported space as vectors."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2, Step

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["FlattenObservations", "encoder"]

# Writes a batch of leaves, shape (n, *leaf shape), into the columns of an array (n, size).
_Write = Callable[[np.ndarray, np.ndarray], None]


class FlattenObservations(ConnectorV2):
    """Turn observations into float32 vectors.

    Discrete and MultiDiscrete become one-hot, MultiBinary zeros and ones, Boxes of any dtype and shape (images included)
    are flattened without scaling, Dict and Tuple become the concatenation of their parts in the space's order.

    Parameters
    ----------
    input_observation_space, input_action_space : gymnasium.spaces.Space, optional
        Set by the pipeline if left out.
    multi_agent, as_learner_connector : bool, default=False
        True is not supported.
    agent_ids : collection, optional
        Of multi-agent environments; not supported.
    keys_to_remove : collection of str, optional
        Keys of a Dict space to leave out.

    Raises
    ------
    NotImplementedError
        For multi-agent and learner pipelines.
    ValueError
        For spaces that cannot be flattened, and keys that the space does not have.

    Examples
    --------
    >>> from gymnasium.spaces import Box, Dict, Discrete
    >>> flatten = FlattenObservations(Dict({"cell": Discrete(3), "speed": Box(-1, 1, (1,))}))
    >>> flatten([{"cell": 2, "speed": np.array([0.5])}], Step(1))
    array([[0. , 0. , 1. , 0.5]], dtype=float32)
    """

    uses_previous = False

    def __init__(
        self,
        input_observation_space: Space | None = None,
        input_action_space: Space | None = None,
        *,
        multi_agent: bool = False,
        agent_ids: Collection[Any] | None = None,
        as_learner_connector: bool = False,
        keys_to_remove: Collection[str] | None = None,
        **kwargs: Any,
    ) -> None:
        refuse_unsupported(
            self, multi_agent=multi_agent, agent_ids=agent_ids, as_learner_connector=as_learner_connector
        )
        self._keys_to_remove = tuple(keys_to_remove or ())
        self._parts: list[tuple[_spaces.Path, Space, slice, _Write]] = []
        self._out: np.ndarray = np.empty((0, 0), dtype=np.float32)
        super().__init__(input_observation_space, input_action_space, **kwargs)

    def recompute_output_observation_space(
        self, input_observation_space: Space, input_action_space: Space | None
    ) -> Space:
        """A Box of one axis."""
        self._parts = []
        start = 0
        lows: list[np.ndarray] = []
        highs: list[np.ndarray] = []
        for path, leaf in _spaces.leaves(self._without_removed(input_observation_space)):
            low, high, write = encoder(leaf)
            self._parts.append((path, leaf, slice(start, start + low.size), write))
            start += low.size
            lows.append(low)
            highs.append(high)
        if not start:
            raise ValueError(f"the space {input_observation_space} holds nothing to observe.")
        self._out = np.empty((0, start), dtype=np.float32)
        return _spaces.box(np.concatenate(lows), np.concatenate(highs), (start,))

    def _without_removed(self, space: Space) -> Space:
        if not self._keys_to_remove:
            return space
        known = _spaces.spaces()
        if not isinstance(space, known.Dict):
            raise ValueError(f"`keys_to_remove` needs observations of a Dict space, got {_spaces.describe(space)}.")
        missing = [key for key in self._keys_to_remove if key not in space.spaces]
        if missing:
            raise ValueError(
                f"`keys_to_remove` names {missing!r}, which the observation space does not have; it has {list(space.spaces)!r}."
            )
        return known.Dict({key: inner for key, inner in space.spaces.items() if key not in self._keys_to_remove})

    def __call__(self, observations: Any, step: Step) -> Any:
        """Flatten; gives a float32 array of shape (N, n_features) that the next call writes to.

        Raises
        ------
        ValueError
            If an observation is not of its space; it and the part are named.
        """
        n = len(observations)
        if len(self._out) != n:
            self._out = np.empty((n, self._out.shape[1]), dtype=np.float32)
        out = self._out
        for path, leaf, columns, write in self._parts:
            try:
                batch = observations if not path else np.array([_spaces.get_leaf(one, path) for one in observations])
                write(batch, out[:, columns])
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise _misfit(observations, path, leaf, error) from error
        return out


def refuse_unsupported(connector: ConnectorV2, **given: Any) -> None:
    """Raise ``NotImplementedError`` for parameters that are not at their default."""
    for name, value in given.items():
        if value:
            raise NotImplementedError(
                f"{type(connector).__name__}({name}={value!r}) is not supported: connectors work on the observations of one "
                f"agent, on their way from the environment to the module. Leave `{name}` out."
            )


def encoder(space: Space) -> tuple[np.ndarray, np.ndarray, _Write]:
    """How elements of an array space are written as numbers: lowest and highest value of each column, and the writer."""
    known = _spaces.spaces()
    if isinstance(space, known.Discrete):
        return _one_hot(np.array([space.n]), np.array([space.start]))
    if isinstance(space, known.MultiDiscrete):
        return _one_hot(np.ravel(space.nvec), np.ravel(space.start))
    if isinstance(space, known.MultiBinary):
        size = int(np.prod(space.shape))
        return np.zeros(size, np.float32), np.ones(size, np.float32), _write_numbers
    with np.errstate(over="ignore"):  # bounds of float64 that float32 does not reach
        low: np.ndarray = np.ravel(space.low).astype(np.float32)
        high: np.ndarray = np.ravel(space.high).astype(np.float32)
    return low, high, _write_numbers


def _write_numbers(batch: np.ndarray, out: np.ndarray) -> None:
    out[...] = batch.reshape(out.shape)


def _one_hot(counts: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Write]:
    counts = counts.astype(np.int64)
    size = int(counts.sum())
    # Column of each component's first value.
    firsts = np.cumsum(counts) - counts - starts
    single = len(counts) == 1

    def write(batch: np.ndarray, out: np.ndarray) -> None:
        index = batch.reshape(len(out), len(counts))
        if index.dtype.kind not in "iub":
            index = _whole(index)
        relative = index - starts
        if (relative < 0).any() or (relative >= counts).any():
            raise ValueError("out of range")
        out[...] = 0.0
        if single:
            out[np.arange(len(out)), relative[:, 0]] = 1.0
        else:
            np.put_along_axis(out, index + firsts, 1.0, axis=1)

    return np.zeros(size, np.float32), np.ones(size, np.float32), write


def _whole(index: np.ndarray) -> np.ndarray:
    whole: np.ndarray = index.astype(np.int64)
    if not (whole == index).all():
        raise ValueError("no whole number")
    return whole


def _misfit(observations: Any, path: _spaces.Path, leaf: Space, error: Exception) -> ValueError:
    """Which observation is not of its space, looked for after the fact."""
    shape = _spaces.array_shape(leaf)
    where = f" at {list(path)!r}" if path else ""
    for index, observation in enumerate(observations):
        try:
            part = _spaces.get_leaf(observation, path)
        except (KeyError, IndexError, TypeError):
            return ValueError(
                f"the observation of environment {index} has nothing{where}, where its space has {_spaces.describe(leaf)}; "
                f"got {observation!r}."
            )
        if np.shape(part) != shape or not leaf.contains(np.asarray(part, dtype=leaf.dtype)):
            return ValueError(
                f"the observation of environment {index} is outside of its space{where}: expected {_spaces.describe(leaf)}, "
                f"got {part!r}."
            )
    return ValueError(f"observations{where} cannot be flattened as {_spaces.describe(leaf)}: {error}.")

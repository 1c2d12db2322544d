"""What connectors need to know about spaces. gymnasium is imported in functions: connectors load without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit import _optional

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = [
    "Path",
    "array_shape",
    "box",
    "describe",
    "get_leaf",
    "is_array_space",
    "is_box",
    "is_image",
    "leaves",
    "map_leaves",
    "nest",
    "spaces",
    "to_batch",
    "vector_utils",
]

Path = tuple[Any, ...]


def spaces() -> Any:
    """The module ``gymnasium.spaces``."""
    return _optional.require("gymnasium.spaces", purpose="Reinforcement learning", extra="rllib")


def vector_utils() -> Any:
    """The module ``gymnasium.vector.utils``."""
    return _optional.require("gymnasium.vector.utils", purpose="Reinforcement learning", extra="rllib")


def box(low: Any, high: Any, shape: Sequence[int], dtype: Any = np.float32) -> Any:
    """A Box of `shape`; bounds that `dtype` does not reach become infinite."""
    with np.errstate(over="ignore"):
        low, high = (np.broadcast_to(np.asarray(bound).astype(dtype), tuple(shape)) for bound in (low, high))
    return spaces().Box(low, high, dtype=dtype)


def is_box(space: Space) -> bool:
    """Whether it is a Box."""
    return isinstance(space, spaces().Box)


def is_image(space: Space) -> bool:
    """Whether modules take it as an image: a Box of three axes, channels last, or of bytes 0 to 255 on two."""
    if not is_box(space) or space.shape is None:
        return False
    if len(space.shape) == 3:
        return True
    return (
        len(space.shape) == 2 and space.dtype == np.uint8 and bool((space.low == 0).all() and (space.high == 255).all())
    )


def is_array_space(space: Space) -> bool:
    """Whether the observations of many environments form one array."""
    known = spaces()
    return isinstance(space, (known.Box, known.Discrete, known.MultiDiscrete, known.MultiBinary))


def array_shape(space: Space) -> tuple[int, ...]:
    """The shape of one element of an array space."""
    return tuple(space.shape or ())


def describe(space: Space) -> str:
    """A space in a few words, for messages: bounds of many entries are left out."""
    if is_box(space):
        return f"Box(shape={space.shape}, dtype={space.dtype})"
    return repr(space)


def leaves(space: Space, path: Path = ()) -> Iterator[tuple[Path, Space]]:
    """Spaces that are no containers, with their paths, in the space's own order.

    Raises
    ------
    ValueError
        If there is a space that connectors cannot handle.
    """
    known = spaces()
    if isinstance(space, known.Dict):
        for key, inner in space.spaces.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(space, known.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from leaves(inner, (*path, index))
    elif is_array_space(space):
        yield path, space
    else:
        where = f" at {list(path)!r}" if path else ""
        raise ValueError(
            f"observations of the space {type(space).__name__}{where} are not supported. Supported are Box, Discrete, "
            "MultiDiscrete, MultiBinary, and Dict and Tuple of them; convert others with a "
            "SingleAgentObservationPreprocessor or an environment wrapper."
        )


def map_leaves(space: Space, function: Callable[[Space], Space]) -> Space:
    """The same nesting with other spaces in it."""
    known = spaces()
    if isinstance(space, known.Dict):
        return known.Dict({key: map_leaves(inner, function) for key, inner in space.spaces.items()})
    if isinstance(space, known.Tuple):
        return known.Tuple([map_leaves(inner, function) for inner in space.spaces])
    return function(space)


def get_leaf(observation: Any, path: Path) -> Any:
    """The part of a nested observation at a path."""
    for key in path:
        observation = observation[key]
    return observation


def nest(space: Space, parts: Iterator[Any]) -> Any:
    """A nested observation out of its leaves, the reverse of `leaves`."""
    known = spaces()
    if isinstance(space, known.Dict):
        return {key: nest(inner, parts) for key, inner in space.spaces.items()}
    if isinstance(space, known.Tuple):
        return tuple(nest(inner, parts) for inner in space.spaces)
    return next(parts)


def to_batch(space: Space, observations: Sequence[Any]) -> Any:
    """Single observations as connectors take them: an array for array spaces, else the list.

    Raises
    ------
    ValueError
        If one has another shape or type than the space, or is NaN or infinite.
    """
    if not is_array_space(space):
        return list(observations)
    shape = array_shape(space)
    batch = np.empty((len(observations), *shape), dtype=space.dtype)
    for index, observation in enumerate(observations):
        try:
            one = np.asarray(observation)
        except ValueError:  # ragged
            one = np.asarray(None)
        if one.shape != shape or not _keeps(one, batch.dtype):
            given = f"shape {one.shape} and dtype {one.dtype}" if one.dtype != object else repr(observation)
            raise ValueError(
                f"an observation must have the shape {shape} and dtype {batch.dtype} of its space {describe(space)}, "
                f"got {given}."
            )
        batch[index] = one
    if batch.dtype.kind == "f" and np.isnan(batch).any():
        raise ValueError(f"an observation must not contain NaN, got {np.asarray(observations)!r}.")
    return batch


def _keeps(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether nothing is lost in `dtype` but digits."""
    if np.can_cast(array.dtype, dtype, "same_kind"):
        return True
    # Such as whole numbers that were given as floats.
    return array.dtype.kind in "iuf" and bool((array == array.astype(dtype)).all())

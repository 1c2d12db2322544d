"""Normalise observations by their running mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2, Step
from mltoolkit.rllib.connectors.env_to_module.flatten_observations import refuse_unsupported
from mltoolkit.rllib.utils.filter import SharedStat

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["MeanStdFilter"]

_EPSILON = 1e-8  # added to the deviation


class MeanStdFilter(ConnectorV2):
    """Shift and scale every feature by the mean and deviation of all observations seen so far.

    Statistics are float64, of each entry of a Box by itself; within Dict and Tuple, Boxes are normalised and other parts
    left as they are. Those of several runners are merged as if one had seen everything (Chan et al. 1979).

    Parameters
    ----------
    multi_agent : bool, default=False
        True is not supported.
    de_mean_to_zero : bool, default=True
        Subtract the mean.
    de_std_to_one : bool, default=True
        Divide by the standard deviation (unbiased).
    clip_by_value : float or None, default=10.0
        Normalised values are clipped to plus and minus this.
    update_stats : bool, default=True
        False keeps the statistics as they are.

    Raises
    ------
    ValueError
        If `clip_by_value` is not positive, or an observation is NaN or infinite; nothing of it enters the statistics.

    Examples
    --------
    >>> from gymnasium.spaces import Box
    >>> step = Step(3)
    >>> MeanStdFilter(Box(-9, 9, (1,)))(np.array([[1.0], [2.0], [3.0]]), step).ravel().round(3)
    array([-1.,  0.,  1.], dtype=float32)
    """

    uses_previous = False

    def __init__(
        self,
        input_observation_space: Space | None = None,
        input_action_space: Space | None = None,
        *,
        multi_agent: bool = False,
        de_mean_to_zero: bool = True,
        de_std_to_one: bool = True,
        clip_by_value: float | None = 10.0,
        update_stats: bool = True,
        **kwargs: Any,
    ) -> None:
        refuse_unsupported(self, multi_agent=multi_agent)
        if clip_by_value is not None and not clip_by_value > 0:
            raise ValueError(f"`clip_by_value` must be positive, or None for no clipping, got {clip_by_value!r}.")
        self.de_mean_to_zero = de_mean_to_zero
        self.de_std_to_one = de_std_to_one
        self.clip_by_value = clip_by_value
        self.update_stats = update_stats
        self._leaves: list[tuple[_spaces.Path, _LeafFilter | None]] = []
        super().__init__(input_observation_space, input_action_space, **kwargs)

    def recompute_output_observation_space(
        self, input_observation_space: Space, input_action_space: Space | None
    ) -> Space:
        """The same nesting; Boxes are float32 and bounded by `clip_by_value`."""
        self._leaves = [
            (path, _LeafFilter(_spaces.array_shape(leaf), self) if _spaces.is_box(leaf) else None)
            for path, leaf in _spaces.leaves(input_observation_space)
        ]
        return _spaces.map_leaves(input_observation_space, self._normalised_space)

    def _normalised_space(self, leaf: Space) -> Space:
        if not _spaces.is_box(leaf):
            return leaf
        bound = np.inf if self.clip_by_value is None else self.clip_by_value
        return _spaces.box(-bound, bound, _spaces.array_shape(leaf))

    def __call__(self, observations: Any, step: Step) -> Any:
        """Normalise, after the observations went into the statistics if they are to."""
        update = step.update and self.update_stats
        if len(self._leaves) == 1 and not self._leaves[0][0]:
            leaf = self._leaves[0][1]
            return observations if leaf is None else leaf(observations, update)
        columns = []
        for path, leaf in self._leaves:
            parts = [_spaces.get_leaf(one, path) for one in observations]
            columns.append(parts if leaf is None else leaf(np.asarray(parts), update, path))
        space: Any = self._input_observation_space
        return [_spaces.nest(space, iter(row)) for row in zip(*columns, strict=True)]

    def _filters(self) -> list[_LeafFilter]:
        return [leaf for _, leaf in self._leaves if leaf is not None]

    def get_state(self) -> dict[str, Any]:
        """Statistics of every Box, in the space's order."""
        return {"running_stats": [leaf.stat.get_state() for leaf in self._filters()]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        self._check_number(state["running_stats"])
        for leaf, part in zip(self._filters(), state["running_stats"], strict=True):
            leaf.stat.set_state(part)
            leaf.refresh()

    def pop_delta(self) -> dict[str, Any]:
        """Take out the statistics of what was seen here since the last call."""
        return {"running_stats": [leaf.stat.pop_delta() for leaf in self._filters()]}

    def merge_deltas(self, deltas: Sequence[dict[str, Any]]) -> None:
        """Add the statistics of several runners, in their order."""
        for delta in deltas:
            self._check_number(delta["running_stats"])
        for index, leaf in enumerate(self._filters()):
            leaf.stat.merge_deltas([delta["running_stats"][index] for delta in deltas])
            leaf.refresh()

    def _check_number(self, parts: Sequence[Any]) -> None:
        if len(parts) != len(self._filters()):
            raise ValueError(
                f"the state is of {len(parts)} boxes, but the observation space has {len(self._filters())}."
            )


class _LeafFilter:
    """The filter of one Box."""

    def __init__(self, shape: tuple[int, ...], settings: MeanStdFilter) -> None:
        self.stat = SharedStat(shape)
        self._settings = settings
        self._clip = settings.clip_by_value
        self.refresh()

    def refresh(self) -> None:
        """Take over the statistics as they are now."""
        total = self.stat.total()
        self._mean = total.mean if self._settings.de_mean_to_zero else None
        # A single observation has no deviation, and before the first there is nothing to go by.
        scaled = self._settings.de_std_to_one and total.n > 1
        self._factor = 1.0 / (np.sqrt(total.m2 / (total.n - 1)) + _EPSILON) if scaled else None

    def __call__(self, observations: np.ndarray, update: bool, path: _spaces.Path = ()) -> np.ndarray:
        x: np.ndarray = observations.astype(np.float64)
        if update:
            if not math.isfinite(np.add.reduce(x, axis=None)):
                raise _not_finite(x, path)
            self.stat.push_batch(x)
            self.refresh()
        if self._mean is not None:
            x -= self._mean
        if self._factor is not None:
            x *= self._factor
        if self._clip is not None:
            # Half the time of `np.clip` for few numbers.
            np.minimum(x, self._clip, out=x)
            np.maximum(x, -self._clip, out=x)
        return x.astype(np.float32)


def _not_finite(x: np.ndarray, path: _spaces.Path) -> ValueError:
    env, *entry = np.argwhere(~np.isfinite(x))[0].tolist()
    where = "".join(f"[{key!r}]" for key in (*path, *entry))
    return ValueError(
        f"MeanStdFilter got the observation {x[(env, *entry)]} from environment {env}, at observation{where}: it would spoil "
        "the statistics for good. Mend the environment, or clip its observations in a connector before this one."
    )

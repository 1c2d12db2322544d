"""Actions of the policy as the environment wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["NormalizeAndClipActions"]


class NormalizeAndClipActions(ConnectorV2):
    """Map continuous actions into the bounds of the action space.

    Parameters
    ----------
    input_observation_space, input_action_space : gymnasium.spaces.Space, optional
        Set by the pipeline if left out.
    normalize_actions : bool
        Policies act within -1 and 1, which are mapped to the lower and the upper bound ("unsquashed"); what is beyond is
        clipped. Only for Boxes with finite bounds everywhere; in others, bounds that there are still clip.
    clip_actions : bool
        Without `normalize_actions`: clip to the bounds.

    Examples
    --------
    >>> from gymnasium.spaces import Box
    >>> unsquash = NormalizeAndClipActions(None, Box(0, 10, (1,)), normalize_actions=True, clip_actions=False)
    >>> unsquash.actions(np.array([[-1.0], [0.5], [3.0]], np.float32)).ravel()
    array([ 0. ,  7.5, 10. ], dtype=float32)
    """

    def __init__(
        self,
        input_observation_space: Space | None = None,
        input_action_space: Space | None = None,
        *,
        normalize_actions: bool,
        clip_actions: bool,
        **kwargs: Any,
    ) -> None:
        self.normalize_actions = normalize_actions
        self.clip_actions = clip_actions
        self._scale: np.ndarray | None = None
        self._offset: np.ndarray | None = None
        self._low: np.ndarray | None = None
        self._high: np.ndarray | None = None
        self._dtype: Any = None
        super().__init__(**kwargs)
        if input_action_space is not None:
            self.set_spaces(input_observation_space, input_action_space)

    @property
    def is_identity(self) -> bool:
        """Whether actions pass as they are."""
        return self._low is None

    def set_spaces(self, input_observation_space: Space | None, input_action_space: Space | None) -> None:
        """Take the spaces, and work out what is to be done."""
        self._input_observation_space = self._observation_space = input_observation_space
        self._input_action_space = input_action_space
        self._scale = self._offset = self._low = self._high = None
        known = _spaces.spaces()
        space: Any = input_action_space
        if isinstance(space, known.Box):
            self._dtype = space.dtype
            self._set_bounds(space)
        elif not isinstance(space, (known.Discrete, known.MultiDiscrete, known.MultiBinary)):
            raise NotImplementedError(
                f"actions of the space {type(space).__name__} are not supported. Supported are Discrete, MultiDiscrete, "
                "MultiBinary and Box; turn others into one of them with an environment wrapper."
            )

    def _set_bounds(self, space: Any) -> None:
        bounded = bool(np.all(space.bounded_below) and np.all(space.bounded_above))
        if self.normalize_actions and bounded and space.dtype.kind == "f":
            # In float64 where the distance of the bounds is beyond the dtype's own range.
            with np.errstate(over="ignore"):
                scale = (space.high - space.low) / 2
            low, high = space.low, space.high
            if not np.isfinite(scale).all():
                low, high = low.astype(np.float64), high.astype(np.float64)
                scale = high / 2 - low / 2
            self._scale, self._offset = scale, low + scale
        if (self.normalize_actions or self.clip_actions) and (space.bounded_below.any() or space.bounded_above.any()):
            self._low, self._high = space.low, space.high

    def actions(self, actions: np.ndarray) -> np.ndarray:
        """Actions for the environments, a new array of the space's dtype unless nothing is to be done."""
        if self._scale is not None:
            actions = actions * self._scale
            actions += self._offset
            np.minimum(actions, self._high, out=actions)
            np.maximum(actions, self._low, out=actions)
            return actions if actions.dtype is self._dtype else actions.astype(self._dtype)
        if self._low is not None:
            actions = np.clip(actions, self._low, self._high)
        if self._dtype is not None and actions.dtype is not self._dtype:
            actions = actions.astype(self._dtype)
        return actions

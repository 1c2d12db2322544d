"""The last observations of an episode as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2, Step
from mltoolkit.rllib.connectors.env_to_module.flatten_observations import refuse_unsupported

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["FrameStackingEnvToModule"]


class FrameStackingEnvToModule(ConnectorV2):
    """Concatenate the newest observations of each episode along the last axis, the oldest first.

    Images of shape (height, width, channels) become (height, width, channels * num_frames), vectors of n features
    n * num_frames. Frames from before an episode's start are zero.

    Parameters
    ----------
    input_observation_space, input_action_space : gymnasium.spaces.Space, optional
        Set by the pipeline if left out.
    num_frames : int, default=1
    multi_agent, as_learner_connector : bool, default=False
        True is not supported.

    Raises
    ------
    ValueError
        If `num_frames` is less than 1, or observations are no Box.

    Examples
    --------
    >>> from gymnasium.spaces import Box
    >>> stack = FrameStackingEnvToModule(Box(0, 9, (1,)), num_frames=3)
    >>> step = Step(1)
    >>> step.is_first = np.array([True])
    >>> stack(np.array([[5.0]], np.float32), step)
    array([[0., 0., 5.]], dtype=float32)
    >>> step.is_first = np.array([False])
    >>> stack(np.array([[6.0]], np.float32), step)
    array([[0., 5., 6.]], dtype=float32)
    """

    uses_previous = False

    def __init__(
        self,
        input_observation_space: Space | None = None,
        input_action_space: Space | None = None,
        *,
        num_frames: int = 1,
        multi_agent: bool = False,
        as_learner_connector: bool = False,
        **kwargs: Any,
    ) -> None:
        refuse_unsupported(self, multi_agent=multi_agent, as_learner_connector=as_learner_connector)
        if isinstance(num_frames, bool) or not isinstance(num_frames, int) or num_frames < 1:
            raise ValueError(f"`num_frames` must be a whole number of at least 1, got {num_frames!r}.")
        self.num_frames = num_frames
        super().__init__(input_observation_space, input_action_space, **kwargs)

    def recompute_output_observation_space(
        self, input_observation_space: Space, input_action_space: Space | None
    ) -> Space:
        """The Box of `num_frames` observations."""
        space: Any = input_observation_space
        if not _spaces.is_box(space) or not space.shape:
            raise ValueError(
                f"observations of {_spaces.describe(space)} cannot be stacked, only vectors and images; put a "
                "FlattenObservations connector before this one."
            )
        # The frames of zeros before an episode belong to the space as well.
        low = np.repeat(np.minimum(space.low, 0)[..., None, :], self.num_frames, axis=-2)
        high = np.repeat(np.maximum(space.high, 0)[..., None, :], self.num_frames, axis=-2)
        shape = (*space.shape[:-1], space.shape[-1] * self.num_frames)
        return _spaces.box(low.reshape(shape), high.reshape(shape), shape, space.dtype)

    def __call__(self, observations: Any, step: Step) -> Any:
        """Stacked observations: an array that the next call writes to."""
        if self.num_frames == 1:
            return observations
        width = observations.shape[-1]
        frames = step.memory.get("frames")
        if frames is None:
            space: Any = self._observation_space
            frames = step.memory["frames"] = np.zeros((step.num_envs, *space.shape), dtype=space.dtype)
        if frames.ndim == 2:
            frames[:, :-width] = frames[:, width:]
        else:
            # Channel by channel: the pixels of one are many, the channels of a pixel few.
            for channel in range(frames.shape[-1] - width):
                frames[..., channel] = frames[..., channel + width]
        if step.is_first.any():
            frames[step.is_first] = 0
        frames[..., -width:] = observations
        return frames

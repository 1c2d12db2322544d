"""Images as convolutional modules take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2, Step

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["PrepareImages"]


class PrepareImages(ConnectorV2):
    """Give images the shape (height, width, channels) and the dtype uint8 or float32.

    Bytes stay bytes: the module scales them. Pipelines put this in by themselves where it is needed.

    Raises
    ------
    ValueError
        If observations are no images.
    """

    uses_previous = False

    def recompute_output_observation_space(
        self, input_observation_space: Space, input_action_space: Space | None
    ) -> Space:
        """A Box of three axes."""
        space: Any = input_observation_space
        if not _spaces.is_image(space):
            raise ValueError(f"observations are no images: {_spaces.describe(space)}.")
        shape = space.shape if len(space.shape) == 3 else (*space.shape, 1)
        dtype = np.uint8 if space.dtype == np.uint8 else np.float32
        return _spaces.box(space.low.reshape(shape), space.high.reshape(shape), shape, dtype)

    def __call__(self, observations: Any, step: Step) -> Any:
        """Images of all environments, shape (N, height, width, channels)."""
        space: Any = self._observation_space
        return observations.reshape(len(observations), *space.shape).astype(space.dtype, copy=False)

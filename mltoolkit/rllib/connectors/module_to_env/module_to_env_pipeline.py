"""From what the policy sampled to what environments take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorError, ConnectorV2
from mltoolkit.rllib.connectors.module_to_env.normalize_and_clip_actions import NormalizeAndClipActions

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["ModuleToEnvPipeline"]


class ModuleToEnvPipeline:
    """Connectors on the way to the environments; the last one maps actions into the bounds of their space.

    Parameters
    ----------
    action_space : gymnasium.spaces.Space
        A single environment's.
    normalize_actions, clip_actions : bool
        See :class:`NormalizeAndClipActions`.
    connectors : sequence of ConnectorV2, default=()
        The user's own, which come first; their method ``actions`` is called.

    Examples
    --------
    >>> from gymnasium.spaces import Box
    >>> to_env = ModuleToEnvPipeline(Box(-2, 2, (1,)), normalize_actions=True, clip_actions=False)
    >>> to_env(np.array([[0.5]], np.float32))
    array([[1.]], dtype=float32)
    """

    def __init__(
        self,
        action_space: Space,
        normalize_actions: bool = True,
        clip_actions: bool = False,
        *,
        connectors: Sequence[ConnectorV2] = (),
    ) -> None:
        self.action_space = action_space
        for connector in connectors:
            if not isinstance(connector, ConnectorV2) or type(connector).actions is ConnectorV2.actions:
                raise ConnectorError(
                    f"a connector from module to environment must be a ConnectorV2 that overrides `actions(self, actions)`, "
                    f"got {connector!r}."
                )
            # What comes in is what the policy samples, so any array; only the shape is checked.
            connector._input_action_space = action_space
        self.connectors = list(connectors)
        self._to_bounds = NormalizeAndClipActions(
            None, action_space, normalize_actions=normalize_actions, clip_actions=clip_actions
        )
        # Integer Boxes and the like need their dtype even where nothing else is to be done.
        dtype: Any = getattr(action_space, "dtype", None)
        self._identity = not self.connectors and self._to_bounds.is_identity
        self._dtype = dtype if _spaces.is_box(action_space) else None

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """Actions for the environments.

        Parameters
        ----------
        actions : ndarray of shape (N, ...)
            As the policy sampled them. They are not changed.

        Returns
        -------
        ndarray of shape (N, ...)
            The same array where nothing is to be done.

        Raises
        ------
        ConnectorError
            If a connector of the user's raises, or returns NaN or another shape; it is named.
        """
        if self._identity and (self._dtype is None or actions.dtype is self._dtype):
            return actions
        for connector in self.connectors:
            actions = _call(connector, actions)
        return self._to_bounds.actions(actions)


def _call(connector: ConnectorV2, actions: np.ndarray) -> np.ndarray:
    name = type(connector).__name__
    try:
        result = connector.actions(actions)
    except Exception as error:
        raise ConnectorError(f"Connector {name} raised {type(error).__name__}: {error}") from error
    if getattr(result, "shape", None) != actions.shape:
        raise ConnectorError(f"Connector {name} must return actions of shape {actions.shape}, got {result!r}.")
    if result.dtype.kind == "f" and np.isnan(result).any():
        raise ConnectorError(f"Connector {name} returned NaN as an action: {result!r}.")
    return result

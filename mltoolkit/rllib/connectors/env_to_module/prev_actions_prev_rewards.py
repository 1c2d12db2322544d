"""What was done last and what it brought, beside the observation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2, Step
from mltoolkit.rllib.connectors.env_to_module.flatten_observations import (
    FlattenObservations,
    encoder,
    refuse_unsupported,
)

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["PrevActionsPrevRewards"]


class PrevActionsPrevRewards(ConnectorV2):
    """Append the previous actions and rewards to the observation vector: observation, actions, rewards, oldest first.

    Discrete and MultiDiscrete actions are one-hot, others as the policy sampled them; rewards are the environment's own.
    At the start of an episode both are zero. Observations that are no vectors are flattened; images cannot be appended
    to.

    Parameters
    ----------
    input_observation_space, input_action_space : gymnasium.spaces.Space, optional
        Set by the pipeline if left out.
    multi_agent : bool, default=False
        True is not supported.
    n_prev_actions, n_prev_rewards : int, default=1
        How many to append; 0 for none.

    Raises
    ------
    ValueError
        If a number is negative, or observations are images.
    """

    def __init__(
        self,
        input_observation_space: Space | None = None,
        input_action_space: Space | None = None,
        *,
        multi_agent: bool = False,
        n_prev_actions: int = 1,
        n_prev_rewards: int = 1,
        **kwargs: Any,
    ) -> None:
        refuse_unsupported(self, multi_agent=multi_agent)
        for name, number in (("n_prev_actions", n_prev_actions), ("n_prev_rewards", n_prev_rewards)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ValueError(f"`{name}` must be a whole number of at least 0, got {number!r}.")
        self.n_prev_actions = n_prev_actions
        self.n_prev_rewards = n_prev_rewards
        self._flatten: FlattenObservations | None = None
        self._out: np.ndarray = np.empty((0, 0), dtype=np.float32)
        super().__init__(input_observation_space, input_action_space, **kwargs)

    def recompute_output_observation_space(
        self, input_observation_space: Space, input_action_space: Space | None
    ) -> Space:
        """A Box of one axis."""
        space: Any = input_observation_space
        if _spaces.is_image(space):
            raise ValueError(
                f"actions and rewards cannot be appended to images ({_spaces.describe(space)}). Put FlattenObservations "
                "before PrevActionsPrevRewards, or leave the previous actions and rewards out."
            )
        if input_action_space is None or not _spaces.is_array_space(input_action_space):
            raise ValueError(
                f"PrevActionsPrevRewards needs a Discrete, MultiDiscrete, MultiBinary or Box action space, got "
                f"{input_action_space!r}."
            )
        self._flatten = None
        if not (_spaces.is_box(space) and len(space.shape) == 1):
            self._flatten = FlattenObservations(space)
            space = self._flatten.observation_space
        low, high, self._encode = encoder(input_action_space)
        self._width = low.size
        n, m = self.n_prev_actions, self.n_prev_rewards
        # Zeros at the start of an episode belong to the space as well.
        lows = [space.low, np.tile(np.minimum(low, 0), n), np.full(m, -np.inf)]
        highs = [space.high, np.tile(np.maximum(high, 0), n), np.full(m, np.inf)]
        self._num_features = space.shape[0]
        shape = (self._num_features + n * self._width + m,)
        self._out = np.empty((0, *shape), dtype=np.float32)
        return _spaces.box(np.concatenate(lows), np.concatenate(highs), shape)

    def __call__(self, observations: Any, step: Step) -> Any:
        """Longer vectors: an array that the next call writes to.

        Raises
        ------
        ValueError
            If an episode goes on but the previous actions and rewards are not given.
        """
        if self._flatten is not None:
            observations = self._flatten(observations, step)
        num_features, n = self._num_features, self.n_prev_actions * self._width
        if len(self._out) != step.num_envs:
            self._out = np.empty((step.num_envs, self._out.shape[1]), dtype=np.float32)
        out = self._out
        history = step.memory.get("history")
        if history is None:
            history = step.memory["history"] = np.zeros((step.num_envs, n + self.n_prev_rewards), dtype=np.float32)
        if step.is_first.all():
            history[...] = 0.0
        else:
            if step.prev_actions is None or step.prev_rewards is None:
                raise ValueError(
                    "`prev_actions` and `prev_rewards` must be given for every observation that is not the first of its episode."
                )
            self._remember(history[:, :n], history[:, n:], step)
            history[step.is_first] = 0.0
        out[:, :num_features] = observations
        out[:, num_features:] = history
        return out

    def _remember(self, actions: np.ndarray, rewards: np.ndarray, step: Step) -> None:
        if self.n_prev_actions:
            actions[:, : -self._width] = actions[:, self._width :]
            self._encode(np.asarray(step.prev_actions), actions[:, -self._width :])
        if self.n_prev_rewards:
            rewards[:, :-1] = rewards[:, 1:]
            rewards[:, -1] = step.prev_rewards

"""Connectors of the user's own that work on one observation at a time."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2, Step
from mltoolkit.rllib.env.single_agent_episode import SingleAgentEpisode

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["SingleAgentObservationPreprocessor"]

_KEPT_STEPS = 256  # of an episode; one that never ends must not fill the memory


class SingleAgentObservationPreprocessor(ConnectorV2, abc.ABC):
    """Base class of connectors that transform single observations: override :meth:`preprocess`.

    If observations change their shape or dtype, override :meth:`recompute_output_observation_space` too.

    Examples
    --------
    >>> class OnlyPositions(SingleAgentObservationPreprocessor):
    ...     def recompute_output_observation_space(self, input_observation_space, input_action_space):
    ...         from gymnasium.spaces import Box
    ...
    ...         return Box(-5, 5, (2,))
    ...
    ...     def preprocess(self, observation, episode):
    ...         return observation[[0, 2]]
    """

    @abc.abstractmethod
    def preprocess(self, observation: Any, episode: SingleAgentEpisode) -> Any:
        """Transform one observation.

        Parameters
        ----------
        observation : object
            As the environment, or the connector before this one, gave it; the connector's own to change.
        episode : SingleAgentEpisode
            The episode so far: actions (as the policy sampled them), rewards (as the environment gave them) and
            observations, the newest one last and earlier ones as this method returned them. ``custom_data`` is a dict for
            own use. Of long episodes only the last 256 steps or more are kept, though ``len(episode)`` and
            ``get_return()`` count all.

        Returns
        -------
        object
            Of the space that `recompute_output_observation_space` announces.
        """

    def set_spaces(self, input_observation_space: Space, input_action_space: Space | None) -> None:
        """Take the spaces, as every connector does."""
        super().set_spaces(input_observation_space, input_action_space)
        space: Any = self._observation_space
        self._is_array = _spaces.is_array_space(space)

    def __call__(self, observations: Any, step: Step) -> Any:
        """Preprocess the observation of each environment."""
        episodes: list[_RunningEpisode] = step.memory.setdefault("episodes", [])
        if not episodes:
            episodes.extend(_RunningEpisode() for _ in range(step.num_envs))
        results = []
        for index in range(step.num_envs):
            observation = observations[index]
            if isinstance(observation, np.ndarray):
                observation = observation.copy()
            if step.is_first[index]:
                episode = episodes[index] = _RunningEpisode()
                episode.add_env_reset(observation)
            else:
                episode = episodes[index]
                action = None if step.prev_actions is None else step.prev_actions[index]
                reward = 0.0 if step.prev_rewards is None else float(step.prev_rewards[index])
                episode.add_env_step(observation, action, reward)
            result = self.preprocess(observation, episode)
            episode.observations[-1] = result
            results.append(result)
        return np.asarray(results) if self._is_array else results

    def memory_state(self, memory: dict[str, Any]) -> dict[str, Any]:
        """The episodes under way as data."""
        return {"episodes": [episode.to_data() for episode in memory.get("episodes", [])]}

    def memory_from_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The episodes again."""
        return {"episodes": [_RunningEpisode.from_data(data) for data in state["episodes"]]}


class _RunningEpisode(SingleAgentEpisode):
    """An episode that forgets what is long past."""

    def __init__(self) -> None:
        super().__init__(id_="")
        self._steps = 0
        self._return = 0.0

    @property
    def length(self) -> int:
        return self._steps

    @property
    def total_reward(self) -> float:
        return self._return

    def __len__(self) -> int:
        return self._steps

    def env_steps(self) -> int:
        return self._steps

    def add_env_step(self, observation: Any, action: Any, reward: float, *args: Any, **flags: Any) -> None:
        super().add_env_step(observation, action, reward, *args, **flags)
        self._steps += 1
        self._return += float(reward)
        if len(self.actions) >= 2 * _KEPT_STEPS:
            for values in (self.observations, self.actions, self.rewards, self.infos):
                del values[:_KEPT_STEPS]

    def to_data(self) -> dict[str, Any]:
        return {
            "observations": list(self.observations),
            "actions": list(self.actions),
            "rewards": list(self.rewards),
            "custom_data": dict(self.user_data),
            "steps": self._steps,
            "return": self._return,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> _RunningEpisode:
        episode = cls()
        episode.observations = list(data["observations"])
        episode.actions = list(data["actions"])
        episode.rewards = list(data["rewards"])
        episode.infos = [{} for _ in episode.observations]
        episode.user_data.update(data["custom_data"])
        episode._steps, episode._return = int(data["steps"]), float(data["return"])
        return episode

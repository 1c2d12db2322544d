"""An episode as callbacks see it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

__all__ = ["SingleAgentEpisode"]

_ids = itertools.count()


class SingleAgentEpisode:
    """Observations, actions and rewards of an episode so far; recorded only where a callback follows episodes.

    Attributes
    ----------
    id_ : str
        Unique within a runner.
    user_data, custom_data : dict
        For the callbacks' own use (one dict under both names).
    custom_metrics : dict of str to number
        At the episode's end each goes into the result as ``custom_metrics/<name>_mean``, ``_min`` and ``_max``.
    hist_data : dict of str to list
        Histograms; appear under ``hist_stats`` in the result.
    is_terminated, is_truncated : bool
    """

    def __init__(self, id_: str | None = None) -> None:
        self.id_ = id_ if id_ is not None else f"episode-{next(_ids)}"
        self.observations: list[Any] = []
        self.actions: list[Any] = []
        self.rewards: list[float] = []
        self.infos: list[dict[str, Any]] = []
        self.user_data: dict[str, Any] = {}
        self.custom_metrics: dict[str, float] = {}
        self.hist_data: dict[str, list[float]] = {}
        self.is_terminated = False
        self.is_truncated = False

    @property
    def custom_data(self) -> dict[str, Any]:
        """The newer name of `user_data`."""
        return self.user_data

    @property
    def episode_id(self) -> str:
        """The older name of `id_`."""
        return self.id_

    @property
    def is_done(self) -> bool:
        """Whether it is terminated or truncated."""
        return self.is_terminated or self.is_truncated

    @property
    def length(self) -> int:
        """Steps taken so far."""
        return len(self.actions)

    @property
    def total_reward(self) -> float:
        """Sum of the rewards so far, undiscounted."""
        return float(sum(self.rewards))

    def __len__(self) -> int:
        return len(self.actions)

    def env_steps(self) -> int:
        """Steps taken so far."""
        return len(self.actions)

    def get_return(self) -> float:
        """Sum of the rewards so far, undiscounted."""
        return self.total_reward

    def add_env_reset(self, observation: Any, infos: dict[str, Any] | None = None) -> None:
        """Record what the environment's ``reset`` gave."""
        self.observations.append(_copied(observation))
        self.infos.append(infos or {})

    def add_env_step(
        self,
        observation: Any,
        action: Any,
        reward: float,
        infos: dict[str, Any] | None = None,
        *,
        terminated: bool = False,
        truncated: bool = False,
    ) -> None:
        """Record what the environment's ``step`` gave."""
        self.observations.append(_copied(observation))
        self.actions.append(_copied(action))
        self.rewards.append(float(reward))
        self.infos.append(infos or {})
        self.is_terminated, self.is_truncated = bool(terminated), bool(truncated)

    def get_observations(self, indices: int | slice | list[int] | None = None) -> Any:
        """Observations, as the environment gave them: one for an int, else stacked along the first axis."""
        return _select(self.observations, indices)

    def get_actions(self, indices: int | slice | list[int] | None = None) -> Any:
        """Actions, as the environment took them."""
        return _select(self.actions, indices)

    def get_rewards(self, indices: int | slice | list[int] | None = None) -> Any:
        """Rewards, as the environment gave them."""
        return _select(self.rewards, indices)

    def get_infos(self, indices: int | slice | list[int] | None = None) -> Any:
        """Infos: a dict for an int, else a list of them."""
        return _select(self.infos, indices, stack=False)

    def last_info_for(self, agent_id: Any = None) -> dict[str, Any]:
        """The newest info, as the older stack names it."""
        return self.infos[-1]

    def last_observation_for(self, agent_id: Any = None) -> Any:
        """The newest observation, as the older stack names it."""
        return self.observations[-1]

    last_raw_obs_for = last_observation_for

    def last_action_for(self, agent_id: Any = None) -> Any:
        """The newest action, as the older stack names it."""
        return self.actions[-1]

    def last_reward_for(self, agent_id: Any = None) -> float:
        """The newest reward, as the older stack names it."""
        return self.rewards[-1]


def _copied(value: Any) -> Any:
    # Vector environments hand out buffers that the next step overwrites.
    return value.copy() if isinstance(value, np.ndarray) else value


def _select(values: list[Any], indices: int | slice | list[int] | None, stack: bool = True) -> Any:
    if isinstance(indices, int):
        return values[indices]
    if indices is None:
        chosen = values
    elif isinstance(indices, slice):
        chosen = values[indices]
    else:
        chosen = [values[i] for i in indices]
    if not stack or (chosen and isinstance(chosen[0], (dict, tuple))):
        return list(chosen)
    return np.asarray(chosen)

"""`ClusterVecEnv` as a ``VecEnv`` of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit._optional import require
from mltoolkit.rllib.vec_env import ClusterVecEnv

__all__ = ["SB3ClusterVecEnv"]

if TYPE_CHECKING:
    VecEnv: Any
else:
    VecEnv = require("stable_baselines3.common.vec_env", purpose="SB3ClusterVecEnv", extra="sb3").VecEnv


class SB3ClusterVecEnv(VecEnv):
    """A ``VecEnv`` of Stable-Baselines3 whose environments live in actors.

    Parameters
    ----------
    env : ClusterVecEnv, or what it takes
    num_envs, num_runners, **kwargs
        As `ClusterVecEnv` takes them.

    Notes
    -----
    As in ``SubprocVecEnv``, an environment whose episode ends starts the next in the same step; its last observation
    is in ``info["terminal_observation"]``, and ``info["TimeLimit.truncated"]`` says whether it was truncated. Set
    ``env_config={"render_mode": "rgb_array"}`` for pictures.
    """

    def __init__(
        self,
        env: Any,
        num_envs: int | None = None,
        num_runners: int | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(env, ClusterVecEnv):
            if num_envs is not None or num_runners is not None or kwargs:
                raise TypeError("With a ClusterVecEnv, SB3ClusterVecEnv takes no further arguments: they are its own.")
            self._envs = env
        else:
            if "autoreset_mode" in kwargs:
                raise TypeError("Stable-Baselines3 needs `autoreset_mode='same_step'`; it is set already.")
            self._envs = ClusterVecEnv(env, num_envs, num_runners, autoreset_mode="same_step", **kwargs)
        self._envs._set_autoreset_mode(same_step=True)
        super().__init__(self._envs.num_envs, self._envs.single_observation_space, self._envs.single_action_space)

    def reset(self) -> Any:
        """Start an episode in every environment, with the seeds and options set before."""
        options = self._options[0] if self._options else {}
        if any(other != options for other in self._options):
            raise NotImplementedError("SB3ClusterVecEnv takes the same reset options for all environments.")
        observations, self.reset_infos = self._envs.reset_unbatched(self._seeds, options or None)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Any) -> None:
        """Send the actions."""
        self._envs.step_async(actions)

    def step_wait(self) -> tuple[Any, Any, Any, list[dict[str, Any]]]:
        """Wait for observations, rewards, dones and infos."""
        observations, rewards, terminations, truncations, infos = self._envs.step_wait_unbatched()
        dones = terminations | truncations
        for index, info in enumerate(infos):
            if not dones[index]:
                infos[index] = {**info, "TimeLimit.truncated": False}
                continue
            info = dict(info)
            final_obs, final_info = info.pop("final_obs"), info.pop("final_info")
            faulty = {"faulty_episode": True} if info.pop("faulty_episode", False) else {}
            self.reset_infos[index] = info
            infos[index] = {
                **final_info,
                **faulty,
                "terminal_observation": final_obs,
                "TimeLimit.truncated": bool(truncations[index] and not terminations[index]),
            }
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """End the actors."""
        self._envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of some environments."""
        return self._envs._each("get", self._chosen(indices), lambda _: (attr_name,))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of some environments."""
        self._envs._each("set_attr", self._chosen(indices), lambda _: (attr_name, value))

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of some environments."""
        return self._envs._each("call", self._chosen(indices), lambda _: (method_name, method_args, method_kwargs))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Whether some environments are wrapped in a class."""
        return self._envs._each("is_wrapped", self._chosen(indices), lambda _: (wrapper_class,))

    def get_images(self) -> Sequence[Any]:
        """A picture of every environment."""
        return self._envs.render()

    def _chosen(self, indices: Any) -> list[int]:
        chosen: Iterable[int] = self._get_indices(indices)
        return list(chosen)

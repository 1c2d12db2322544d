"""The actor that some environments of a `ClusterVecEnv` live in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mltoolkit.rllib.env.env_context import EnvContext
from mltoolkit.rllib.env.errors import EnvError, UnsupportedEnvError
from mltoolkit.rllib.env.registration import EnvSource
from mltoolkit.rllib.env.serial_vector_env import SerialVectorEnv

__all__ = ["EnvActor"]


class EnvActor:
    """Some environments, stepped one after the other.

    Parameters
    ----------
    sources : sequence of EnvSource
        Of every environment.
    first_index : int
        The first one's index among all of the vector.
    env_config : dict
    horizon : int, optional
    check : bool
    """

    def __init__(
        self,
        sources: Sequence[EnvSource],
        first_index: int,
        env_config: dict[str, Any],
        horizon: int | None,
        check: bool,
    ) -> None:
        # Not made here: what goes wrong in a constructor only tells that the actor died.
        self._arguments = (sources, first_index, env_config, horizon, check)
        self._first_index = first_index
        self._made: SerialVectorEnv | None = None

    @property
    def _vector(self) -> SerialVectorEnv:
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make(self) -> SerialVectorEnv:
        sources, first_index, env_config, horizon, check = self._arguments
        context = EnvContext(env_config, remote=True)

        def make_one(index: int) -> tuple[Any, int | None]:
            source = sources[index]
            env, limit = source.make(context.copy_with_overrides(vector_index=first_index + index))
            if source.is_vector_env(env):
                env.close()
                raise UnsupportedEnvError(f"{source.name} makes a vector environment; ClusterVecEnv takes single ones.")
            return env, limit

        try:
            return SerialVectorEnv(
                make_one, len(sources), name=sources[0].name, horizon=horizon, check=check, try_out=False
            )
        except EnvError as error:
            raise self._placed(error) from error.__cause__

    def describe(self) -> dict[str, Any]:
        """What a vector environment tells about its environments."""
        env = self._vector.envs[0]
        metadata = dict(getattr(env, "metadata", None) or {})
        spec = getattr(env, "spec", None)
        return {
            "observation_space": self._vector.observation_space,
            "action_space": self._vector.action_space,
            "render_mode": getattr(env, "render_mode", None),
            "metadata": metadata,
            "spec": spec,
        }

    def reset(self, seeds: Sequence[int | None], options: dict[str, Any] | None) -> tuple[Any, list[dict[str, Any]]]:
        """Start an episode everywhere."""
        try:
            observations = self._vector.reset(seeds, options=options)
            self._vector.check_pending()
        except EnvError as error:
            raise self._placed(error) from error.__cause__
        return _copy(observations), list(self._vector.last_infos)

    def restart(self, seeds: Sequence[int], running: Any, same_step: bool) -> tuple[Any, list[dict[str, Any]]]:
        """Start an episode everywhere, in place of an actor that died.

        With next-step autoreset the episodes of those that were ``running`` end for the caller at this step, so that
        their next step has to start one.
        """
        result = self.reset(seeds, None)
        if not same_step:
            for index in np.flatnonzero(running):
                self._vector.end_episode(int(index))
        return result

    def step(self, actions: Any, same_step: bool) -> tuple[Any, Any, Any, Any, list[dict[str, Any]]]:
        """Take one action everywhere; with ``same_step``, start the next episode at once where one ended."""
        vector = self._vector
        try:
            observations, rewards, terminateds, truncateds = vector.step(actions)
            vector.check_pending()
            infos = list(vector.last_infos)
            rewards, terminateds, truncateds = rewards.copy(), terminateds.copy(), truncateds.copy()
            if same_step:
                for index in map(int, np.flatnonzero(terminateds | truncateds)):
                    final_obs, final_info = _copy(observations[index]), infos[index]
                    vector.begin_episode(index)
                    infos[index] = {**vector.last_infos[index], "final_obs": final_obs, "final_info": final_info}
        except EnvError as error:
            raise self._placed(error) from error.__cause__
        return _copy(vector.observations), rewards, terminateds, truncateds, infos

    def call(self, index: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of an environment, or get an attribute."""
        value = self._find(index, name)
        return value(*args, **kwargs) if callable(value) else value

    def get(self, index: int, name: str) -> Any:
        """An attribute of an environment, or of what it wraps, without calling it."""
        return self._find(index, name)

    def set_attr(self, index: int, name: str, value: Any) -> None:
        """Set an attribute where it is: of a wrapper that has it, or else of the environment below."""
        env = self._vector.envs[index]
        while name not in vars(env) and "env" in vars(env):
            env = env.env
        setattr(env, name, value)

    def is_wrapped(self, index: int, wrapper: type) -> bool:
        """Whether an environment is wrapped in a class, or in one derived from it."""
        env = self._vector.envs[index]
        while env is not None:
            if isinstance(env, wrapper):
                return True
            env = getattr(env, "env", None)
        return False

    def close(self) -> None:
        """Close the environments."""
        if self._made is not None:
            self._made.close()

    def _find(self, index: int, name: str) -> Any:
        env = self._vector.envs[index]
        while not hasattr(env, name) and hasattr(env, "env"):
            env = env.env
        return getattr(env, name)

    def _placed(self, error: EnvError) -> EnvError:
        """The error with the index of the environment among all of the vector."""
        if error.env_index is None or self._first_index == 0:
            return error
        index = error.env_index + self._first_index
        text = str(error).replace(f"nvironment {error.env_index} ", f"nvironment {index} ", 1)
        return type(error)(text, env_index=index, step=error.step)


def _copy(observations: Any) -> Any:
    """The observations, apart from buffers that are overwritten."""
    return observations.copy() if isinstance(observations, np.ndarray) else observations

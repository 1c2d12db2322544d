"""Gymnasium's vector environments under our contract."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from mltoolkit._optional import require
from mltoolkit.rllib.env.errors import (
    EnvResetError,
    EnvStepError,
    InvalidObservationError,
    describe_cause,
)
from mltoolkit.rllib.env.pending_checks import PendingChecks
from mltoolkit.rllib.env.spaces import check_action_space, check_observation_space, is_array_space
from mltoolkit.rllib.env.vector_env import VectorEnvironment

__all__ = ["NativeVectorEnv"]

_STEPS_BETWEEN_ACTION_CHECKS = 64


class NativeVectorEnv(VectorEnvironment):
    """A ``gymnasium.vector.VectorEnv`` with next-step autoreset.

    Parameters
    ----------
    env : gymnasium.vector.VectorEnv
    name : str
        For messages.
    check : bool, default=True
        Check observations and rewards as they come.
    """

    is_native = True

    def __init__(self, env: Any, *, name: str, check: bool = True) -> None:
        self.env = env
        self.name = name
        self.num_envs = env.num_envs
        self.observation_space = env.single_observation_space
        self.action_space = env.single_action_space
        check_observation_space(self.observation_space, name)
        check_action_space(self.action_space, name)
        self.envs = list(getattr(env.unwrapped, "envs", ()))
        self.faulty = np.zeros(self.num_envs, dtype=np.bool_)
        self.num_faulty_episodes = 0
        self._is_array = is_array_space(self.observation_space)
        self._observation_shape = (self.num_envs, *(self.observation_space.shape or ()))
        self._action_shape = (self.num_envs, *self.action_space.shape)
        # What gymnasium itself ships keeps to its spaces.
        self._check = check and not type(env).__module__.startswith("gymnasium.envs.")
        self._pending = PendingChecks(self.observation_space, self.num_envs, name, enabled=self._check)
        self._batched_action_space = copy.deepcopy(env.action_space)
        self._until_action_check = 0
        self._waive_action_check()
        self._vector_info: dict[str, Any] = {}
        self._ended: tuple[Any, Any] = (self.faulty, self.faulty)
        self._observations: Any = None

    @staticmethod
    def why_not(env: Any) -> str:
        """Why a vector environment cannot be used; empty if it can."""
        mode = env.metadata.get("autoreset_mode")
        if getattr(mode, "name", str(mode)).upper().replace("NEXTSTEP", "NEXT_STEP") == "NEXT_STEP":
            return ""
        if mode is None:
            return "its metadata lack `autoreset_mode`; set `gymnasium.vector.AutoresetMode.NEXT_STEP` if it is that"
        return f"its autoreset mode is {mode}, but `gymnasium.vector.AutoresetMode.NEXT_STEP` is needed"

    def _waive_action_check(self) -> None:
        """Spare environments that assert their actions at every step half of that step's time.

        Actions are checked here, in full now and then, by the space as it was.
        """
        env = self.env.unwrapped
        if type(env).__module__.startswith("gymnasium.envs."):
            env.action_space = copy.deepcopy(env.action_space)
            env.action_space.contains = _anything

    @property
    def last_infos(self) -> list[dict[str, Any]] | None:
        """What the environments said at the last step or reset."""
        if not self._vector_info:
            return None
        return [_info_of(self._vector_info, index) for index in range(self.num_envs)]

    @property
    def observations(self) -> Any:
        """The latest observations."""
        return self._observations

    @property
    def dones(self) -> Any:
        """Whose next step starts a new episode."""
        return np.logical_or(*self._ended)

    def reset(self, seed: int | None = None) -> Any:
        """Start an episode in every environment; see `VectorEnvironment.reset`."""
        self.check_pending()
        try:
            observations, self._vector_info = self.env.reset(seed=seed)
        except Exception as error:
            raise EnvResetError(
                f"The vector environment {self.name} raised in reset(): {describe_cause(error)}", step=0
            ) from error
        flags: Any = np.zeros(self.num_envs, dtype=np.bool_)
        self._ended = (flags, flags)
        self._observations, rewards = self._take(observations)
        rewards.fill(0.0)
        return self._observations

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any]:
        """Take one action in every environment; see `VectorEnvironment.step`."""
        actions = np.asarray(actions, dtype=self.action_space.dtype)
        if self._until_action_check == 0 or actions.shape != self._action_shape:
            self._check_actions(actions)
        self._until_action_check -= 1
        try:
            result = self.env.step(actions)
        except Exception as error:
            raise EnvStepError(
                f"The vector environment {self.name} raised in step(): {describe_cause(error)}"
            ) from error
        observations, given_rewards, terminateds, truncateds, self._vector_info = result
        self._ended = (terminateds, truncateds)
        self._observations, rewards = self._take(observations)
        rewards[:] = given_rewards
        return self._observations, rewards, terminateds, truncateds

    def _take(self, observations: Any) -> tuple[Any, Any]:
        row, rewards = self._pending.next_row()
        if not self._is_array:
            iterate = require("gymnasium.vector.utils", purpose="mltoolkit.rllib", extra="rllib").iterate
            return list(iterate(self.env.observation_space, observations)), rewards
        if not isinstance(observations, np.ndarray) or observations.shape != self._observation_shape:
            raise InvalidObservationError(
                f"The vector environment {self.name} gave observations of shape {np.shape(observations)}; "
                f"{self._observation_shape} is needed, {self.num_envs} of {self.observation_space!r}."
            )
        row[...] = observations
        return row, rewards

    def _check_actions(self, actions: Any) -> None:
        self._until_action_check = _STEPS_BETWEEN_ACTION_CHECKS
        if actions.shape != self._action_shape or not self._batched_action_space.contains(
            actions.astype(self._batched_action_space.dtype)
        ):
            raise ValueError(
                f"`actions` must be {self.num_envs} elements of {self.action_space!r}, an array of shape "
                f"{self._action_shape}; got shape {actions.shape}: {actions!r:.200}."
            )

    def check_pending(self) -> None:
        """Check what has not been checked yet; see `VectorEnvironment.check_pending`."""
        self._pending.check()

    def get_state(self) -> dict[str, Any] | None:
        """What the next steps depend on; see `VectorEnvironment.get_state`."""
        from mltoolkit.rllib.env.env_state import snapshot_vector

        return snapshot_vector(
            [self.env],
            kind="native",
            name=self.name,
            extra={"observations": self._observations, "terminateds": self._ended[0], "truncateds": self._ended[1]},
        )

    def set_state(self, state: dict[str, Any] | None, *, seed: int | None = None) -> Any:
        """Go on from a state; see `VectorEnvironment.set_state`."""
        from mltoolkit.rllib.env.env_state import restore_vector

        if state is None or seed is not None or self._observations is None:
            self.reset(seed)
        if state is None:
            return self._observations
        extra = restore_vector([self.env], state, kind="native", name=self.name)
        if extra is None:
            return self.reset(seed)
        for index, observation in enumerate(extra["observations"]):
            self._observations[index] = observation
        self._ended = (extra["terminateds"], extra["truncateds"])
        return self._observations

    def close(self) -> None:
        """Close the vector environment."""
        self.env.close()


def _anything(_action: Any) -> bool:
    return True


def _info_of(vector_info: dict[str, Any], index: int) -> dict[str, Any]:
    """One environment's info: keys whose mask, under the same name with an underscore, is set for it."""
    info = {}
    for key, value in vector_info.items():
        if key.startswith("_") and key[1:] in vector_info:
            continue
        mask = vector_info.get(f"_{key}")
        if mask is not None and not mask[index]:
            continue
        info[key] = _info_of(value, index) if isinstance(value, dict) else value[index]
    return info

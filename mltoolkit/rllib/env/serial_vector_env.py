"""A vector of environments that are stepped one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mltoolkit.rllib.env.errors import (
    EnvError,
    EnvResetError,
    EnvStepError,
    InvalidEnvResultError,
    InvalidObservationError,
    InvalidRewardError,
    describe_cause,
)
from mltoolkit.rllib.env.old_gym import OldGymEnv, describe_result, reset_env
from mltoolkit.rllib.env.pending_checks import PendingChecks
from mltoolkit.rllib.env.spaces import (
    NestedObservationChecker,
    check_action_space,
    check_observation_space,
    is_array_space,
    to_gymnasium_space,
)
from mltoolkit.rllib.env.vector_env import VectorEnvironment, env_seeds

__all__ = ["SerialVectorEnv"]

logger = logging.getLogger(__name__)

_NUMBERS = frozenset((float, int, bool, np.float64, np.float32, np.int64, np.int32, np.bool_))

#: An environment that fails so often in succession, with no step between that worked, is broken for good.
_MAX_SUCCESSIVE_FAILURES = 10

_PORTING_HINT = (
    "gymnasium's `step` returns (observation, reward, terminated, truncated, info) and its "
    "`reset(*, seed=None, options=None)` returns (observation, info)"
)


class SerialVectorEnv(VectorEnvironment):
    """Environments stepped one after the other in this process.

    Parameters
    ----------
    make_one : callable of int
        Makes the environment of an index and says after how many steps its episodes are truncated, or None.
    num_envs : int
    name : str
        For messages.
    horizon : int, optional
        Episodes are truncated after so many steps at the latest.
    restart_failed : bool, default=False
        Make an environment that raises anew and count its episode as truncated, instead of raising.
    check : bool, default=True
        Check observations and rewards as they come.
    first : tuple, optional
        What ``make_one(0)`` returned, if it was called already.
    try_out : bool, default=True
        Whether ``check`` includes a few steps of the first environment beforehand.

    Notes
    -----
    Observations and rewards of successive steps go to successive rows of one buffer, so that whether they are finite
    and inside their space is checked for many steps at once.
    """

    is_native = False

    def __init__(
        self,
        make_one: Callable[[int], tuple[Any, int | None]],
        num_envs: int,
        *,
        name: str,
        horizon: int | None = None,
        restart_failed: bool = False,
        check: bool = True,
        first: tuple[Any, int | None] | None = None,
        try_out: bool = True,
    ) -> None:
        from mltoolkit.rllib.env.checking import check_env

        self.num_envs = num_envs
        self.name = name
        self.num_faulty_episodes = 0
        self._make_one = make_one
        self._horizon = horizon
        self._restart_failed = restart_failed
        self._check = check
        self._seed: int | None = None
        self._restarts = [0] * num_envs
        self._successive_failures = [0] * num_envs
        self._closed = False
        self._was_reset = False

        env, limit = first or make_one(0)
        self.envs = [env]
        try:
            self.observation_space = to_gymnasium_space(env.observation_space)
            self.action_space = to_gymnasium_space(env.action_space)
            check_observation_space(self.observation_space, name)
            check_action_space(self.action_space, name)
            if check and try_out:
                check_env(env, name)
            limits = [limit]
            for index in range(1, num_envs):
                env, limit = make_one(index)
                self.envs.append(env)
                self._check_same_spaces(env, index)
                limits.append(limit)
        except BaseException:
            self.close()
            raise
        self._steps = [env.step for env in self.envs]
        self._limits = [self._smaller(limit) for limit in limits]

        self._array_observations = is_array_space(self.observation_space)
        # Only observations of exactly this type and shape take the shortest way.
        self._shape: Any = self.observation_space.shape if self._array_observations else None
        self._dtype: Any = np.dtype(self.observation_space.dtype) if self._array_observations else None
        self._nested_checker = NestedObservationChecker(self.observation_space, name)
        self._pending = PendingChecks(self.observation_space, num_envs, name, enabled=check)
        self._observations: Any = self._pending.observations[0]
        self._terminateds: Any = np.zeros(num_envs, dtype=np.bool_)
        self._truncateds: Any = np.zeros(num_envs, dtype=np.bool_)
        self.faulty = np.zeros(num_envs, dtype=np.bool_)
        self._infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        self._dones: list[bool] = [False] * num_envs
        self._lengths: list[int] = [0] * num_envs

    @property
    def last_infos(self) -> list[dict[str, Any]]:
        """What the environments said at the last step or reset."""
        return self._infos

    @property
    def observations(self) -> Any:
        """The latest observations."""
        return self._observations

    @property
    def dones(self) -> Any:
        """Whose next step starts a new episode."""
        return np.array(self._dones)

    def reset(self, seed: int | Sequence[int | None] | None = None, *, options: dict[str, Any] | None = None) -> Any:
        """Start an episode in every environment; see `VectorEnvironment.reset`.

        Parameters
        ----------
        seed : int, or sequence of int or None, optional
            Of the vector, or of every environment.
        options : dict, optional
            Handed to every environment's ``reset``.
        """
        seeds = env_seeds(seed, self.num_envs) if seed is None or isinstance(seed, (int, np.integer)) else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"`seed` must be one integer or {self.num_envs} of them, got {len(seeds)}.")
        self._seed = next((value for value in (seed, seeds[0]) if isinstance(value, (int, np.integer))), None)
        self._was_reset = True
        self._restarts = [0] * self.num_envs
        self.check_pending()
        self._observations, rewards = self._pending.next_row()
        rewards.fill(0.0)
        self._infos = [{} for _ in range(self.num_envs)]
        for index, env_seed in enumerate(seeds):
            self._begin_episode(index, env_seed, options)
        return self._observations

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any]:
        """Take one action in every environment; see `VectorEnvironment.step`."""
        observations, rewards = self._pending.next_row()
        previous, self._observations = self._observations, observations
        terminateds, truncateds, dones, lengths = self._terminateds, self._truncateds, self._dones, self._lengths
        limits, infos, dtype, shape, steps = self._limits, self._infos, self._dtype, self._shape, self._steps
        ndarray, numbers = np.ndarray, _NUMBERS
        terminateds.fill(False)
        truncateds.fill(False)
        if self.num_faulty_episodes:
            self.faulty.fill(False)

        for index, action in enumerate(self._split(actions)):
            if dones[index]:
                rewards[index] = 0.0
                self._begin_episode(index, None)
                continue
            try:
                result = steps[index](action)
            except Exception as error:
                observations[index] = previous[index]
                rewards[index] = 0.0
                self._restart_after_failed_step(index, error)
                continue
            if result.__class__ is not tuple or len(result) != 5:
                result = self._unusual_result(index, result)
            observation, reward, terminated, truncated, info = result
            lengths[index] = length = lengths[index] + 1
            if observation.__class__ is ndarray and observation.dtype is dtype and observation.shape == shape:
                observations[index] = observation
            else:
                observations[index] = self._convert_observation(index, observation)
            rewards[index] = reward if reward.__class__ in numbers else self._convert_reward(index, reward)
            if terminated is not False and (terminated is True or self._flag(index, terminated, "terminated")):
                terminateds[index] = dones[index] = True
            if truncated is not False and (truncated is True or self._flag(index, truncated, "truncated")):
                truncateds[index] = dones[index] = True
            if length >= limits[index]:
                truncateds[index] = dones[index] = True
            infos[index] = info if info.__class__ is dict else self._convert_info(index, info)
        return observations, rewards, terminateds, truncateds

    def begin_episode(self, index: int) -> Any:
        """Start the next episode of one environment now rather than at the next step.

        Parameters
        ----------
        index : int

        Returns
        -------
        observation
            The first of the episode. ``observations`` has it too.
        """
        self._begin_episode(index, None)
        return self._observations[index]

    def end_episode(self, index: int) -> None:
        """Have the next step start an episode of one environment, whatever became of the present one.

        Parameters
        ----------
        index : int
        """
        self._dones[index] = True

    def check_pending(self) -> None:
        """Check what has not been checked yet; see `VectorEnvironment.check_pending`."""
        self._pending.check()

    def get_state(self) -> dict[str, Any] | None:
        """What the next steps depend on; see `VectorEnvironment.get_state`."""
        from mltoolkit.rllib.env.env_state import snapshot_vector

        return snapshot_vector(
            self.envs,
            kind="serial",
            name=self.name,
            extra={
                "observations": self._observations,
                "dones": self._dones,
                "lengths": self._lengths,
                "restarts": self._restarts,
                "seed": self._seed,
                "num_faulty_episodes": self.num_faulty_episodes,
            },
        )

    def set_state(self, state: dict[str, Any] | None, *, seed: int | None = None) -> Any:
        """Go on from a state; see `VectorEnvironment.set_state`."""
        from mltoolkit.rllib.env.env_state import restore_vector

        # Some environments make the objects that hold their state only in `reset`.
        if state is None or seed is not None or not self._was_reset:
            self.reset(seed)
        if state is None:
            return self._observations
        extra = restore_vector(self.envs, state, kind="serial", name=self.name)
        if extra is None:
            return self.reset(seed)
        observations = extra["observations"]
        for index in range(self.num_envs):
            self._observations[index] = observations[index]
        self._dones[:] = extra["dones"]
        self._lengths[:] = extra["lengths"]
        self._restarts[:] = extra["restarts"]
        self._seed = extra["seed"]
        self.num_faulty_episodes = extra["num_faulty_episodes"]
        return self._observations

    def close(self) -> None:
        """Close the environments; what they raise is logged."""
        if self._closed:
            return
        self._closed = True
        for index, env in enumerate(self.envs):
            self._close_one(index, env)

    # What follows runs seldom.

    def _smaller(self, limit: int | None) -> float:
        limits = [value for value in (limit, self._horizon) if value is not None]
        return min(limits, default=float("inf"))

    def _check_same_spaces(self, env: Any, index: int) -> None:
        for what in ("observation_space", "action_space"):
            given, expected = to_gymnasium_space(getattr(env, what)), getattr(self, what)
            if given != expected:
                raise InvalidEnvResultError(
                    f"Environment {index} ({self.name}) has the {what} {given!r}, but environment 0 has {expected!r}. "
                    "All environments of a vector need the same spaces.",
                    env_index=index,
                )

    def _split(self, actions: Any) -> Any:
        """One action per environment: of the space's dtype, and none a view of what the caller may overwrite."""
        space = self.action_space
        array = np.array(actions, dtype=space.dtype)
        if array.shape != (self.num_envs, *space.shape):
            raise ValueError(
                f"`actions` must have the shape {(self.num_envs, *space.shape)}: one element of {space!r} for each of "
                f"{self.num_envs} environments; got {array.shape}."
            )
        return list(array)

    def _begin_episode(self, index: int, seed: int | None, options: dict[str, Any] | None = None) -> None:
        while True:
            try:
                result = reset_env(self.envs[index], seed, options)
                break
            except Exception as error:
                self._failed(index, EnvResetError, error, "reset()", 0)
                self._remake(index)
                seed = self._restart_seed(index)
        observation, info = self._understand_reset(index, result)
        self._lengths[index] = 0
        self._dones[index] = False
        fits = (
            observation.__class__ is np.ndarray
            and observation.dtype is self._dtype
            and observation.shape == self._shape
        )
        self._observations[index] = observation if fits else self._convert_observation(index, observation)
        self._infos[index] = info

    def _understand_reset(self, index: int, result: Any) -> tuple[Any, dict[str, Any]]:
        """Observation and info of gymnasium's reset, or of the older gym's, which returns the observation alone."""
        if type(result) is tuple and len(result) == 2 and not self._is_observation(result):
            if isinstance(result[1], dict):
                return result
            raise InvalidEnvResultError(
                f"`reset` of environment {index} ({self.name}) returned an info of type {type(result[1]).__name__}; it "
                f"must be a dict: {_PORTING_HINT}.",
                env_index=index,
                step=0,
            )
        self._adapt_old_gym(index)
        return result, {}

    def _is_observation(self, result: tuple[Any, Any]) -> bool:
        """Whether two things that `reset` returned are one observation: those of a space that has two parts."""
        if self._array_observations:
            return self._shape == (2,) and np.shape(result[0]) == ()
        return len(self.observation_space.spaces) == 2 and bool(self.observation_space.contains(result))

    def _adapt_old_gym(self, index: int) -> None:
        env = self.envs[index]
        self.envs[index] = OldGymEnv(env)
        self._steps[index] = self._check_old_step(index, env)

    def _check_old_step(self, index: int, env: Any) -> Callable[[Any], Any]:
        """A `step` that takes the older API's four, and gymnasium's five from environments that are half ported."""

        def step(action: Any) -> Any:
            result = env.step(action)
            return result if type(result) is tuple and len(result) == 5 else self._unusual_result(index, result)

        return step

    def _unusual_result(self, index: int, result: Any) -> tuple[Any, Any, Any, Any, Any]:
        if isinstance(result, (tuple, list)) and len(result) == 5:
            return tuple(result)
        try:
            return OldGymEnv.translate(result)
        except InvalidEnvResultError:
            raise InvalidEnvResultError(
                f"`step` of environment {index} ({self.name}) returned {describe_result(result)} at step "
                f"{self._lengths[index] + 1}: {_PORTING_HINT}.",
                env_index=index,
                step=self._lengths[index] + 1,
            ) from None

    def _convert_observation(self, index: int, observation: Any) -> Any:
        """An observation as the buffer takes it, or an error."""
        step = self._lengths[index]
        if not self._array_observations:
            if self._check:
                self._nested_checker(observation, index, step)
            return observation
        try:
            array = np.asarray(observation)
        except ValueError:  # lists of unequal length
            array = np.empty((), dtype=object)
        if array.dtype.kind not in "biuf" or array.shape != self._shape:
            given = f"shape {array.shape} and dtype {array.dtype}"
            if array.dtype.kind not in "biuf":
                given = f"{observation!r:.200} of type {type(observation).__name__}"
            raise InvalidObservationError(
                f"Environment {index} ({self.name}) gave an observation of another kind than its space at step {step}: "
                f"{given}, where shape {self._shape} and dtype {self._dtype} belong: {self.observation_space!r}.",
                env_index=index,
                step=step,
            )
        if np.can_cast(array.dtype, self._dtype, "same_kind"):
            return array
        cast = array.astype(self._dtype)
        if array.dtype.kind in "biu" and (cast == array).all():
            return cast
        raise InvalidObservationError(
            f"Environment {index} ({self.name}) gave an observation of dtype {array.dtype} at step {step} that cannot be "
            f"kept as {self._dtype}, the dtype of its space {self.observation_space!r}. Correct the space or convert "
            "the observation.",
            env_index=index,
            step=step,
        )

    def _convert_reward(self, index: int, reward: Any) -> float:
        try:
            array = np.asarray(reward)
            if array.size == 1 and array.dtype.kind in "biuf":
                return float(array.reshape(()))
        except ValueError:
            pass
        raise InvalidRewardError(
            f"Environment {index} ({self.name}) gave a reward that is not a number at step {self._lengths[index]}: "
            f"{reward!r:.200} of type {type(reward).__name__}.",
            env_index=index,
            step=self._lengths[index],
        )

    def _flag(self, index: int, value: Any, what: str) -> bool:
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        if (
            isinstance(value, (int, np.integer, np.ndarray))
            and np.size(value) == 1
            and np.asarray(value).item() in (0, 1)
        ):
            return bool(np.asarray(value).item())
        raise InvalidEnvResultError(
            f"`step` of environment {index} ({self.name}) returned {value!r:.200} of type {type(value).__name__} as "
            f"`{what}` at step {self._lengths[index]}; it must be a bool: {_PORTING_HINT}.",
            env_index=index,
            step=self._lengths[index],
        )

    def _convert_info(self, index: int, info: Any) -> dict[str, Any]:
        if info is None or isinstance(info, dict):
            return info or {}
        raise InvalidEnvResultError(
            f"`step` of environment {index} ({self.name}) returned an info of type {type(info).__name__} at step "
            f"{self._lengths[index]}; it must be a dict: {_PORTING_HINT}.",
            env_index=index,
            step=self._lengths[index],
        )

    def _restart_after_failed_step(self, index: int, error: Exception) -> None:
        self._failed(index, EnvStepError, error, "step()", self._lengths[index] + 1)
        self._remake(index)
        self._truncateds[index] = self._dones[index] = self.faulty[index] = True
        self._infos[index] = {"faulty_episode": True, "error": describe_cause(error)}
        self.num_faulty_episodes += 1

    def _failed(self, index: int, kind: type[EnvError], error: Exception, where: str, step: int) -> None:
        """Raise the user's error, unless the environment may be made anew."""
        if self._lengths[index] > 0:
            self._successive_failures[index] = 0
        self._successive_failures[index] += 1
        at = f" at step {step} of its episode" if step else ""
        text = f"Environment {index} ({self.name}) raised in {where}{at}: {describe_cause(error)}"
        if isinstance(error, TypeError) and "'seed'" in str(error):
            text += f"\nSome wrapper hands `seed` on to a `reset` that does not take it: {_PORTING_HINT}."
        if self._restart_failed and self._successive_failures[index] <= _MAX_SUCCESSIVE_FAILURES:
            logger.warning("%s\nIt is made anew; its episode counts as truncated.", text)
            return
        if self._restart_failed:
            text = f"{text}\nIt was made anew {_MAX_SUCCESSIVE_FAILURES} times in succession, and not one step worked."
        raise kind(text, env_index=index, step=step) from error

    def _remake(self, index: int) -> None:
        self._close_one(index, self.envs[index])
        env, limit = self._make_one(index)
        self._check_same_spaces(env, index)
        self.envs[index] = env
        self._steps[index] = env.step
        self._limits[index] = self._smaller(limit)
        self._restarts[index] += 1
        self._lengths[index] = 0

    def _restart_seed(self, index: int) -> int | None:
        if self._seed is None:
            return None
        return int(np.random.SeedSequence([self._seed, index, self._restarts[index]]).generate_state(1)[0]) >> 1

    def _close_one(self, index: int, env: Any) -> None:
        close = getattr(env, "close", None)
        if not callable(close):
            return
        try:
            close()
        except Exception as error:
            logger.warning("Environment %d (%s) raised in close(): %s", index, self.name, describe_cause(error))

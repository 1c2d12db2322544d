"""Several environments stepped together, each starting anew by itself."""

from __future__ import annotations

import abc
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.env.env_context import EnvContext
from mltoolkit.rllib.env.spaces import check_observations

if TYPE_CHECKING:
    from mltoolkit.rllib.env.registration import EnvSource

__all__ = ["VECTORIZE_MODES", "VectorEnvironment", "check_observations", "env_seeds", "make_vector_env"]

logger = logging.getLogger(__name__)

VECTORIZE_MODES = ("auto", "sync", "async", "vector_entry_point")

#: From how many environments on a native vector environment is faster than ours (CartPole: 55 us a step whatever the
#: number, against 7 us per environment).
NATIVE_FROM = 8


class VectorEnvironment(abc.ABC):
    """``num_envs`` environments with next-step autoreset.

    When the episode of environment n ends at some step, that step returns its true last observation. The next step
    ignores the action of n, starts its next episode and returns the first observation, reward 0 and False flags.

    Arrays that are returned belong to the vector environment, which overwrites them later: copy what is to be kept.
    An instance belongs to one thread.

    Attributes
    ----------
    num_envs : int
    observation_space, action_space : gymnasium.Space
        Of one environment.
    envs : list
        The environments below; empty where they are not separate objects.
    is_native : bool
        Whether the environments are stepped by a gymnasium ``VectorEnv``.
    last_infos : list of dict or None
        What the environments said at the last step or reset; None if none said anything.
    observations : ndarray of shape (num_envs, *observation_space.shape), or list
        The latest, what the next action answers.
    dones : ndarray of shape (num_envs,), dtype=bool
        Whose episode has ended: their next step starts a new one.
    faulty : ndarray of shape (num_envs,), dtype=bool
        Whose episode was cut short by an error of the environment at the last step.
    num_faulty_episodes : int
        How many were, since the start.
    """

    num_envs: int
    observation_space: Any
    action_space: Any
    envs: list[Any]
    is_native: bool
    name: str
    observations: Any
    dones: Any
    faulty: Any
    num_faulty_episodes: int

    @property
    @abc.abstractmethod
    def last_infos(self) -> list[dict[str, Any]] | None:
        """What the environments said at the last step or reset."""

    @abc.abstractmethod
    def reset(self, seed: int | None = None) -> Any:
        """Start an episode in every environment.

        Parameters
        ----------
        seed : int, optional
            Seeds every environment differently; the same seed gives the same episodes. None keeps their generators.

        Returns
        -------
        observations : ndarray of shape (num_envs, *observation_space.shape), or list of nested observations
        """

    @abc.abstractmethod
    def step(self, actions: Any) -> tuple[Any, Any, Any, Any]:
        """Take one action in every environment.

        Parameters
        ----------
        actions : ndarray of shape (num_envs, *action_space.shape)
            Elements of the action space.

        Returns
        -------
        observations : as `reset` returns
        rewards : ndarray of shape (num_envs,), dtype=float64
        terminateds, truncateds : ndarray of shape (num_envs,), dtype=bool
        """

    @abc.abstractmethod
    def check_pending(self) -> None:
        """Check the observations and rewards that have not been checked yet; call it once per fragment.

        Raises
        ------
        InvalidObservationError, InvalidRewardError
            For values that are not finite, or outside the observation space.
        """

    @abc.abstractmethod
    def get_state(self) -> dict[str, Any] | None:
        """Everything that the next steps depend on, as plain data; None if some environment hides part of it."""

    @abc.abstractmethod
    def set_state(self, state: dict[str, Any] | None, *, seed: int | None = None) -> Any:
        """Go on from a state of `get_state`, taken from a vector environment made in the same way.

        Parameters
        ----------
        state : dict or None
            None, or one that does not fit, starts new episodes with ``seed``.
        seed : int, optional

        Returns
        -------
        observations
            Those that the next actions answer; ``dones`` says whose next step starts an episode.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close the environments. May be called more than once."""


def env_seeds(seed: int | None, num_envs: int) -> list[int | None]:
    """One independent seed per environment.

    Examples
    --------
    >>> len(set(env_seeds(0, 4))), env_seeds(None, 2)
    (4, [None, None])
    """
    if seed is None:
        return [None] * num_envs
    # 31 bits: some environments hand their seed to libraries that take a signed integer.
    return [int(state) >> 1 for state in np.random.SeedSequence(seed).generate_state(num_envs)]


def make_vector_env(
    env: Any,
    env_config: Mapping[str, Any] | None,
    num_envs: int,
    *,
    worker_index: int = 0,
    num_workers: int | None = None,
    recreated_worker: bool = False,
    remote: bool = False,
    horizon: int | None = None,
    restart_failed_sub_environments: bool = False,
    vectorize_mode: str = "auto",
    check: bool = True,
) -> VectorEnvironment:
    """Make a vector of environments.

    Parameters
    ----------
    env : str, class, callable or EnvSource
        What `resolve_env` takes or has returned.
    env_config : mapping, optional
        The environments' configuration: keyword arguments of a gymnasium environment, the argument of others.
    num_envs : int
    worker_index, num_workers, recreated_worker, remote
        Of the runner; environments find them in their `EnvContext`.
    horizon : int, optional
        Episodes are truncated after so many steps; a shorter limit of the environment's own stays.
    restart_failed_sub_environments : bool, default=False
        Make an environment that raises anew and count its episode as truncated, instead of raising.
    vectorize_mode : {'auto', 'sync', 'async', 'vector_entry_point'}, default='auto'
        ``"sync"`` steps the environments one after the other, ``"async"`` each in a process of its own,
        ``"vector_entry_point"`` all at once by the environment's own vector implementation. ``"auto"`` takes the last
        where there is one that does the same and pays, and ``"sync"`` otherwise.
    check : bool, default=True
        Try the environment out first, and check observations and rewards as they come.

    Returns
    -------
    VectorEnvironment

    Raises
    ------
    EnvError
        One of its subclasses: unknown, cannot be made, spaces that are not supported, wrong results.

    Examples
    --------
    >>> vector = make_vector_env("CartPole-v1", {}, 2)
    >>> vector.reset(seed=0).shape
    (2, 4)
    >>> observations, rewards, terminateds, truncateds = vector.step([0, 1])
    >>> rewards
    array([1., 1.])
    """
    from mltoolkit.rllib.env.registration import resolve_env
    from mltoolkit.rllib.env.serial_vector_env import SerialVectorEnv

    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise ValueError(f"`num_envs` must be an integer of at least 1, got {num_envs!r}.")
    if horizon is not None and (isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1):
        raise ValueError(f"`horizon` must be None or an integer of at least 1, got {horizon!r}.")
    mode = str(getattr(vectorize_mode, "value", vectorize_mode)).lower()
    if mode not in VECTORIZE_MODES:
        raise ValueError(f"`vectorize_mode` must be one of {list(VECTORIZE_MODES)}, got {vectorize_mode!r}.")

    source = resolve_env(env)
    context = EnvContext(
        env_config, worker_index, remote=remote, num_workers=num_workers, recreated_worker=recreated_worker
    )
    if mode == "vector_entry_point" and source.creator is not None:
        # As RLlib: the function is told how many, and returns a vector environment.
        env, _ = source.make(context.copy_with_overrides(env_config={**context, "num_envs": num_envs}))
        return _given(source, env, num_envs, horizon, restart_failed_sub_environments, check)
    if mode in ("auto", "vector_entry_point"):
        native = _native(source, context, num_envs, horizon, mode, restart_failed_sub_environments, check)
        if native is not None:
            return native
    if mode == "async":
        return _async(source, context, num_envs, horizon, restart_failed_sub_environments, check)

    first, limit = source.make(context)
    if source.is_vector_env(first):
        return _given(source, first, num_envs, horizon, restart_failed_sub_environments, check)
    return SerialVectorEnv(
        lambda index: source.make(context.copy_with_overrides(vector_index=index)),
        num_envs,
        name=source.name,
        horizon=horizon,
        restart_failed=restart_failed_sub_environments,
        check=check,
        first=(first, limit),
    )


def _native(
    source: EnvSource,
    context: EnvContext,
    num_envs: int,
    horizon: int | None,
    mode: str,
    restart_failed: bool,
    check: bool,
) -> VectorEnvironment | None:
    """The environment's own vector implementation, or None where "auto" is better served otherwise."""
    from mltoolkit.rllib.env.native_vector_env import NativeVectorEnv

    asked = mode == "vector_entry_point"
    reason = source.why_not_native(context, horizon)
    if not reason and restart_failed:
        reason = "`restart_failed_sub_environments` needs environments that can be made anew one by one"
    if not asked and (reason or num_envs < NATIVE_FROM):
        return None
    if reason:
        raise ValueError(
            f"`vectorize_mode='vector_entry_point'` is not possible for {source.name}: {reason}. Take 'auto' or 'sync'."
        )
    env = source.make_native(context, num_envs, horizon)
    why_not = NativeVectorEnv.why_not(env)
    if not why_not:
        return NativeVectorEnv(env, name=source.name, check=check)
    env.close()
    if asked:
        raise ValueError(
            f"`vectorize_mode='vector_entry_point'` is not possible for {source.name}: {why_not}. Take 'auto' or 'sync'."
        )
    logger.info("Stepping %s environment by environment: %s.", source.name, why_not)
    return None


def _async(
    source: EnvSource, context: EnvContext, num_envs: int, horizon: int | None, restart_failed: bool, check: bool
) -> VectorEnvironment:
    from mltoolkit.rllib.env.native_vector_env import NativeVectorEnv

    if restart_failed:
        raise ValueError(
            "`restart_failed_sub_environments=True` does not go with `vectorize_mode='async'`. Take 'sync' and more "
            "env runners."
        )
    return NativeVectorEnv(source.make_async(context, num_envs, horizon), name=source.name, check=check)


def _given(
    source: EnvSource, env: Any, num_envs: int, horizon: int | None, restart_failed: bool, check: bool
) -> VectorEnvironment:
    """A gymnasium vector environment that the user made."""
    from mltoolkit.rllib.env.errors import UnsupportedEnvError
    from mltoolkit.rllib.env.native_vector_env import NativeVectorEnv

    if not source.is_vector_env(env):
        raise UnsupportedEnvError(
            f"`vectorize_mode='vector_entry_point'` needs a function that returns a `gymnasium.vector.VectorEnv` of "
            f"`env_config['num_envs']` environments, but {source.name} returned a {type(env).__name__}. Take 'auto'."
        )
    problem = NativeVectorEnv.why_not(env)
    if not problem and env.num_envs != num_envs:
        problem = f"it has {env.num_envs} environments, but `num_envs_per_env_runner` is {num_envs}"
    if not problem and horizon is not None:
        problem = "`horizon` cannot be enforced inside it; limit its episodes yourself"
    if not problem and restart_failed:
        problem = "`restart_failed_sub_environments` needs environments that can be made anew one by one"
    if problem:
        env.close()
        raise UnsupportedEnvError(f"The vector environment that {source.name} returned cannot be used: {problem}.")
    return NativeVectorEnv(env, name=source.name, check=check)

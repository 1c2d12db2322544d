"""Steps environments with the current policy and hands out what happened."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from mltoolkit.rllib.callbacks.callbacks import CallbackCaller
from mltoolkit.rllib.connectors.pipeline import build_pipelines
from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.env.episode_tracker import EpisodeTracker
from mltoolkit.rllib.env.errors import EnvError
from mltoolkit.rllib.env.inference import Inference, make_inference
from mltoolkit.rllib.env.vector_env import make_vector_env
from mltoolkit.rllib.utils.metrics.metrics_logger import MetricsLogger

__all__ = ["SingleAgentEnvRunner"]

logger = logging.getLogger(__name__)

_NO_EPISODE_WARNING_STEPS = 100_000


class SingleAgentEnvRunner:
    """Vectorised environments and a policy that acts in them.

    Runs in the algorithm's process (``num_env_runners=0``) or as an actor.

    Parameters
    ----------
    config : AlgorithmConfig
    worker_index : int, default=0
        0 for the one in the algorithm's process, from 1 for actors.
    seed : sequence of int, optional
        What all randomness here is derived from, the index of the runner among it.
    recreated : bool, default=False
        Whether this one takes the place of one that was lost.
    registered : dict, optional
        What the algorithm's process registered and this one needs, by kind and name.

    Attributes
    ----------
    env : VectorEnvironment
    config : AlgorithmConfig
    worker_index : int
    module : RLModule or None
        The torch module; None where the policy is a plain network that runs in numpy.
    """

    def __init__(
        self,
        config: Any,
        worker_index: int = 0,
        seed: tuple[int, ...] | None = None,
        recreated: bool = False,
        registered: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        if registered:
            from mltoolkit.tune.registry import install

            install(registered)
        self.config = config
        self.worker_index = worker_index
        self._callbacks = CallbackCaller(config)
        self.metrics = MetricsLogger(record=True)
        self.env = make_vector_env(
            config.env,
            config.env_config,
            config.num_envs_per_env_runner,
            worker_index=worker_index,
            num_workers=config.num_env_runners,
            recreated_worker=recreated,
            horizon=config.horizon,
            check=not config.disable_env_checking,
            restart_failed_sub_environments=config.restart_failed_sub_environments,
            vectorize_mode=config.gym_env_vectorize_mode,
        )
        self.num_envs = self.env.num_envs
        self._observe, self._act = build_pipelines(
            config, self.env.observation_space, self.env.action_space, self.num_envs, env=self.env
        )
        seeds = np.random.SeedSequence(seed).spawn(2)
        self._rng = np.random.default_rng(seeds[0])
        self._env_seed: int | None = int(seeds[1].generate_state(1, np.uint64)[0] % 2**31)
        self._policy: Inference | None = None
        self._weights: dict[str, np.ndarray] = {}
        self._policy_state: dict[str, np.ndarray] = {}
        self._obs: np.ndarray | None = None
        self._first: np.ndarray = np.ones(self.num_envs, bool)
        self._done: np.ndarray = np.zeros(self.num_envs, bool)
        self._episodes = EpisodeTracker(self, self._callbacks)
        self._steps_without_episode = 0
        self.num_env_steps_lifetime = 0
        self._callbacks.call(
            "on_environment_created",
            env_runner=self,
            worker=self,
            metrics_logger=self.metrics,
            env=self.env,
            env_context=config.env_config,
        )

    @property
    def module(self) -> Any:
        """The torch module, or None where the policy runs in numpy."""
        return None if self._policy is None else self._policy.module

    def spaces(self) -> tuple[Any, Any]:
        """The spaces of observations and actions as a single environment has them."""
        return self.env.observation_space, self.env.action_space

    def ping(self) -> bool:
        """Answer, to show that the process is well."""
        return True

    def apply(self, function: Any) -> Any:
        """What `function` gives for this runner."""
        return function(self)

    def foreach_env(self, function: Any) -> list[Any]:
        """What `function` gives for each environment of the runner, without the wrappers that only check and count.

        Raises
        ------
        EnvError
            If the environments are stepped all at once and do not exist one by one.
        """
        if not self.env.envs:
            raise EnvError(
                "These environments are stepped as one and cannot be visited one by one; "
                "env_runners(gym_env_vectorize_mode='sync') makes single ones."
            )
        return [function(env) for env in self.env.envs]

    def get_weights(self) -> dict[str, dict[str, np.ndarray]]:
        """The weights that it acts by; without those of the value function where the policy runs in numpy."""
        return {"default_policy": {name: np.array(value) for name, value in self._weights.items()}}

    def get_policy(self, policy_id: str = "default_policy") -> Any:
        """The policy, as older programs look at it in a runner."""
        from mltoolkit.rllib.policy.policy import RunnerPolicy

        if policy_id != "default_policy":
            raise KeyError(f"There is no policy {policy_id!r}: a runner has one, 'default_policy'.")
        return RunnerPolicy(self)

    def reset(self) -> None:
        """Begin new episodes in all environments."""
        observations = self.env.reset(self._env_seed)
        self._env_seed = None
        self._first[:] = True
        self._done[:] = False
        self._obs = self._seen(observations, self._first)
        if self._policy is not None:
            self._policy_state = self._policy.initial_state(self.num_envs)
        self._episodes.begin_all(observations)

    def sample(
        self, state: dict[str, Any], *, num_env_steps: int, explore: bool = True, complete_episodes: bool = False
    ) -> dict[str, Any]:
        """Take steps in all environments.

        Parameters
        ----------
        state : dict
            ``weights`` (dict of arrays), ``description`` (of the network, or None), ``connectors`` (statistics of
            filters, or None).
        num_env_steps : int
            Steps to take, all environments together; the time that environments need to begin a new episode is not
            counted.
        explore : bool, default=True
            Draw actions; False takes the likeliest ones.
        complete_episodes : bool, default=False
            Begin with new episodes and go on until each environment has ended its own.

        Returns
        -------
        dict
            ``fragment`` (time-major arrays, T steps of N environments: see :mod:`mltoolkit.rllib.core.fragment`),
            ``episodes``, ``metrics``, ``connector_delta``, ``num_env_steps``, ``seconds``.
        """
        start = time.perf_counter()
        self.take_state(state)
        if self._obs is None or complete_episodes:
            self.reset()
        steps = _Steps(self, num_env_steps)
        policy, env, rng, observe, act = self._policy, self.env, self._rng, self._observe, self._act
        assert policy is not None and self._obs is not None
        obs, first, done, policy_state = self._obs, self._first, self._done, self._policy_state
        stateful = bool(policy_state)
        taken, t, n = 0, 0, self.num_envs
        finished: np.ndarray = np.zeros(n, bool)
        tracks_actions = observe.wants_previous
        while True:
            if taken >= num_env_steps and (not complete_episodes or finished.all()):
                break
            if t == steps.size:
                if complete_episodes:
                    self._check_time(start)
                steps.grow()
            if stateful:
                if first.any():
                    policy_state = _restarted(policy_state, policy.initial_state(1), first)
                steps.begin(t, obs, first, policy_state)
            else:
                steps.obs[t] = obs
            actions, logp, inputs, policy_state = policy(obs, policy_state, rng, explore)
            for_env = act(actions)
            try:
                observations, raw, terminateds, truncateds = env.step(for_env)
            except EnvError:
                # A NaN observation may be behind it, through the action that followed from it: that is to be told.
                env.check_pending()
                raise
            # An environment whose episode had ended spends the step on its reset: nothing to learn from.
            live = ~done
            first, done = done, terminateds | truncateds
            if complete_episodes and taken >= num_env_steps:
                live &= ~finished
            steps.actions[t] = actions
            steps.logp[t] = logp
            steps.inputs[t] = inputs
            steps.rewards[t] = observe.rewards(raw, terminateds, truncateds)
            steps.terminateds[t] = terminateds
            steps.truncateds[t] = truncateds
            steps.mask[t] = live
            self._episodes.step(observations, for_env, raw, terminateds, truncateds, first, done, counts=~finished)
            obs = self._seen(observations, first, actions, raw) if tracks_actions else self._seen(observations, first)
            taken += n if live.all() else int(live.sum())
            t += 1
            if complete_episodes and taken >= num_env_steps:
                finished |= done | first  # at its end, or before the first step of another episode
        self._obs, self._first, self._done, self._policy_state = obs, first, done, policy_state
        fragment = steps.fragment(t, obs, first)
        env.check_pending()
        self.num_env_steps_lifetime += taken
        episodes = self._episodes.pop()
        self._warn_if_endless(taken, len(episodes["returns"]))
        self._callbacks.call(
            "on_sample_end", env_runner=self, worker=self, metrics_logger=self.metrics, samples=fragment
        )
        return {
            "fragment": fragment,
            "episodes": episodes,
            "metrics": self.metrics.pop_calls(),
            "connector_delta": observe.pop_delta(),
            "num_env_steps": taken,
            "seconds": time.perf_counter() - start,
            "worker_index": self.worker_index,
        }

    def evaluate(
        self,
        state: dict[str, Any],
        *,
        num_episodes: int | None = None,
        num_env_steps: int | None = None,
        explore: bool = True,
        reset: bool = True,
        timeout_s: float | None = 120.0,
    ) -> dict[str, Any]:
        """Run episodes without keeping what is learnt from.

        Parameters
        ----------
        state : dict
            As in :meth:`sample`.
        num_episodes : int, optional
            Episodes to finish. Each environment has its share of them: counting whichever ends first would prefer
            short ones.
        num_env_steps : int, optional
            Steps to take in place of that.
        explore : bool, default=True
        reset : bool, default=True
            Begin with new episodes.
        timeout_s : float or None, default=120
            Seconds after which it ends with the episodes there are; None: it does not.

        Returns
        -------
        dict
            ``episodes``, ``metrics``, ``num_env_steps``, ``seconds``, ``timed_out``.
        """
        start = time.perf_counter()
        self.take_state(state)
        if self._obs is None or reset:
            self.reset()
        policy, env, rng, act = self._policy, self.env, self._rng, self._act
        assert policy is not None
        n = self.num_envs
        quota = np.full(n, np.iinfo(np.int64).max)
        if num_episodes is not None:
            quota = np.full(n, num_episodes // n)
            quota[: num_episodes % n] += 1
        taken, timed_out = 0, False
        while (quota > 0).any() and (num_env_steps is None or taken < num_env_steps):
            if timeout_s is not None and time.perf_counter() - start > timeout_s:
                timed_out = True
                break
            assert self._obs is not None
            if self._policy_state and self._first.any():
                self._policy_state = _restarted(self._policy_state, policy.initial_state(1), self._first)
            actions, _, _, self._policy_state = policy(self._obs, self._policy_state, rng, explore)
            for_env = act(actions)
            observations, raw, terminateds, truncateds = env.step(for_env)
            counts = quota > 0
            live = ~self._done & counts
            self._first, self._done = self._done, terminateds | truncateds
            self._episodes.step(
                observations, for_env, raw, terminateds, truncateds, self._first, self._done, counts=counts
            )
            quota -= self._done & live
            self._obs = self._seen(observations, self._first, actions, raw)
            taken += int(live.sum())
        env.check_pending()
        return {
            "episodes": self._episodes.pop(),
            "metrics": self.metrics.pop_calls(),
            "num_env_steps": taken,
            "seconds": time.perf_counter() - start,
            "timed_out": timed_out,
            "worker_index": self.worker_index,
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Take up the weights and the statistics of filters."""
        if self._policy is None:
            self._policy = make_inference(
                self.config, self._observe.observation_space, self.env.action_space, state["description"]
            )
            if self._obs is not None and not self._policy_state:
                self._policy_state = self._policy.initial_state(self.num_envs)
        self._weights = state["weights"]
        self._policy.set_weights(self._weights)
        if state.get("connectors") is not None:
            self._observe.set_statistics(state["connectors"])

    def get_state(self) -> dict[str, Any]:
        """Where all environments and generators are, as data: numbers, strings and arrays.

        Returns
        -------
        dict
            ``env`` is None where an environment's state cannot be recorded; episodes begin anew then.
        """
        if self._obs is None:
            return {"begun": False}
        return {
            "begun": True,
            "env": self.env.get_state(),
            "rng": self._rng.bit_generator.state,
            "obs": self._obs.copy(),
            "first": self._first.copy(),
            "done": self._done.copy(),
            "policy_state": {name: value.copy() for name, value in self._policy_state.items()},
            "pipeline": self._observe.get_state(),
            "episodes": self._episodes.get_state(),
            "num_env_steps_lifetime": self.num_env_steps_lifetime,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` gave."""
        if not state["begun"]:
            return
        self._rng.bit_generator.state = state["rng"]
        self.num_env_steps_lifetime = state["num_env_steps_lifetime"]
        self._observe.set_state(state["pipeline"])
        if state["env"] is None or len(state["first"]) != self.num_envs:
            self._obs = None  # the next sample begins with a reset
            return
        self.env.set_state(state["env"], seed=self._env_seed)
        self._env_seed = None
        self._obs, self._first, self._done = state["obs"].copy(), state["first"].copy(), state["done"].copy()
        self._policy_state = state["policy_state"]
        self._episodes.set_state(state["episodes"])

    def stop(self) -> None:
        """Close the environments."""
        self.env.close()

    def _seen(
        self, observations: Any, first: np.ndarray, actions: np.ndarray | None = None, rewards: np.ndarray | None = None
    ) -> np.ndarray:
        return self._observe.observe(observations, first, prev_actions=actions, prev_rewards=rewards)

    def _check_time(self, start: float) -> None:
        """Nobody else ends the wait for the end of an episode where the runner is in the algorithm's process."""
        limit = self.config.sample_timeout_s
        if limit is not None and time.perf_counter() - start > limit:
            raise TimeoutError(
                f"Environments have not ended their episodes within {limit:g} s, as `batch_mode='complete_episodes'` asks "
                "for. Give the environment an end (`terminated`), a time limit (gymnasium's `max_episode_steps`) or set "
                "`config.horizon`; or take `batch_mode='truncate_episodes'`, or raise `sample_timeout_s`."
            )

    def _warn_if_endless(self, steps: int, episodes: int) -> None:
        if episodes:
            self._steps_without_episode = 0
            return
        before = self._steps_without_episode
        self._steps_without_episode += steps
        if before < _NO_EPISODE_WARNING_STEPS * self.num_envs <= self._steps_without_episode:
            logger.warning(
                "No episode has ended in %d steps per environment, so there are no returns to report. Give the "
                "environment an end (`terminated`), a time limit (gymnasium's `max_episode_steps`), or set "
                "`config.horizon`.",
                self._steps_without_episode // self.num_envs,
            )


class _Steps:
    """Arrays that a fragment is written into."""

    def __init__(self, runner: SingleAgentEnvRunner, num_env_steps: int) -> None:
        policy = runner._policy
        assert policy is not None
        n = runner.num_envs
        # Resets take steps as well: a few per cent more room spares most fragments a copy.
        self.size = -(-num_env_steps // n) + 8
        space = runner._observe.observation_space
        action_space = runner.env.action_space
        self._period = policy.max_seq_len
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "obs": (space.shape, space.dtype),
            "actions": (action_space.shape or (), action_space.dtype or np.float32),
            "logp": ((), np.float32),
            "inputs": ((policy.num_inputs,), np.float32),
            "rewards": ((), np.float32),
            "terminateds": ((), bool),
            "truncateds": ((), bool),
            "mask": ((), bool),
        }
        if self._period:
            shapes["first"] = ((), bool)
        self._arrays = {
            name: np.empty((self.size + (name in ("obs", "first")), n, *shape), dtype)
            for name, (shape, dtype) in shapes.items()
        }
        self._states: list[dict[str, np.ndarray]] = []
        self._bind()

    def _bind(self) -> None:
        a = self._arrays
        self.obs, self.actions, self.logp, self.inputs = a["obs"], a["actions"], a["logp"], a["inputs"]
        self.rewards, self.terminateds, self.truncateds, self.mask = (
            a["rewards"],
            a["terminateds"],
            a["truncateds"],
            a["mask"],
        )

    def grow(self) -> None:
        """Make room for more steps."""
        extra = max(8, self.size // 2)
        self._arrays = {
            name: np.concatenate([array, np.empty((extra, *array.shape[1:]), array.dtype)])
            for name, array in self._arrays.items()
        }
        self.size += extra
        self._bind()

    def begin(self, t: int, obs: np.ndarray, first: np.ndarray, state: dict[str, np.ndarray]) -> None:
        """Record what a stateful policy starts step `t` from."""
        self.obs[t] = obs
        self._arrays["first"][t] = first
        if t % self._period == 0:
            self._states.append(state)

    def fragment(self, length: int, obs: np.ndarray, first: np.ndarray) -> dict[str, Any]:
        """The steps taken as a fragment."""
        self.obs[length] = obs
        fragment: dict[str, Any] = {
            Columns.OBS: self.obs[: length + 1],
            Columns.ACTIONS: self.actions[:length],
            Columns.ACTION_LOGP: self.logp[:length],
            Columns.ACTION_DIST_INPUTS: self.inputs[:length],
            Columns.REWARDS: self.rewards[:length],
            Columns.TERMINATEDS: self.terminateds[:length],
            Columns.TRUNCATEDS: self.truncateds[:length],
            Columns.LOSS_MASK: self.mask[:length],
        }
        if self._period:
            self._arrays["first"][length] = first
            fragment[Columns.IS_FIRST] = self._arrays["first"][: length + 1]
            names = self._states[0]
            fragment[Columns.STATE_IN] = {name: np.stack([s[name] for s in self._states]) for name in names}
        return fragment


def _restarted(
    state: dict[str, np.ndarray], initial: dict[str, np.ndarray], first: np.ndarray
) -> dict[str, np.ndarray]:
    """The state with the rows of new episodes as they begin; a new dict, since the old may be on record."""
    out = {}
    for name, value in state.items():
        value = value.copy()
        value[first] = initial[name][0]
        out[name] = value
    return out

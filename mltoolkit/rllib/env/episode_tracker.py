"""Counts returns and lengths of running episodes and shows them to callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.env.single_agent_episode import SingleAgentEpisode

if TYPE_CHECKING:
    from mltoolkit.rllib.callbacks.callbacks import CallbackCaller

__all__ = ["EpisodeTracker"]


class EpisodeTracker:
    """The running episodes of a runner.

    Parameters
    ----------
    runner : SingleAgentEnvRunner
    callbacks : CallbackCaller
        Episodes are recorded step by step only where one of these wants to see them.
    """

    def __init__(self, runner: Any, callbacks: CallbackCaller) -> None:
        self._runner = runner
        self._callbacks = callbacks
        self._follow = callbacks.follows_episodes
        self._returns = np.zeros(runner.num_envs)
        self._lengths = np.zeros(runner.num_envs, np.int64)
        self._running: list[SingleAgentEpisode] = []
        self._finished_returns: list[float] = []
        self._finished_lengths: list[int] = []
        self._custom: list[dict[str, float]] = []
        self._hist: dict[str, list[float]] = {}
        self._faulty_before = 0

    def begin_all(self, observations: Any) -> None:
        """All environments were reset."""
        self._returns[:] = 0
        self._lengths[:] = 0
        if self._follow:
            self._running = [self._begin(i, observations) for i in range(self._runner.num_envs)]

    def step(
        self,
        observations: Any,
        actions: np.ndarray,
        rewards: np.ndarray,
        terminateds: np.ndarray,
        truncateds: np.ndarray,
        first: np.ndarray,
        done: np.ndarray,
        counts: np.ndarray | None = None,
    ) -> None:
        """All environments took a step, those of `first` their reset.

        Parameters
        ----------
        counts : (N,) bool array, optional
            Where False, nobody asked for the step: other environments are not yet through. Its episode is neither
            counted nor shown to callbacks.
        """
        self._returns += rewards
        self._lengths += 1
        if first.any():
            self._returns[first] = 0
            self._lengths[first] = 0
        if self._follow:
            self._show(observations, actions, rewards, terminateds, truncateds, first, counts)
        if not done.any():
            return
        for i in np.flatnonzero(done if counts is None else done & counts):
            self._finished_returns.append(float(self._returns[i]))
            self._finished_lengths.append(int(self._lengths[i]))
            if self._follow:
                episode = self._running[i]
                if episode.custom_metrics:
                    self._custom.append(dict(episode.custom_metrics))
                for name, values in episode.hist_data.items():
                    self._hist.setdefault(name, []).extend(values)

    def pop(self) -> dict[str, Any]:
        """Returns, lengths and what callbacks collected of the episodes that ended since the last time."""
        episodes = {
            "returns": self._finished_returns,
            "lengths": self._finished_lengths,
            "custom_metrics": self._custom,
            "hist_data": self._hist,
            "num_faulty": self._runner.env.num_faulty_episodes - self._faulty_before,
        }
        self._faulty_before = self._runner.env.num_faulty_episodes
        self._finished_returns, self._finished_lengths, self._custom, self._hist = [], [], [], {}
        return episodes

    def get_state(self) -> dict[str, Any]:
        """Returns and lengths so far."""
        return {"returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on counting from there; to callbacks the episodes begin here."""
        self._returns, self._lengths = state["returns"].copy(), state["lengths"].copy()
        if self._follow:
            self._running = [SingleAgentEpisode() for _ in range(self._runner.num_envs)]

    def _begin(self, i: int, observations: Any) -> SingleAgentEpisode:
        episode = SingleAgentEpisode()
        self._call("on_episode_created", i, episode)
        infos = self._runner.env.last_infos
        episode.add_env_reset(observations[i], infos[i] if infos else None)
        self._call("on_episode_start", i, episode)
        return episode

    def _show(
        self,
        observations: Any,
        actions: np.ndarray,
        rewards: np.ndarray,
        terminateds: np.ndarray,
        truncateds: np.ndarray,
        first: np.ndarray,
        counts: np.ndarray | None,
    ) -> None:
        infos = self._runner.env.last_infos
        for i in range(self._runner.num_envs):
            if counts is not None and not counts[i]:
                self._running[i] = SingleAgentEpisode()  # from here on, should anybody ask for the rest of it
                continue
            if first[i]:
                self._running[i] = self._begin(i, observations)
                continue
            episode = self._running[i]
            episode.add_env_step(
                observations[i],
                actions[i],
                float(rewards[i]),
                infos[i] if infos else None,
                terminated=bool(terminateds[i]),
                truncated=bool(truncateds[i]),
            )
            self._call("on_episode_step", i, episode)
            if episode.is_done:
                self._call("on_episode_end", i, episode)

    def _call(self, hook: str, i: int, episode: SingleAgentEpisode) -> None:
        runner = self._runner
        self._callbacks.call(
            hook,
            episode=episode,
            env_runner=runner,
            worker=runner,
            metrics_logger=runner.metrics,
            env=runner.env,
            base_env=runner.env,
            env_index=i,
            rl_module=runner.module,
            policies={"default_policy": runner.module},
        )

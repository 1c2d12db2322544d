"""What ``train`` and ``evaluate`` return, under the names of both of RLlib's stacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mltoolkit.rllib.utils.metrics.metrics_logger import MetricsLogger
from mltoolkit.tune.result import EPISODES_THIS_ITER, TIMESTEPS_THIS_ITER

__all__ = [
    "TOP_LEVEL",
    "EpisodeWindow",
    "episode_metrics",
    "fault_tolerance",
    "learner_info",
    "runner_metrics",
    "train_result",
]

_NAN = float("nan")


class EpisodeWindow:
    """Returns and lengths of the episodes of an iteration, or of the newest ones where it ended fewer.

    All of an iteration's: among hundreds of episodes the last hundred would be those of the last runners.

    Parameters
    ----------
    size : int
        Episodes that means are of at least, once there are so many: ``metrics_num_episodes_for_smoothing``.
    keep_custom : bool, default=False
        Report custom metrics as lists, a value for each episode.
    """

    def __init__(self, size: int, keep_custom: bool = False) -> None:
        self._keep_custom = keep_custom
        self._size = size
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._custom: dict[str, list[float]] = {}
        self._hist: dict[str, list[float]] = {}
        self._this_iteration = 0
        self.num_episodes = 0

    def begin_iteration(self) -> None:
        """Forget what a mean with no new episodes would not be of."""
        self._this_iteration = 0
        for values in (self._returns, self._lengths, *self._custom.values(), *self._hist.values()):
            del values[: -self._size]  # type: ignore[attr-defined]

    def add(self, episodes: dict[str, Any]) -> None:
        """Take up the episodes of a runner."""
        self._returns.extend(episodes["returns"])
        self._lengths.extend(episodes["lengths"])
        self._this_iteration += len(episodes["returns"])
        self.num_episodes += len(episodes["returns"])
        for metrics in episodes["custom_metrics"]:
            for name, value in metrics.items():
                self._custom.setdefault(name, []).append(float(value))
        for name, values in episodes["hist_data"].items():
            self._hist.setdefault(name, []).extend(float(value) for value in values)

    def metrics(self) -> dict[str, Any]:
        """Their means and extremes; NaN where no episode has ended yet."""
        newest = slice(-max(self._size, self._this_iteration), None)
        return episode_metrics(
            self._returns[newest],
            self._lengths[newest],
            {name: values[newest] for name, values in self._custom.items()},
            {name: values[newest] for name, values in self._hist.items()},
            self._keep_custom,
        )

    def get_state(self) -> dict[str, Any]:
        """All as plain data."""
        return {
            "returns": list(self._returns),
            "lengths": list(self._lengths),
            "custom": {name: list(values) for name, values in self._custom.items()},
            "hist": {name: list(values) for name, values in self._hist.items()},
            "num_episodes": self.num_episodes,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`get_state` gave."""
        self._returns, self._lengths = list(state["returns"]), list(state["lengths"])
        self._custom = {name: list(values) for name, values in state["custom"].items()}
        self._hist = {name: list(values) for name, values in state["hist"].items()}
        self._this_iteration = 0
        self.num_episodes = state["num_episodes"]


def episode_metrics(
    returns: Iterable[float],
    lengths: Iterable[int],
    custom: dict[str, Any] | None = None,
    hist: dict[str, Any] | None = None,
    keep_custom: bool = False,
) -> dict[str, Any]:
    """Means and extremes of episodes, under old names and new.

    Parameters
    ----------
    returns : iterable of float
        Undiscounted sums of rewards.
    lengths : iterable of int
        Steps.
    custom : dict of str to iterable of float, optional
        What callbacks put into ``episode.custom_metrics``.
    hist : dict of str to iterable of float, optional
        What callbacks put into ``episode.hist_data``.
    keep_custom : bool, default=False
        Lists of the values in `custom` in place of their mean and extremes.

    Returns
    -------
    dict
    """
    returns, lengths = list(returns), list(lengths)
    low, mean, high = _spread(returns)
    shortest, mean_length, longest = _spread(lengths)
    custom_metrics: dict[str, Any] = {}
    for name, values in (custom or {}).items():
        if keep_custom:
            custom_metrics[name] = list(values)
            continue
        (
            custom_metrics[f"{name}_min"],
            custom_metrics[f"{name}_mean"],
            custom_metrics[f"{name}_max"],
        ) = _spread(list(values))
    return {
        "episode_return_mean": mean,
        "episode_return_min": low,
        "episode_return_max": high,
        "episode_reward_mean": mean,
        "episode_reward_min": low,
        "episode_reward_max": high,
        "episode_len_mean": mean_length,
        "episode_len_min": shortest,
        "episode_len_max": longest,
        "agent_episode_return_mean": {"default_agent": mean},
        "module_episode_return_mean": {"default_policy": mean},
        "policy_reward_mean": {"default_policy": mean},
        "policy_reward_min": {"default_policy": low},
        "policy_reward_max": {"default_policy": high},
        "custom_metrics": custom_metrics,
        "hist_stats": {
            "episode_reward": returns,
            "episode_lengths": lengths,
            **{name: list(values) for name, values in (hist or {}).items()},
        },
    }


def runner_metrics(logger: MetricsLogger, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What callbacks logged in the runners, in the runners' order."""
    for sample in samples:
        logger.replay(sample["metrics"])
    return logger.reduce()


# What the older stack also has at the top level of a result.
TOP_LEVEL = (
    "episode_reward_mean",
    "episode_reward_min",
    "episode_reward_max",
    "episode_len_mean",
    "policy_reward_mean",
    "policy_reward_min",
    "policy_reward_max",
    "custom_metrics",
    "hist_stats",
)


def fault_tolerance(group: Any) -> dict[str, int]:
    """How many runners of a group are there, were replaced, and were lost for good."""
    return {
        "num_healthy_workers": group.num_healthy,
        "num_remote_worker_restarts": group.num_restarts,
        "num_env_runners_dropped_lifetime": group.num_dropped,
    }


def train_result(
    window: EpisodeWindow,
    learner_results: dict[str, Any],
    *,
    runner_metrics: dict[str, Any],
    fault_tolerance: dict[str, int],
    steps: int,
    trained: int,
    episodes: int,
    num_faulty: int,
    steps_sampled: int,
    steps_trained: int,
    timers: dict[str, float],
    seconds: float,
) -> dict[str, Any]:
    """The result of one iteration.

    Parameters
    ----------
    window : EpisodeWindow
    learner_results : dict
        By module.
    runner_metrics : dict
        What callbacks logged in the runners.
    fault_tolerance : dict
    steps, trained, episodes, num_faulty : int
        Environment steps sampled and learnt from, and episodes ended and given up, in this iteration.
    steps_sampled, steps_trained : int
        Over the algorithm's lifetime.
    timers : dict of str to float
        Seconds that parts took.
    seconds : float
        What the iteration took.
    """
    metrics, seconds = window.metrics(), max(seconds, 1e-9)
    counters = {
        "num_env_steps_sampled": steps_sampled,
        "num_env_steps_trained": steps_trained,
        "num_agent_steps_sampled": steps_sampled,
        "num_agent_steps_trained": steps_trained,
    }
    runners = {
        **metrics,
        "num_episodes": episodes,
        "episodes_this_iter": episodes,
        "num_faulty_episodes": num_faulty,
        "num_episodes_lifetime": window.num_episodes,
        "num_env_steps_sampled": steps,
        "num_env_steps_sampled_lifetime": steps_sampled,
        "num_env_steps_sampled_per_second": steps / seconds,
        **runner_metrics,
    }
    return {
        "env_runners": runners,
        "sampler_results": {**metrics, "episodes_this_iter": episodes, "num_faulty_episodes": num_faulty},
        "learners": learner_results,
        "info": {"learner": learner_info(learner_results), **counters},
        "counters": counters,
        **{name: metrics[name] for name in TOP_LEVEL},
        **counters,
        "num_env_steps_sampled_this_iter": steps,
        "num_env_steps_trained_this_iter": trained,
        "num_steps_trained_this_iter": trained,
        "num_env_steps_sampled_throughput_per_sec": steps / seconds,
        "num_env_steps_trained_throughput_per_sec": trained / seconds,
        "num_env_steps_sampled_lifetime": steps_sampled,
        "num_env_steps_trained_lifetime": steps_trained,
        "num_agent_steps_sampled_lifetime": steps_sampled,
        "fault_tolerance": fault_tolerance,
        **fault_tolerance,
        "timers": {
            **timers,
            "sample_time_ms": 1e3 * timers.get("env_runner_sampling_timer", _NAN),
            "learn_time_ms": 1e3 * timers.get("learner_update_timer", _NAN),
            "training_iteration_time_ms": 1e3 * seconds,
        },
        TIMESTEPS_THIS_ITER: steps,
        EPISODES_THIS_ITER: episodes,
        "agent_timesteps_total": steps_sampled,
    }


def learner_info(results: dict[str, Any]) -> dict[str, Any]:
    """The learner's results as the older stack nests them, below ``info/learner``."""
    names = {
        "curr_kl_coeff": "cur_kl_coeff",
        "default_optimizer_learning_rate": "cur_lr",
        "mean_kl_loss": "kl",
        "curr_entropy_coeff": "entropy_coeff",
        "gradients_default_optimizer_global_norm": "grad_gnorm",
    }
    return {
        module_id: {
            "learner_stats": {names.get(name, name): value for name, value in stats.items()},
            "num_agent_steps_trained": stats.get("num_module_steps_trained", _NAN),
        }
        for module_id, stats in results.items()
        if module_id != "__all_modules__"
    }


def _spread(values: list[Any]) -> tuple[float, float, float]:
    if not values:
        return _NAN, _NAN, _NAN
    return float(min(values)), float(np.mean(values)), float(max(values))

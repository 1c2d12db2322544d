"""Names of the metrics in results."""

from __future__ import annotations

ALL_MODULES = "__all_modules__"
DEFAULT_AGENT_ID = "default_agent"
DEFAULT_MODULE_ID = "default_policy"
ENV_RUNNER_RESULTS = "env_runners"
ENV_RUNNER_SAMPLING_TIMER = "env_runner_sampling_timer"
EPISODE_LEN_MAX = "episode_len_max"
EPISODE_LEN_MEAN = "episode_len_mean"
EPISODE_LEN_MIN = "episode_len_min"
EPISODE_RETURN_MAX = "episode_return_max"
EPISODE_RETURN_MEAN = "episode_return_mean"
EPISODE_RETURN_MIN = "episode_return_min"
EVALUATION_RESULTS = "evaluation"
FAULT_TOLERANCE_STATS = "fault_tolerance"
LEARNER_INFO = "learner"
LEARNER_RESULTS = "learners"
LEARNER_STATS_KEY = "learner_stats"
LEARNER_UPDATE_TIMER = "learner_update_timer"
NUM_ENV_STEPS_SAMPLED = "num_env_steps_sampled"
NUM_ENV_STEPS_SAMPLED_LIFETIME = "num_env_steps_sampled_lifetime"
NUM_ENV_STEPS_SAMPLED_THIS_ITER = "num_env_steps_sampled_this_iter"
NUM_ENV_STEPS_TRAINED = "num_env_steps_trained"
NUM_ENV_STEPS_TRAINED_LIFETIME = "num_env_steps_trained_lifetime"
NUM_EPISODES = "num_episodes"
NUM_EPISODES_LIFETIME = "num_episodes_lifetime"
TIMERS = "timers"

__all__ = [
    "ALL_MODULES",
    "DEFAULT_AGENT_ID",
    "DEFAULT_MODULE_ID",
    "ENV_RUNNER_RESULTS",
    "ENV_RUNNER_SAMPLING_TIMER",
    "EPISODE_LEN_MAX",
    "EPISODE_LEN_MEAN",
    "EPISODE_LEN_MIN",
    "EPISODE_RETURN_MAX",
    "EPISODE_RETURN_MEAN",
    "EPISODE_RETURN_MIN",
    "EVALUATION_RESULTS",
    "FAULT_TOLERANCE_STATS",
    "LEARNER_INFO",
    "LEARNER_RESULTS",
    "LEARNER_STATS_KEY",
    "LEARNER_UPDATE_TIMER",
    "NUM_ENV_STEPS_SAMPLED",
    "NUM_ENV_STEPS_SAMPLED_LIFETIME",
    "NUM_ENV_STEPS_SAMPLED_THIS_ITER",
    "NUM_ENV_STEPS_TRAINED",
    "NUM_ENV_STEPS_TRAINED_LIFETIME",
    "NUM_EPISODES",
    "NUM_EPISODES_LIFETIME",
    "TIMERS",
]

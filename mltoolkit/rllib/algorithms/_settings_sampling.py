"""Settings of environments, of the runners that sample them, and of evaluation."""

from __future__ import annotations

import os

from mltoolkit.rllib.algorithms._constraints import (
    Allowed,
    function,
    kind_of_class,
    mapping,
    number,
    one_of,
    optional,
    resources,
    switch,
    whole_number,
)
from mltoolkit.rllib.algorithms._settings import Setting

__all__ = ["SAMPLING"]

_ENV = Allowed(
    "the name of an environment, a class or a function that takes the env_config",
    lambda value: None if isinstance(value, str) or callable(value) else "",
)
_SPACE = Allowed(
    "a gymnasium space", lambda value: None if hasattr(value, "sample") and hasattr(value, "contains") else ""
)
_CONNECTORS = optional(function("a function that returns a connector or a list of them"))


def _bounds(value: object) -> str | None:
    if not (isinstance(value, (tuple, list)) and len(value) == 2):
        return ""
    low, high = value
    return None if number().fault(low) is None and number().fault(high) is None and low <= high else "low <= high"


ENVIRONMENT = (
    Setting(
        "env",
        "environment",
        None,
        optional(_ENV),
        "The environment: a name that gymnasium or `register_env` knows, a class, or a function of the `env_config`.",
        class_of="gymnasium:Env",
    ),
    Setting(
        "env_config",
        "environment",
        {},
        mapping(),
        "What the environment is made with. Given again, it is merged with what was there.",
    ),
    Setting(
        "observation_space",
        "environment",
        None,
        optional(_SPACE),
        "The observation space, where it is not to be asked of the environment.",
    ),
    Setting(
        "action_space",
        "environment",
        None,
        optional(_SPACE),
        "The action space, where it is not to be asked of the environment.",
    ),
    Setting(
        "clip_rewards",
        "environment",
        None,
        optional(switch() | number(0) | Allowed("a pair (low, high)", _bounds)),
        "True: rewards become their sign. A number c: they are clipped to [-c, c]. A pair: they are clipped to it. "
        "None or False: they stay.",
    ),
    Setting(
        "normalize_actions",
        "environment",
        True,
        switch(),
        "The policy of a `Box` action space acts in [-1, 1], which is mapped to the space's bounds.",
    ),
    Setting(
        "clip_actions",
        "environment",
        False,
        switch(),
        "Clip actions to the bounds of a `Box` action space. Without effect where `normalize_actions` is on.",
    ),
    Setting(
        "disable_env_checking",
        "environment",
        False,
        switch(),
        "Skip the check that a new environment can be reset and stepped and keeps to its spaces.",
    ),
    Setting(
        "horizon",
        "environment",
        None,
        optional(whole_number(1)),
        "Episodes are truncated after this many steps. None: as the environment says.",
    ),
)

ENV_RUNNERS = (
    Setting(
        "env_runner_cls",
        "env_runners",
        None,
        optional(kind_of_class("a subclass of SingleAgentEnvRunner")),
        "The class of the environment runners. None: `SingleAgentEnvRunner`.",
        class_of="mltoolkit.rllib.env.single_agent_env_runner:SingleAgentEnvRunner",
    ),
    Setting(
        "num_env_runners",
        "env_runners",
        0,
        whole_number(0),
        "Processes that sample in parallel. 0: the algorithm's own process samples.",
        old_names=("num_workers", "num_rollout_workers"),
    ),
    Setting(
        "num_envs_per_env_runner",
        "env_runners",
        1,
        whole_number(1),
        "Environments that each runner steps together, with one call of the policy.",
        old_names=("num_envs_per_worker",),
    ),
    Setting(
        "gym_env_vectorize_mode",
        "env_runners",
        "auto",
        one_of("auto", "sync", "async", "vector_entry_point"),
        "'auto': the environment's own vectorised version if it has one, otherwise one after the other; 'sync': one "
        "after the other; 'async': each in a process; 'vector_entry_point': the vectorised version, or an error.",
    ),
    Setting(
        "num_cpus_per_env_runner",
        "env_runners",
        1,
        number(0),
        "CPUs that each runner reserves.",
        old_names=("num_cpus_per_worker",),
    ),
    Setting(
        "num_gpus_per_env_runner",
        "env_runners",
        0,
        number(0),
        "GPUs that each runner reserves.",
        old_names=("num_gpus_per_worker",),
    ),
    Setting(
        "custom_resources_per_env_runner",
        "env_runners",
        {},
        resources(),
        "Custom resources that each runner reserves.",
        old_names=("custom_resources_per_worker",),
    ),
    Setting(
        "validate_env_runners_after_construction",
        "env_runners",
        True,
        switch(),
        "Wait until every runner has made its environments, so that their errors surface when the algorithm is built.",
        old_names=("validate_workers_after_construction",),
    ),
    Setting(
        "sample_timeout_s",
        "env_runners",
        60.0,
        optional(number(above=0)),
        "Seconds to wait for a runner's sample before the runner counts as failed. None: no limit.",
    ),
    Setting(
        "env_to_module_connector",
        "env_runners",
        None,
        _CONNECTORS,
        "A function of the environment (and, if it takes them, its spaces) that returns the connectors, or a list of "
        "them, which observations and rewards go through.",
        attribute="_env_to_module_connector",
    ),
    Setting(
        "module_to_env_connector",
        "env_runners",
        None,
        _CONNECTORS,
        "The same for what actions go through on their way to the environment.",
        attribute="_module_to_env_connector",
    ),
    Setting(
        "add_default_connectors_to_env_to_module_pipeline",
        "env_runners",
        True,
        switch(),
        "Add the connectors that the other settings ask for (flattening, frame stack, filter) after one's own.",
    ),
    Setting(
        "add_default_connectors_to_module_to_env_pipeline",
        "env_runners",
        True,
        switch(),
        "Add the mapping of actions to their bounds (`normalize_actions`, `clip_actions`) after one's own connectors.",
    ),
    Setting(
        "rollout_fragment_length",
        "env_runners",
        "auto",
        one_of("auto") | whole_number(1),
        "Steps of each environment per sample. 'auto': as many as make up the train batch with one sample per runner.",
        old_names=("sample_batch_size",),
    ),
    Setting(
        "batch_mode",
        "env_runners",
        "truncate_episodes",
        one_of("truncate_episodes", "complete_episodes"),
        "Whether samples may end in the middle of an episode, or go on until the episodes that began have ended.",
    ),
    Setting(
        "explore",
        "env_runners",
        True,
        switch(),
        "Sample actions from the policy's distribution. False: take its mode.",
    ),
    Setting(
        "observation_filter",
        "env_runners",
        "NoFilter",
        one_of("NoFilter", "MeanStdFilter"),
        "'MeanStdFilter' shifts and scales observations by their running mean and standard deviation over all runners.",
    ),
    Setting(
        "normalize_rewards",
        "env_runners",
        False,
        switch(),
        "Scale rewards by the running standard deviation of the discounted return. Reported returns stay as they are.",
    ),
    Setting(
        "frame_stack",
        "env_runners",
        1,
        whole_number(1),
        "How many of the latest observations the policy sees, stacked along the last axis.",
    ),
)

FAULT_TOLERANCE = (
    Setting(
        "restart_failed_env_runners",
        "fault_tolerance",
        True,
        switch(),
        "Replace runners whose process died, and go on.",
        old_names=("recreate_failed_env_runners", "recreate_failed_workers"),
    ),
    Setting(
        "ignore_env_runner_failures",
        "fault_tolerance",
        False,
        switch(),
        "Go on without runners that failed. Of no consequence where they are restarted.",
        old_names=("ignore_worker_failures",),
    ),
    Setting(
        "max_num_env_runner_restarts",
        "fault_tolerance",
        1000,
        whole_number(0),
        "How often each runner is replaced before its death is raised.",
        old_names=("max_num_worker_restarts",),
    ),
    Setting(
        "delay_between_env_runner_restarts_s",
        "fault_tolerance",
        0.0,
        number(0),
        "Seconds between two restarts of the same runner; the first is at once.",
        old_names=("delay_between_worker_restarts_s",),
    ),
    Setting(
        "restart_failed_sub_environments",
        "fault_tolerance",
        False,
        switch(),
        "Make an environment that raised anew and go on; its episode ends as truncated. False: the error is raised.",
    ),
    Setting(
        "num_consecutive_env_runner_failures_tolerance",
        "fault_tolerance",
        100,
        whole_number(0),
        "How many runners in a row may die, with no sample between them that succeeds, before that is an error.",
        old_names=("num_consecutive_worker_failures_tolerance",),
    ),
)

EVALUATION = (
    Setting(
        "evaluation_interval",
        "evaluation",
        None,
        optional(whole_number(0)),
        "Evaluate after every so many training iterations. None or 0: only when `evaluate()` is called.",
    ),
    Setting(
        "evaluation_duration",
        "evaluation",
        10,
        one_of("auto") | whole_number(1),
        "How much to evaluate, in `evaluation_duration_unit`. 'auto', with `evaluation_parallel_to_training`: as long "
        "as the training iteration takes.",
        old_names=("evaluation_num_episodes",),
    ),
    Setting(
        "evaluation_duration_unit",
        "evaluation",
        "episodes",
        one_of("episodes", "timesteps"),
        "What `evaluation_duration` counts.",
    ),
    Setting(
        "evaluation_sample_timeout_s",
        "evaluation",
        120.0,
        optional(number(above=0)),
        "Seconds to wait for an evaluation runner. None: no limit.",
    ),
    Setting(
        "evaluation_parallel_to_training",
        "evaluation",
        False,
        switch(),
        "Evaluate while the next training iteration runs; needs `evaluation_num_env_runners` >= 1.",
    ),
    Setting(
        "evaluation_force_reset_envs_before_iteration",
        "evaluation",
        True,
        switch(),
        "Begin each evaluation with new episodes.",
    ),
    Setting(
        "evaluation_config",
        "evaluation",
        None,
        optional(
            Allowed(
                "a dict of settings or an AlgorithmConfig",
                lambda value: None if hasattr(value, "keys") and hasattr(value, "items") else "",
            )
        ),
        "Settings that are other than in training, such as {'explore': False} or {'env_config': {...}}.",
    ),
    Setting(
        "evaluation_num_env_runners",
        "evaluation",
        0,
        whole_number(0),
        "Processes that evaluate in parallel. 0: the algorithm's own process does.",
        old_names=("evaluation_num_workers",),
    ),
    Setting(
        "custom_evaluation_function",
        "evaluation",
        None,
        optional(function("a function of the algorithm and its evaluation EnvRunnerGroup")),
        "Called in place of the evaluation here; returns the results, or a tuple of results, environment steps and "
        "agent steps.",
        key="custom_eval_function",
    ),
)

REPORTING = (
    Setting(
        "log_dir",
        "reporting",
        None,
        optional(Allowed("the path of a folder", lambda value: None if isinstance(value, (str, os.PathLike)) else "")),
        "The folder that results are written to, for TensorBoard and as CSV and JSON. None: nowhere; Tune has its own.",
    ),
    Setting("log_gradients", "reporting", False, switch(), "Report the norm of the gradients."),
    Setting(
        "metrics_num_episodes_for_smoothing",
        "reporting",
        100,
        whole_number(1),
        "Means such as `episode_return_mean` are of all episodes of an iteration, or of this many of the latest if it ended fewer.",
        old_names=("metrics_smoothing_episodes",),
    ),
    Setting(
        "keep_per_episode_custom_metrics",
        "reporting",
        False,
        switch(),
        "Report custom metrics as lists of each episode's value in place of their mean, minimum and maximum.",
    ),
    Setting(
        "min_time_s_per_iteration",
        "reporting",
        None,
        optional(number(0)),
        "Repeat the training step within one `train()` until so many seconds have passed.",
        old_names=("min_iter_time_s", "min_time_s_per_reporting"),
    ),
    Setting(
        "min_train_timesteps_per_iteration",
        "reporting",
        0,
        optional(whole_number(0)),
        "Repeat the training step within one `train()` until so many timesteps have been trained on.",
        old_names=("min_train_timesteps_per_reporting",),
    ),
    Setting(
        "min_sample_timesteps_per_iteration",
        "reporting",
        0,
        optional(whole_number(0)),
        "Repeat the training step within one `train()` until so many timesteps have been sampled.",
        old_names=("timesteps_per_iteration", "min_sample_timesteps_per_reporting"),
    ),
)

SAMPLING = (*ENVIRONMENT, *ENV_RUNNERS, *FAULT_TOLERANCE, *EVALUATION, *REPORTING)

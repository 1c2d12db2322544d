"""Settings of RLlib's that have no meaning here: what they may hold all the same, and what to use instead."""

from __future__ import annotations

from typing import Any

from mltoolkit.rllib.algorithms._settings import Refused

__all__ = ["REFUSED"]

_ATARI = (
    "Wrap the environment in gymnasium.wrappers.AtariPreprocessing, register it with `register_env`, and clip rewards "
    "with environment(clip_rewards=True)."
)
_VIDEO = "To see an episode, record one: `algo.evaluate(video='episode.mp4')`."
_ONE_AGENT = "There is one agent and one policy, 'default_policy'."
_SAMPLED = "PPO learns from what its environment runners sample."
_TENSORFLOW = "It concerns TensorFlow; networks are torch's."
_ONE_STACK = "There is one stack, with the old and the new names."
_OFFLINE_EVALUATION = "Evaluate in an environment: evaluation(evaluation_interval=..., evaluation_duration=...)."


#: Every value is harmless.
_ANY: Any = object()


def _refused(group: str, instead: str, **harmless: Any) -> tuple[Refused, ...]:
    """Entries of one group for one reason; a value that is no tuple is the only harmless one."""
    return tuple(
        Refused(name, group, None if values is _ANY else values if isinstance(values, tuple) else (values,), instead)
        for name, values in harmless.items()
    )


ENVIRONMENT = (
    *_refused("environment", _VIDEO, render_env=False, monitor=(False, None), record_env=(False, None)),
    Refused("is_atari", "environment", (None, False), _ATARI, ("_is_atari",)),
    *_refused(
        "environment",
        "Mask the logits in the `forward` of a custom RLModule: rl_module(rl_module_spec=...).",
        action_mask_key="action_mask",
    ),
    *_refused(
        "environment",
        "Change the environment in a callback: callbacks(on_train_result=...).",
        env_task_fn=None,
    ),
    *_refused(
        "environment",
        "Episodes end where the environment, or `horizon`, ends them, and the value of the last observation stands in "
        "for what a truncated one would still have brought.",
        soft_horizon=False,
        no_done_at_end=False,
    ),
)

ENV_RUNNERS = (
    *_refused(
        "env_runners",
        "The algorithm's own process always has a runner, which makes environments when it needs them.",
        create_local_env_runner=True,
    ),
    Refused(
        "create_env_on_local_worker",
        "env_runners",
        (False, True),
        "The algorithm's own process makes environments when it needs them.",
        ("create_env_on_driver",),
    ),
    *_refused(
        "env_runners",
        "PPO learns from samples of its current policy, so each runner samples once at a time.",
        max_requests_in_flight_per_env_runner=1,
        sample_async=False,
    ),
    *_refused(
        "env_runners",
        "Let the policy see the latest observations with env_runners(frame_stack=...), or use an LSTM.",
        episode_lookback_horizon=1,
    ),
    *_refused(
        "env_runners",
        "Training runners share the statistics of their connectors after each sample; evaluation uses them as they "
        "are.",
        merge_env_runner_states=("training_only", True),
        broadcast_env_runner_states=True,
        use_env_runner_state_server=False,
        env_runner_state_server_max_concurrency=16,
        use_worker_filter_stats=True,
        update_worker_filter_stats=True,
        synchronize_filters=True,
        synchronize_filter=True,
        sync_filters_on_rollout_workers_timeout_s=10.0,
    ),
    *_refused(
        "env_runners",
        "Samples travel as arrays through shared memory.",
        compress_observations=False,
        episodes_to_numpy=True,
    ),
    *_refused(
        "env_runners",
        "A custom runner goes into env_runners(env_runner_cls=...).",
        sample_collector=None,
        worker_cls=None,
    ),
    *_refused(
        "env_runners",
        "Step environments in processes of their own with env_runners(gym_env_vectorize_mode='async').",
        remote_worker_envs=False,
        remote_env_batch_wait_ms=(0, 0.0),
    ),
    *_refused("env_runners", _ATARI, preprocessor_pref=("deepmind", "rllib", None)),
    *_refused("env_runners", _TENSORFLOW, enable_tf1_exec_eagerly=_ANY),
    *_refused("env_runners", "Timers are means over the latest iterations.", sampler_perf_stats_ema_coef=None),
    *_refused("env_runners", _ONE_STACK, enable_connectors=_ANY),
    *_refused(
        "env_runners",
        "PPO explores by sampling from its policy; env_runners(explore=False) takes the mode.",
        exploration_config=({}, None, {"type": "StochasticSampling"}),
    ),
)

FAULT_TOLERANCE = (
    *_refused(
        "fault_tolerance",
        "The death of a runner is noticed at once, without asking; one that hangs is noticed after "
        "env_runners(sample_timeout_s=...).",
        env_runner_health_probe_timeout_s=30.0,
        worker_health_probe_timeout_s=(30.0, 60.0),
    ),
    *_refused(
        "fault_tolerance",
        "A new runner gets weights and filters with its next sample.",
        env_runner_restore_timeout_s=1800.0,
        worker_restore_timeout_s=1800.0,
    ),
)

EVALUATION = (
    *_refused(
        "evaluation",
        "With evaluation_duration='auto' the runners play whole episodes, one each at a time.",
        evaluation_auto_duration_min_env_steps_per_sample=100,
        evaluation_auto_duration_max_env_steps_per_sample=2000,
    ),
    *_refused(
        "evaluation",
        "Evaluation runners are restarted like others: fault_tolerance(restart_failed_env_runners=True).",
        evaluation_unhealthy_workers_timeout_s=(0.0, 0),
        evaluation_error_after_n_consecutive_skips=None,
    ),
    *_refused(
        "evaluation",
        "Use evaluation(evaluation_parallel_to_training=True).",
        enable_async_evaluation=False,
        custom_async_evaluation_function=None,
    ),
    *_refused(
        "evaluation", "Evaluate in each iteration: evaluation_interval=1.", always_attach_evaluation_results=False
    ),
    *_refused(
        "evaluation",
        _OFFLINE_EVALUATION,
        off_policy_estimation_methods={},
        ope_split_batch_by_episode=True,
        offline_evaluation_interval=None,
        num_offline_eval_runners=0,
        offline_evaluation_type="eval_loss",
        offline_eval_runner_class=None,
        offline_loss_for_module_fn=None,
        offline_eval_batch_size_per_runner=256,
        dataset_num_iters_per_offline_eval_runner=1,
        dataset_num_iters_per_eval_runner=1,
        offline_eval_rl_module_inference_only=False,
        num_cpus_per_offline_eval_runner=1,
        num_gpus_per_offline_eval_runner=0,
        custom_resources_per_offline_eval_runner={},
        offline_evaluation_duration=1,
        offline_evaluation_parallel_to_training=False,
        offline_evaluation_timeout_s=120.0,
        max_requests_in_flight_per_offline_eval_runner=1,
        broadcast_offline_eval_runner_states=False,
        validate_offline_eval_runners_after_construction=True,
        restart_failed_offline_eval_runners=True,
        ignore_offline_eval_runner_failures=False,
        max_num_offline_eval_runner_restarts=1000,
        offline_eval_runner_health_probe_timeout_s=30.0,
        offline_eval_runner_restore_timeout_s=1800.0,
        input_evaluation=({}, None),
    ),
)

TRAINING = (
    *_refused(
        "learners",
        "Learners take fragments from shared memory; nothing aggregates them on the way.",
        num_aggregator_actors_per_learner=0,
        max_requests_in_flight_per_aggregator_actor=3,
        max_requests_in_flight_per_learner=3,
    ),
    *_refused(
        "training",
        "PPO learns from samples of its current policy, so each runner samples once at a time.",
        max_requests_in_flight_per_sampler_worker=1,
    ),
    *_refused("training", "There is one loop over the minibatches.", simple_optimizer=_ANY),
    *_refused(
        "rl_module",
        "Give the settings themselves: " + _ONE_AGENT,
        algorithm_config_overrides_per_module={},
        _per_module_overrides={},
    ),
    *_refused("rl_module", _ONE_STACK, _enable_rl_module_api=_ANY, _enable_learner_api=_ANY),
    *_refused("resources", "Learn on the CPU instead: num_gpus=0.", _fake_gpus=False),
    *_refused(
        "resources",
        "Reserve memory as a custom resource of the cluster's nodes.",
        memory=0,
        memory_per_worker=0,
        object_store_memory=0,
        object_store_memory_per_worker=0,
    ),
)

FRAMEWORK = (
    *_refused(
        "framework",
        _TENSORFLOW,
        eager_tracing=_ANY,
        eager_max_retraces=_ANY,
        tf_session_args=_ANY,
        local_tf_session_args=_ANY,
    ),
    *_refused(
        "framework",
        "Compile what is worth it in the `setup` of a custom RLModule, with torch.compile.",
        torch_compile_learner=False,
        torch_compile_learner_what_to_compile=None,
        torch_compile_learner_dynamo_mode=None,
        torch_compile_learner_dynamo_backend="inductor",
        torch_compile_worker=False,
        torch_compile_worker_dynamo_backend="onnxrt",
        torch_compile_worker_dynamo_mode=None,
    ),
    *_refused("framework", "Learners average their gradients themselves.", torch_ddp_kwargs={}),
    *_refused("framework", "Write framework('torch') or framework('tf2').", use_pytorch=True, eager=False),
    *_refused(
        "api_stack",
        _ONE_STACK,
        enable_rl_module_and_learner=(True, False),
        enable_env_runner_and_connector_v2=(True, False),
        _enable_new_api_stack=(True, False),
    ),
)

REST = (
    *_refused("debugging", "Write a small environment with random observations.", fake_sampler=False),
    *_refused(
        "debugging",
        "Say where to log with reporting(log_dir=...).",
        logger_config=None,
    ),
    *_refused(
        "callbacks",
        _OFFLINE_EVALUATION,
        on_evaluate_offline_start=None,
        on_evaluate_offline_end=None,
        on_offline_eval_runners_recreated=None,
    ),
    *_refused("checkpointing", "There is one policy, which is trained.", checkpoint_trainable_policies_only=False),
    *_refused(
        "reporting",
        "Log values with a `reduce` of your choice: metrics.log_value(..., reduce='mean').",
        custom_stats_cls_lookup=None,
        stats_cls_lookup=None,
    ),
    Refused(
        "metrics_episode_collection_timeout_s",
        "reporting",
        None,
        "Metrics of episodes come with the samples; `sample_timeout_s` is the limit for both.",
        ("collect_metrics_timeout",),
    ),
    *_refused(
        "experimental",
        "Checkpoints are JSON, arrays and tensors, which no reader executes.",
        _use_msgpack_checkpoints=False,
    ),
    *_refused(
        "experimental",
        "A course of the learning rate goes into training(lr=[[0, value], ...]); scaling of gradients into a custom "
        "learner.",
        _torch_grad_scaler_class=None,
        _torch_lr_scheduler_classes=None,
    ),
    *_refused(
        "experimental",
        "Custom connectors see observations as they are: env_runners(env_to_module_connector=..., "
        "add_default_connectors_to_env_to_module_pipeline=False).",
        _disable_preprocessor_api=False,
        _disable_action_flattening=False,
    ),
    *_refused(
        "experimental",
        "No loss is computed on made-up data.",
        _disable_initialize_loss_from_dummy_batch=(False, True),
        _tf_policy_handles_more_than_one_loss=(False, True),
        _dont_auto_sync_env_runner_states=False,
        _disable_execution_plan_api=(True, False),
    ),
    *_refused(
        "python_environment",
        "Start the nodes of the cluster in an environment that has them set.",
        extra_python_environs_for_driver={},
        extra_python_environs_for_worker={},
    ),
)

MULTI_AGENT = _refused(
    "multi_agent",
    _ONE_AGENT + " Several agents can share it as several environments of a vector environment.",
    multiagent={},
    policies=({}, None),
    policy_map_capacity=100,
    policy_map_cache=_ANY,
    policy_mapping_fn=None,
    policies_to_train=(None, ["default_policy"]),
    policy_states_are_swappable=False,
    observation_fn=None,
    count_steps_by=("env_steps", "agent_steps"),
    replay_mode="independent",
)

OFFLINE_DATA = (
    Refused("input_", "offline_data", ("sampler",), _SAMPLED, ("input",)),
    *_refused(
        "offline_data",
        _SAMPLED,
        offline_data_class=None,
        input_read_method="read_parquet",
        input_read_method_kwargs={},
        input_read_schema={},
        input_read_episodes=False,
        input_read_sample_batches=False,
        input_read_batch_size=None,
        input_filesystem=None,
        input_filesystem_kwargs={},
        input_compress_columns=(["obs", "new_obs"],),
        input_spaces_jsonable=True,
        materialize_data=False,
        materialize_mapped_data=True,
        map_batches_kwargs={},
        iter_batches_kwargs={},
        ignore_final_observation=False,
        prelearner_class=None,
        prelearner_buffer_class=None,
        prelearner_buffer_kwargs={},
        prelearner_module_synch_period=10,
        prelearner_use_recorded_module_states=False,
        dataset_num_iters_per_learner=None,
        input_config={},
        actions_in_input_normalized=False,
        postprocess_inputs=False,
        shuffle_buffer_size=0,
        offline_sampling=False,
    ),
    *_refused(
        "offline_data",
        "Keep samples from a callback: callbacks(on_sample_end=...).",
        output=None,
        output_config={},
        output_compress_columns=(["obs", "new_obs"],),
        output_max_file_size=64 * 1024 * 1024,
        output_max_rows_per_file=None,
        output_write_remaining_data=False,
        output_write_method="write_parquet",
        output_write_method_kwargs={},
        output_filesystem=None,
        output_filesystem_kwargs={},
        output_write_episodes=True,
    ),
)

REFUSED = (
    *ENVIRONMENT,
    *ENV_RUNNERS,
    *FAULT_TOLERANCE,
    *EVALUATION,
    *TRAINING,
    *FRAMEWORK,
    *REST,
    *MULTI_AGENT,
    *OFFLINE_DATA,
)

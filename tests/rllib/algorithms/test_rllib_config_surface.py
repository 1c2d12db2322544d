"""The names of RLlib 2.60's configuration: every keyword of every method is honoured or refused, none is unknown."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from mltoolkit.rllib.algorithms._config_docs import configuration_page
from mltoolkit.rllib.algorithms._config_groups import GROUPS
from mltoolkit.rllib.algorithms._config_model import MODEL_SETTINGS
from mltoolkit.rllib.algorithms._settings import Refused, Setting
from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig
from mltoolkit.rllib.algorithms.ppo.ppo_config import PPO_SETTINGS, PPOConfig

RLLIB_KEYWORDS = {
    "environment": """
        env env_config observation_space action_space render_env clip_rewards normalize_actions clip_actions
        disable_env_checking is_atari action_mask_key env_task_fn
    """,
    "env_runners": """
        env_runner_cls num_env_runners create_local_env_runner create_env_on_local_worker
        num_envs_per_env_runner gym_env_vectorize_mode num_cpus_per_env_runner num_gpus_per_env_runner
        custom_resources_per_env_runner validate_env_runners_after_construction sample_timeout_s
        max_requests_in_flight_per_env_runner env_to_module_connector module_to_env_connector
        add_default_connectors_to_env_to_module_pipeline add_default_connectors_to_module_to_env_pipeline
        episode_lookback_horizon merge_env_runner_states broadcast_env_runner_states use_env_runner_state_server
        env_runner_state_server_max_concurrency compress_observations rollout_fragment_length batch_mode explore
        episodes_to_numpy use_worker_filter_stats update_worker_filter_stats exploration_config sample_collector
        remote_worker_envs remote_env_batch_wait_ms preprocessor_pref observation_filter enable_tf1_exec_eagerly
        sampler_perf_stats_ema_coef num_rollout_workers num_envs_per_worker validate_workers_after_construction
        ignore_worker_failures recreate_failed_workers restart_failed_sub_environments
        num_consecutive_worker_failures_tolerance worker_health_probe_timeout_s worker_restore_timeout_s
        synchronize_filter enable_connectors
    """,
    "training": """
        use_critic use_gae lambda_ use_kl_loss kl_coeff kl_target vf_loss_coeff entropy_coeff
        entropy_coeff_schedule clip_param vf_clip_param grad_clip lr_schedule vf_share_layers gamma lr
        grad_clip_by train_batch_size train_batch_size_per_learner num_epochs minibatch_size
        shuffle_batch_per_epoch model optimizer num_aggregator_actors_per_learner
        max_requests_in_flight_per_aggregator_actor num_sgd_iter max_requests_in_flight_per_sampler_worker
        learner_class learner_connector add_default_connectors_to_learner_pipeline learner_config_dict
    """,
    "learners": """
        num_learners num_cpus_per_learner num_gpus_per_learner custom_resources_per_learner
        num_aggregator_actors_per_learner max_requests_in_flight_per_aggregator_actor local_gpu_idx
        max_requests_in_flight_per_learner learner_class learner_connector
        add_default_connectors_to_learner_pipeline learner_config_dict
    """,
    "evaluation": """
        evaluation_interval evaluation_duration evaluation_duration_unit
        evaluation_auto_duration_min_env_steps_per_sample evaluation_auto_duration_max_env_steps_per_sample
        evaluation_sample_timeout_s evaluation_parallel_to_training evaluation_unhealthy_workers_timeout_s
        evaluation_error_after_n_consecutive_skips evaluation_force_reset_envs_before_iteration
        evaluation_config off_policy_estimation_methods ope_split_batch_by_episode evaluation_num_env_runners
        custom_evaluation_function offline_evaluation_interval num_offline_eval_runners offline_evaluation_type
        offline_eval_runner_class offline_loss_for_module_fn offline_eval_batch_size_per_runner
        dataset_num_iters_per_offline_eval_runner offline_eval_rl_module_inference_only
        num_cpus_per_offline_eval_runner num_gpus_per_offline_eval_runner
        custom_resources_per_offline_eval_runner offline_evaluation_timeout_s
        max_requests_in_flight_per_offline_eval_runner broadcast_offline_eval_runner_states
        validate_offline_eval_runners_after_construction restart_failed_offline_eval_runners
        ignore_offline_eval_runner_failures max_num_offline_eval_runner_restarts
        offline_eval_runner_health_probe_timeout_s offline_eval_runner_restore_timeout_s
        always_attach_evaluation_results evaluation_num_workers
    """,
    "resources": """
        num_cpus_for_main_process custom_resources_for_main_process num_gpus _fake_gpus placement_strategy
        num_cpus_per_worker num_gpus_per_worker custom_resources_per_worker num_learner_workers
        num_cpus_per_learner_worker num_gpus_per_learner_worker local_gpu_idx num_cpus_for_local_worker
    """,
    "framework": """
        framework eager_tracing eager_max_retraces tf_session_args local_tf_session_args torch_compile_learner
        torch_compile_learner_what_to_compile torch_compile_learner_dynamo_mode
        torch_compile_learner_dynamo_backend torch_compile_worker torch_compile_worker_dynamo_backend
        torch_compile_worker_dynamo_mode torch_ddp_kwargs torch_skip_nan_gradients
    """,
    "api_stack": """
        enable_rl_module_and_learner enable_env_runner_and_connector_v2
    """,
    "debugging": """
        log_level log_sys_usage fake_sampler seed
    """,
    "rl_module": """
        model_config rl_module_spec algorithm_config_overrides_per_module model_config_dict
        _enable_rl_module_api
    """,
    "callbacks": """
        callbacks_class on_algorithm_init on_train_result on_evaluate_start on_evaluate_end
        on_evaluate_offline_start on_evaluate_offline_end on_env_runners_recreated
        on_offline_eval_runners_recreated on_checkpoint_loaded on_environment_created on_episode_created
        on_episode_start on_episode_step on_episode_end on_sample_end
    """,
    "checkpointing": """
        export_native_model_files checkpoint_trainable_policies_only
    """,
    "reporting": """
        keep_per_episode_custom_metrics metrics_episode_collection_timeout_s metrics_num_episodes_for_smoothing
        min_time_s_per_iteration min_train_timesteps_per_iteration min_sample_timesteps_per_iteration
        log_gradients custom_stats_cls_lookup
    """,
    "fault_tolerance": """
        restart_failed_env_runners ignore_env_runner_failures max_num_env_runner_restarts
        delay_between_env_runner_restarts_s restart_failed_sub_environments
        num_consecutive_env_runner_failures_tolerance env_runner_health_probe_timeout_s
        env_runner_restore_timeout_s recreate_failed_env_runners ignore_worker_failures recreate_failed_workers
        max_num_worker_restarts delay_between_worker_restarts_s num_consecutive_worker_failures_tolerance
        worker_health_probe_timeout_s worker_restore_timeout_s
    """,
    "multi_agent": """
        policies policy_map_capacity policy_mapping_fn policies_to_train policy_states_are_swappable
        observation_fn count_steps_by algorithm_config_overrides_per_module replay_mode policy_map_cache
    """,
    "offline_data": """
        input_ offline_data_class input_read_method input_read_method_kwargs input_read_schema
        input_read_episodes input_read_sample_batches input_read_batch_size input_filesystem
        input_filesystem_kwargs input_compress_columns materialize_data materialize_mapped_data
        map_batches_kwargs iter_batches_kwargs ignore_final_observation prelearner_class prelearner_buffer_class
        prelearner_buffer_kwargs prelearner_module_synch_period prelearner_use_recorded_module_states
        dataset_num_iters_per_learner input_config actions_in_input_normalized postprocess_inputs
        shuffle_buffer_size output output_config output_compress_columns output_max_file_size
        output_max_rows_per_file output_write_remaining_data output_write_method output_write_method_kwargs
        output_filesystem output_filesystem_kwargs output_write_episodes offline_sampling
    """,
    "experimental": """
        _validate_config _use_msgpack_checkpoints _torch_grad_scaler_class _torch_lr_scheduler_classes
        _tf_policy_handles_more_than_one_loss _disable_preprocessor_api _disable_action_flattening
        _disable_initialize_loss_from_dummy_batch
    """,
    "python_environment": """
        extra_python_environs_for_driver extra_python_environs_for_worker
    """,
}

# What RLlib's PPOConfig holds, for the settings that are honoured here.
RLLIB_DEFAULTS = {
    "env": None,
    "env_config": {},
    "clip_rewards": None,
    "normalize_actions": True,
    "clip_actions": False,
    "num_env_runners": 2,
    "num_envs_per_env_runner": 1,
    "num_cpus_per_env_runner": 1,
    "num_gpus_per_env_runner": 0,
    "sample_timeout_s": 60.0,
    "rollout_fragment_length": "auto",
    "batch_mode": "truncate_episodes",
    "explore": True,
    "observation_filter": "NoFilter",
    "num_learners": 0,
    "num_cpus_per_learner": "auto",
    "num_gpus_per_learner": 0,
    "gamma": 0.99,
    "lr": 5e-5,
    "grad_clip": None,
    "grad_clip_by": "global_norm",
    "train_batch_size": 4000,
    "num_epochs": 30,
    "minibatch_size": 128,
    "shuffle_batch_per_epoch": True,
    "lambda": 1.0,
    "use_critic": True,
    "use_gae": True,
    "use_kl_loss": True,
    "kl_coeff": 0.2,
    "kl_target": 0.01,
    "vf_loss_coeff": 1.0,
    "entropy_coeff": 0.0,
    "clip_param": 0.3,
    "vf_clip_param": 10.0,
    "evaluation_interval": None,
    "evaluation_duration": 10,
    "evaluation_duration_unit": "episodes",
    "evaluation_num_env_runners": 0,
    "evaluation_sample_timeout_s": 120.0,
    "evaluation_parallel_to_training": False,
    "metrics_num_episodes_for_smoothing": 100,
    "min_time_s_per_iteration": None,
    "min_sample_timesteps_per_iteration": 0,
    "log_level": "WARN",
    "seed": None,
    "restart_failed_env_runners": True,
    "ignore_env_runner_failures": False,
    "max_num_env_runner_restarts": 1000,
    "framework": "torch",
    "num_gpus": 0,
    "num_cpus_for_main_process": 1,
    "placement_strategy": "PACK",
    "torch_skip_nan_gradients": False,
}


@pytest.mark.parametrize("method", RLLIB_KEYWORDS)
def test_every_keyword_of_a_method_is_known(method):
    takes = PPO_SETTINGS.of_groups((method, *GROUPS[method]))
    assert set(RLLIB_KEYWORDS[method].split()) - set(takes) == set()


def test_no_method_is_missing():
    assert set(RLLIB_KEYWORDS) <= set(GROUPS)
    for method in GROUPS:
        assert callable(getattr(PPOConfig, method))


def test_defaults_are_rllibs():
    config = PPOConfig()
    assert {key: config[key] for key in RLLIB_DEFAULTS} == RLLIB_DEFAULTS
    assert config.model["fcnet_hiddens"] == [256, 256]
    assert config.model["fcnet_activation"] == "tanh"
    assert config.model["vf_share_layers"] is False
    assert AlgorithmConfig().num_env_runners == 0


def test_defaults_are_allowed_by_themselves():
    PPOConfig().validate()
    AlgorithmConfig().validate()


def test_signatures_and_docstrings_show_the_settings():
    signature = inspect.signature(PPOConfig.environment)
    assert next(iter(signature.parameters)) == "self"
    assert signature.parameters["env"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert signature.parameters["env_config"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "clip_param" in inspect.signature(PPOConfig.training).parameters
    assert "clip_param" not in inspect.signature(AlgorithmConfig.training).parameters
    assert "num_env_runners : a whole number >= 0, default=2" in PPOConfig.env_runners.__doc__
    assert "num_env_runners : a whole number >= 0, default=0" in AlgorithmConfig.env_runners.__doc__


def test_a_group_has_a_method_for_each_setting():
    groups = {entry.group for entry in PPO_SETTINGS.entries}
    assert groups <= set(GROUPS)
    assert {entry.group for entry in MODEL_SETTINGS.entries} == {"model"}


def test_every_refused_setting_names_an_alternative():
    for entry in (*PPO_SETTINGS.refused, *MODEL_SETTINGS.refused):
        assert isinstance(entry, Refused)
        assert entry.instead.endswith("."), entry.name


def test_every_setting_is_explained():
    for entry in (*PPO_SETTINGS.settings, *MODEL_SETTINGS.settings):
        assert isinstance(entry, Setting)
        assert entry.meaning.endswith("."), entry.name


def test_the_page_of_the_documentation_is_up_to_date(pytestconfig):
    page = pytestconfig.rootpath / "docs" / "rllib-configuration.md"
    if not page.parent.is_dir():
        pytest.skip("a distribution without docs/")
    advice = "run `python -m mltoolkit.rllib.algorithms._config_docs docs/rllib-configuration.md`"
    assert page.read_text() == configuration_page(), advice


def test_the_page_has_every_setting():
    page = configuration_page()
    for entry in (*PPO_SETTINGS.entries, *MODEL_SETTINGS.entries):
        assert f"| `{entry.name}`" in page, entry.name


def test_importing_a_configuration_brings_nothing_heavy():
    program = (
        "import sys; from mltoolkit.rllib.algorithms.ppo.ppo_config import PPOConfig; "
        "config = PPOConfig().environment('CartPole-v1').training(model={'fcnet_hiddens': [8]}); config.validate(); "
        "config.copy().to_data(); config.model_config; "
        "sys.exit(', '.join({'torch', 'gymnasium', 'numpy', 'pandas', 'distributed'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

"""Values that are not allowed, or do not go together, and what is said about them."""

from __future__ import annotations

import math

import pytest

from mltoolkit.rllib.algorithms._settings import InvalidConfigError
from mltoolkit.rllib.algorithms.ppo.ppo_config import PPOConfig


def said_of(config):
    with pytest.raises(InvalidConfigError) as caught:
        config.validate()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gamma": 1.5}, "`gamma` must be a number in [0, 1], got 1.5."),
        ({"gamma": "0.9"}, "`gamma` must be a number in [0, 1], got '0.9'."),
        ({"gamma": True}, "`gamma` must be a number in [0, 1], got True."),
        ({"gamma": math.nan}, "`gamma` must be a number in [0, 1], got nan."),
        ({"lambda": -0.1}, "`lambda` must be a number in [0, 1], got -0.1."),
        ({"lr": -1}, "`lr` must be a number >= 0 or a schedule"),
        ({"lr": [[5, 1e-3]]}, "it starts at timestep 5, not at 0"),
        ({"lr": [[0, 1], [10, 1], [10, 2]]}, "timestep 10 does not come after 10"),
        ({"lr": [[0, -1]]}, "the value -1 is not a number >= 0"),
        ({"lr": [0, 1]}, "0 is no pair of a timestep and a value"),
        ({"lr": [["0", 1]]}, "the timestep '0' is no number"),
        ({"lr": []}, "it is empty"),
        ({"clip_param": [[0, 0.2], [10, 0]]}, "the value 0 is not a number > 0"),
        ({"num_workers": -1}, "`num_env_runners` must be a whole number >= 0, got -1."),
        ({"num_workers": 1.0}, "`num_env_runners` must be a whole number >= 0, got 1.0."),
        ({"num_sgd_iter": 0}, "`num_epochs` must be a whole number >= 1, got 0."),
        ({"minibatch_size": 0}, "`minibatch_size` must be a whole number >= 1 or None, got 0."),
        ({"grad_clip": 0}, "`grad_clip` must be a number > 0 or None, got 0."),
        ({"grad_clip_by": "l2"}, "`grad_clip_by` must be 'global_norm', 'norm' or 'value', got 'l2'."),
        ({"batch_mode": "whole"}, "'truncate_episodes' or 'complete_episodes', got 'whole'"),
        ({"rollout_fragment_length": "Auto"}, "'auto' or a whole number >= 1, got 'Auto'"),
        ({"framework": "jax"}, "`framework` must be 'torch', got 'jax'."),
        ({"explore": 1}, "`explore` must be True or False, got 1."),
        ({"seed": -3}, "`seed` must be a whole number >= 0 or None, got -3."),
        ({"env": 3}, "`env` must be the name of an environment, a class or a function"),
        ({"observation_space": 3}, "`observation_space` must be a gymnasium space or None, got 3."),
        ({"clip_rewards": (1, -1)}, "`clip_rewards` must be"),
        ({"env_config": {1: 2}}, "the key 1 is no string"),
        ({"custom_resources_per_worker": {"a": -1}}, "'a': -1 is no amount of a resource"),
        ({"optimizer": {"eps": 1}}, "`optimizer` must be a torch.optim class or a function"),
        ({"callbacks": 3}, "`callbacks` must be a subclass of RLlibCallback"),
        ({"model": {"fcnet_hiddens": [8, 0]}}, "`model['fcnet_hiddens']` must be a list of whole numbers >= 1"),
        ({"model": {"fcnet_hiddens": 8}}, "`model['fcnet_hiddens']` must be a list of whole numbers >= 1, got 8."),
        ({"model": 8}, "`model` must be a dict with strings as keys, got 8."),
        ({"model": {"conv_filters": [3]}}, "`model['conv_filters']`"),
        ({"model_config": {"fcnet_hidens": [8]}}, "`model_config` has no setting 'fcnet_hidens'. Did you mean"),
        ({"evaluation_duration": 0}, "`evaluation_duration` must be 'auto' or a whole number >= 1, got 0."),
        ({"evaluation_duration": "auto"}, "needs evaluation(evaluation_parallel_to_training=True"),
        ({"evaluation_parallel_to_training": True}, "evaluation(evaluation_num_env_runners=1)"),
        (
            {"evaluation_parallel_to_training": True, "custom_evaluation_function": len, "evaluation_num_workers": 1},
            "`custom_evaluation_function` works with the algorithm itself",
        ),
        ({"evaluation_config": {"gamma": 3}}, "In `evaluation_config`: `gamma` must be"),
        ({"evaluation_config": 3}, "`evaluation_config` must be a dict of settings or an AlgorithmConfig"),
        ({"train_batch_size": None}, "are both None"),
        ({"use_critic": False}, "env_runners(batch_mode='complete_episodes')"),
        ({"log_dir": 3}, "`log_dir` must be the path of a folder or None, got 3."),
    ],
)
def test_wrong_values(settings, said):
    assert said in said_of(PPOConfig.from_dict(settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"vf_clip_param": math.inf},
        {"vf_clip_param": None},
        {"clip_rewards": True},
        {"clip_rewards": 2},
        {"clip_rewards": (-1, 1)},
        {"lr": 0},
        {"lr": ([0, 1e-3], [10, 0.0])},
        {"clip_param": [[0, 0.2], [1000, 0.1]]},
        {"minibatch_size": None},
        {"minibatch_size": 4000},
        {"model": {"conv_filters": [[16, 8, 4], [32, [4, 4], 2]]}},
        {"model": {"fcnet_activation": None}},
        {"use_gae": False, "batch_mode": "complete_episodes"},
        {"evaluation_duration": "auto", "evaluation_parallel_to_training": True, "evaluation_num_workers": 1},
        {"train_batch_size": None, "train_batch_size_per_learner": 256},
        {"num_gpus": 0.5},
    ],
)
def test_values_that_are_allowed(settings):
    PPOConfig.from_dict(settings).validate()


def test_numpys_numbers_are_numbers():
    np = pytest.importorskip("numpy")
    config = PPOConfig().training(gamma=np.float32(0.9), num_epochs=np.int64(3), lr=np.float64(1e-3))
    config.debugging(seed=np.int64(3)).env_runners(explore=np.bool_(True)).validate()


def test_all_problems_are_told_at_once():
    text = said_of(PPOConfig().training(gamma=2, lr=-1, num_epochs=0))
    assert text.startswith("3 settings are wrong:\n- `gamma`")
    assert len(text.splitlines()) == 4


def test_minibatch_within_the_train_batch():
    text = said_of(PPOConfig().training(train_batch_size=200, minibatch_size=256))
    assert "`minibatch_size` must be <=" in text
    assert "200, got 256" in text
    assert "100, got 128" in said_of(PPOConfig().training(train_batch_size=200).learners(num_learners=2))


@pytest.mark.parametrize(
    ("fragment", "fits"), [(1000, True), (100, True), (1, True), (2050, True), (2250, False), (333, False)]
)
def test_samples_make_up_the_train_batch_to_within_a_tenth(fragment, fits):
    config = PPOConfig().env_runners(num_env_runners=2, rollout_fragment_length=fragment)
    if fits:
        config.validate()
        return
    text = said_of(config)
    for told in ("4000", "num_env_runners=2", "num_envs_per_env_runner=1", f"rollout_fragment_length={fragment}"):
        assert told in text
    assert "'auto' or 2000" in text
    sampled = int(text.rpartition("`train_batch_size` to ")[2].rstrip("."))
    config.training(train_batch_size=sampled).validate()


def test_evaluation_is_not_held_to_the_train_batch():
    config = PPOConfig().evaluation(evaluation_interval=1, evaluation_config={"rollout_fragment_length": 333})
    config.validate()
    config.get_evaluation_config_object().validate()


def test_custom_modules_take_any_settings():
    spec = type("Spec", (), {"module_class": dict, "model_config": None})()
    config = PPOConfig().rl_module(rl_module_spec=spec, model_config={"my_width": 3})
    config.validate()
    assert config.model_config["my_width"] == 3
    config.training(model={"custom_model": "mine"})
    assert "both name a network" in said_of(config)


def test_the_class_of_a_custom_module_is_enough():
    config = PPOConfig().rl_module(rl_module_spec=type("Module", (), {}), model_config={"my_width": 3})
    config.validate()
    config.training(model={"custom_model": "mine"})
    assert "both name a network" in said_of(config)


def test_validation_can_be_switched_off():
    PPOConfig().training(gamma=2).experimental(_validate_config=False).validate()

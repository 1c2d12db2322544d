"""Configurations: attributes, methods that chain, dicts with old and new keys, copies."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest

from mltoolkit import tune
from mltoolkit.rllib.algorithms import _config_prepare
from mltoolkit.rllib.algorithms._settings import InvalidConfigError, UnknownSettingError, UnsupportedSettingError
from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig
from mltoolkit.rllib.algorithms.ppo.ppo_config import DEFAULT_CONFIG, PPOConfig
from mltoolkit.rllib.algorithms.ppo.presets import PRESETS


def an_env(env_config):
    return env_config


class FakeAlgorithm:
    def __init__(self, config, logger_creator=None):
        self.config = config
        self.logger_creator = logger_creator


class MyConfig(PPOConfig):
    """As a user of RLlib writes it."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class=algo_class or FakeAlgorithm)
        self.lr = 1e-3
        self.my_coeff = 0.5

    def training(self, *, my_coeff=None, **kwargs):
        super().training(**kwargs)
        if my_coeff is not None:
            self.my_coeff = my_coeff
        return self


# -- methods ----------------------------------------------------------------------------------------------------------


def test_methods_chain_and_set():
    config = (
        PPOConfig()
        .environment("CartPole-v1", env_config={"a": 1})
        .env_runners(num_env_runners=3, num_envs_per_env_runner=4)
        .training(lr=1e-3, lambda_=0.9, clip_param=0.2)
        .evaluation(evaluation_interval=2, evaluation_config={"explore": False})
        .learners(num_learners=1)
        .resources(num_cpus_for_main_process=2)
        .framework("torch")
        .api_stack(enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False)
        .debugging(seed=3, log_level="INFO")
        .rl_module(model_config={"fcnet_hiddens": [32]})
        .callbacks(on_episode_end=print)
        .checkpointing(export_native_model_files=True)
        .reporting(min_time_s_per_iteration=1)
        .fault_tolerance(max_num_env_runner_restarts=2)
        .multi_agent(count_steps_by="env_steps")
        .offline_data(input_="sampler")
        .experimental(_disable_preprocessor_api=False)
        .python_environment(extra_python_environs_for_worker={})
    )
    assert (config.env, config.env_config) == ("CartPole-v1", {"a": 1})
    assert (config.num_env_runners, config.num_envs_per_env_runner) == (3, 4)
    assert (config.lr, config.lambda_, config.clip_param, config.seed) == (1e-3, 0.9, 0.2, 3)
    assert config.callbacks_on_episode_end is print
    assert config.evaluation_config == {"explore": False}
    assert config.model_config["fcnet_hiddens"] == [32]
    config.validate()


def test_older_methods_and_keywords():
    config = PPOConfig().rollouts(
        num_rollout_workers=3, num_envs_per_worker=2, recreate_failed_workers=False, horizon=100
    )
    config.training(num_sgd_iter=5, sgd_minibatch_size=64, learner_config_dict={"a": 1})
    config.resources(num_cpus_per_worker=2, num_gpus_per_worker=1, num_learner_workers=0)
    config.exploration(explore=False)
    assert (config.num_env_runners, config.num_envs_per_env_runner, config.horizon) == (3, 2, 100)
    assert (config.num_epochs, config.minibatch_size, config.learner_config_dict) == (5, 64, {"a": 1})
    assert (config.num_cpus_per_env_runner, config.num_gpus_per_env_runner, config.explore) == (2, 1, False)
    assert config.restart_failed_env_runners is False


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: c.training(lamda=0.9), "training() has no setting `lamda`. Did you mean `lambda_`?"),
        (lambda c: c.env_runners(num_env_runer=1), "Did you mean `num_env_runners`?"),
        (lambda c: c.training(num_env_runners=1), "set by env_runners(num_env_runners=...), not by training()"),
        (lambda c: c.evaluation(num_workers=1), "set by env_runners(num_env_runners=...), not by evaluation()"),
        (lambda c: c.checkpointing(qqq=1), "It takes export_native_model_files."),
    ],
)
def test_unknown_keywords(call, said):
    with pytest.raises(TypeError) as caught:
        call(PPOConfig())
    assert said in str(caught.value)


def test_unknown_methods_and_attributes():
    with pytest.raises(AttributeError, match=r"no attribute `enviroment`. Did you mean `environment`"):
        PPOConfig().enviroment("CartPole-v1")
    with pytest.raises(AttributeError, match=r"no attribute `num_wokers`. Did you mean `num_workers`"):
        PPOConfig().num_wokers = 2
    assert not hasattr(PPOConfig(), "__array__")


def test_older_attributes_read_and_write():
    config = PPOConfig()
    config.num_workers = 5
    config.sgd_minibatch_size = 32
    assert (config.num_env_runners, config.num_rollout_workers, config.minibatch_size) == (5, 5, 32)
    assert config.policies == {}
    assert config.is_multi_agent is False


def test_refused_settings_name_the_alternative():
    with pytest.raises(UnsupportedSettingError, match=r"`policies`.*one agent"):
        PPOConfig().multi_agent(policies={"a": None, "b": None})
    with pytest.raises(NotImplementedError, match=r"`input_` = '/data'.*environment runners sample"):
        PPOConfig().offline_data(input_="/data")
    with pytest.raises(UnsupportedSettingError, match=r"evaluate\(video="):
        PPOConfig().environment(render_env=True)
    with pytest.raises(UnsupportedSettingError, match=r"`no_done_at_end` = True"):
        PPOConfig.from_dict({"no_done_at_end": True})
    with pytest.raises(UnsupportedSettingError, match=r"`use_attention` = True.*LSTM"):
        PPOConfig().training(model={"use_attention": True})


def test_harmless_values_of_refused_settings_pass():
    config = PPOConfig()
    config.update_from_dict({"multiagent": {}, "monitor": False, "preprocessor_pref": "deepmind", "input": "sampler"})
    config.update_from_dict({"multiagent": {"policies": {}, "policy_mapping_fn": None}, "exploration_config": {}})
    config.framework("torch", eager_tracing=True)
    assert config == PPOConfig()
    with pytest.raises(UnsupportedSettingError, match="policies"):
        config.update_from_dict({"multiagent": {"policies": {"a": None}}})


@pytest.mark.parametrize("name", ["tf2", "tf"])
def test_tensorflow_is_said_to_be_torch_once(name, caplog, monkeypatch):
    monkeypatch.setattr(_config_prepare, "_said_that_torch_is_used", False)
    with caplog.at_level(logging.WARNING):
        assert PPOConfig().framework(name).framework_str == "torch"
        assert PPOConfig.from_dict({"framework": name}).framework_str == "torch"
    assert [record.getMessage() for record in caplog.records] == [
        f"framework('{name}') asks for TensorFlow. Networks here are torch's: torch is used."
    ]


def test_no_bound_on_the_value_error_is_infinity():
    assert PPOConfig().training(vf_clip_param=None).vf_clip_param == float("inf")


def test_env_config_is_merged():
    config = PPOConfig().environment(env_config={"a": {"x": 1}}).environment(env_config={"a": {"y": 2}, "b": 3})
    assert config.env_config == {"a": {"x": 1, "y": 2}, "b": 3}


def test_oldest_callbacks_are_a_dict_of_functions():
    config = PPOConfig.from_dict({"callbacks": {"on_episode_end": print}})
    assert config.callbacks_on_episode_end is print
    assert config.callbacks_class is None
    with pytest.raises(UnknownSettingError, match=r"'on_episode_ends'. Did you mean `on_episode_end`"):
        PPOConfig.from_dict({"callbacks": {"on_episode_ends": print}})


def test_vectorize_mode_of_gymnasium():
    gymnasium = pytest.importorskip("gymnasium")
    config = PPOConfig().env_runners(gym_env_vectorize_mode=gymnasium.VectorizeMode.ASYNC)
    assert config.gym_env_vectorize_mode == "async"


# -- schedules --------------------------------------------------------------------------------------------------------


def test_older_schedules_go_first_whatever_the_order():
    schedule = [[0, 1e-3], [1000, 1e-4]]
    config = PPOConfig.from_dict({"lr_schedule": schedule, "lr": 1e-5, "entropy_coeff_schedule": [[0, 0.1]]})
    assert config.lr == schedule
    assert config.entropy_coeff == [[0, 0.1]]
    config.training(lr=1e-5)
    assert (config.lr, config.lr_schedule) == (1e-5, None)
    assert PPOConfig().training(lr=1e-5, lr_schedule=None).lr == 1e-5


# -- dicts ------------------------------------------------------------------------------------------------------------


def test_keys_old_and_new():
    config = PPOConfig()
    config["num_workers"] = 7
    config["lambda"] = 0.5
    assert config["num_env_runners"] == config.get("num_workers") == 7
    assert config["lambda"] == config["lambda_"] == config.lambda_ == 0.5
    assert "num_sgd_iter" in config
    assert "nonsense" not in config
    assert config.get("nonsense", 3) == 3
    assert set(config.keys()) == set(dict(config.items())) == set(config)
    assert len(config.values()) == len(config)
    with pytest.raises(UnknownSettingError, match=r"no setting 'num_worker'. Did you mean `num_workers`"):
        config["num_worker"]
    with pytest.raises(KeyError):
        config["num_worker"] = 1


def test_to_dict_and_back():
    config = PPOConfig().environment(an_env).training(lr=[[0, 1e-3]], model={"post_fcnet_hiddens": [4]})
    config.rl_module(model_config={"use_lstm": True})
    told = config.to_dict()
    assert type(told) is type(told["model"]) is dict
    assert (told["env"], told["lambda"], told["framework"]) == (an_env, 1.0, "torch")
    assert PPOConfig.from_dict(told) == config
    told["model"]["fcnet_hiddens"].append(1)
    told["lr"][0][1] = 5
    assert (config.model["fcnet_hiddens"], config.lr) == ([256, 256], [[0, 1e-3]])


def test_update_from_dict_is_deep():
    config = PPOConfig().training(model={"fcnet_hiddens": [8]}).evaluation(evaluation_config={"env_config": {"a": 1}})
    config.update_from_dict(
        {"model": {"fcnet_activation": "relu"}, "evaluation_config": {"env_config": {"b": 2}, "explore": False}}
    )
    assert (config.model["fcnet_hiddens"], config.model["fcnet_activation"]) == ([8], "relu")
    assert config.evaluation_config == {"env_config": {"a": 1, "b": 2}, "explore": False}
    with pytest.raises(UnknownSettingError, match="fcnet_hiddens"):
        config.update_from_dict({"model": {"fcnet_hidden": [8]}})
    with pytest.raises(UnknownSettingError, match="explore"):
        config.update_from_dict({"evaluation_config": {"explor": False}})
    with pytest.raises(TypeError, match="must be a dict"):
        config.update_from_dict([("lr", 1)])
    config.update_from_dict({"__trial_info__": object()})
    assert PPOConfig.overrides(explore=False) == {"explore": False}
    with pytest.raises(UnknownSettingError):
        PPOConfig.overrides(explor=False)


def test_default_config_as_older_programs_use_it():
    config = DEFAULT_CONFIG.copy()
    assert (config["num_workers"], config["num_sgd_iter"], config["sgd_minibatch_size"]) == (2, 30, 128)
    config["num_workers"] = 1
    config["model"]["fcnet_hiddens"] = [40, 20]
    config["model"]["post_fcnet_hiddens"].append(5)
    config["lr_schedule"] = [[0, 1e-3]]
    assert DEFAULT_CONFIG["model"]["fcnet_hiddens"] == [256, 256]
    assert DEFAULT_CONFIG["model"]["head_fcnet_hiddens"] == []
    assert DEFAULT_CONFIG["num_env_runners"] == 2
    built = PPOConfig.from_dict(config)
    assert (built.num_env_runners, built.model["fcnet_hiddens"], built.lr) == (1, [40, 20], [[0, 1e-3]])
    assert PPOConfig.from_dict(DEFAULT_CONFIG) == PPOConfig()
    for other in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), copy.copy(config)):
        assert other == config
        assert other["num_workers"] == 1


def test_default_config_refuses_what_is_unknown():
    config = DEFAULT_CONFIG.copy()
    for change in (
        lambda: config.update(num_worker=1),
        lambda: config["num_worker"],
        lambda: config["model"].__setitem__("fcnet_hidens", [1]),
        lambda: config.setdefault("num_worker", 1),
        lambda: config | {"num_worker": 1},
        lambda: config.pop("num_worker"),
    ):
        with pytest.raises(KeyError, match="Did you mean"):
            change()
    with pytest.raises(UnsupportedSettingError):
        config["monitor"] = True
    assert config.pop("num_workers") == 2
    assert config.get("num_workers", 9) == 9
    del config["lr"]
    assert "lr" not in config
    assert (config | {"num_workers": 4})["num_env_runners"] == 4


# -- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [PPOConfig.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_share_nothing_that_changes(duplicate):
    config = PPOConfig().environment("CartPole-v1", env_config={"a": [1]}).training(model={"fcnet_hiddens": [8]})
    config.evaluation(evaluation_config=PPOConfig().env_runners(explore=False))
    other = duplicate(config)
    assert other == config
    other.env_config["a"].append(2)
    other.model["fcnet_hiddens"].append(3)
    other.evaluation_config.explore = True
    other.lr = 1
    assert config.env_config == {"a": [1]}
    assert config.model["fcnet_hiddens"] == [8]
    assert config.evaluation_config.explore is False
    assert config.lr == 5e-5


def test_freezing():
    config = PPOConfig().evaluation(evaluation_config=PPOConfig())
    config.freeze()
    assert config.is_frozen
    for change in (
        lambda: setattr(config, "lr", 1),
        lambda: config.training(lr=1),
        lambda: config.update_from_dict({"lr": 1}),
        lambda: config.__setitem__("lr", 1),
        lambda: config.model.__setitem__("fcnet_hiddens", [1]),
        lambda: config.evaluation_config.training(lr=1),
    ):
        with pytest.raises(AttributeError, match=r"frozen.*copy\(copy_frozen=False\)"):
            change()
    assert config.copy().is_frozen
    assert config.copy(copy_frozen=True).is_frozen
    free = config.copy(copy_frozen=False)
    free.training(lr=1, model={"fcnet_hiddens": [1]})
    free.model["fcnet_hiddens"] = [2]
    free.evaluation_config.lr = 3
    assert config.lr == config.evaluation_config.lr == 5e-5


def test_a_users_own_subclass():
    config = MyConfig().training(my_coeff=0.25, clip_param=0.1)
    assert (config.my_coeff, config["my_coeff"], config.clip_param, config.lr) == (0.25, 0.25, 0.1, 1e-3)
    assert config.to_dict()["my_coeff"] == 0.25
    assert MyConfig.from_dict({"my_coeff": 3}).my_coeff == 3
    assert MyConfig.from_data(config.to_data()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.algo_class is FakeAlgorithm
    with pytest.raises(AttributeError, match="Did you mean `my_coeff`"):
        config.my_coef = 1
    with pytest.raises(UnknownSettingError):
        PPOConfig.from_dict({"my_coeff": 3})


def test_attributes_before_the_constructor_of_the_base():
    class Early(PPOConfig):
        def __init__(self):
            self.my_coeff = 1
            super().__init__()

    with pytest.raises(AttributeError, match=r"Call `super\(\).__init__\(\)` before `my_coeff`"):
        Early()


def test_repr_shows_what_differs():
    assert repr(PPOConfig()) == "<PPOConfig>"
    config = PPOConfig().training(lr=1e-3, model={"fcnet_hiddens": [8]})
    assert repr(config) == "<PPOConfig lr=0.001, model={'fcnet_hiddens': [8]}>"


# -- what follows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "runners", "envs", "lengths"),
    [
        (4000, 0, 1, [4000]),
        (2000, 2, 2, [500, 500]),
        (2500, 4, 3, [209, 209, 208, 208]),
        (512, 2, 20, [13, 13]),
        (10, 2, 64, [1, 1]),
        (10, 0, 4, [3]),
    ],
)
def test_rollout_fragment_length(batch, runners, envs, lengths):
    config = PPOConfig().training(train_batch_size=batch).env_runners(num_env_runners=runners)
    config.env_runners(num_envs_per_env_runner=envs)
    indices = range(1, runners + 1) if runners else [0]
    assert [config.get_rollout_fragment_length(index) for index in indices] == lengths
    config.env_runners(rollout_fragment_length=7)
    assert config.get_rollout_fragment_length(1) == 7


def test_batch_sizes():
    config = PPOConfig().learners(num_learners=2)
    assert (config.train_batch_size_per_learner, config.total_train_batch_size) == (2000, 4000)
    config.training(train_batch_size_per_learner=500)
    assert (config.train_batch_size_per_learner, config.total_train_batch_size) == (500, 1000)
    with pytest.raises(ValueError, match="both None"):
        _ = PPOConfig().training(train_batch_size=None).total_train_batch_size


def test_evaluation_config_object():
    config = PPOConfig().environment("CartPole-v1").evaluation(evaluation_config={"explore": False, "num_workers": 9})
    config.evaluation(evaluation_num_env_runners=2)
    config.freeze()
    evaluation = config.get_evaluation_config_object()
    assert (evaluation.in_evaluation, evaluation.explore, evaluation.num_env_runners) == (True, False, 2)
    assert (evaluation.evaluation_config, evaluation.batch_mode) == (None, "complete_episodes")
    assert evaluation.get_evaluation_config_object() is None
    assert not evaluation.is_frozen
    steps = config.copy(copy_frozen=False).evaluation(evaluation_duration_unit="timesteps", evaluation_duration=101)
    assert steps.get_evaluation_config_object().rollout_fragment_length == 51
    whole = PPOConfig().environment("CartPole-v1").evaluation(evaluation_config=PPOConfig().env_runners(explore=False))
    assert whole.get_evaluation_config_object().env == "CartPole-v1"


def test_model_config_has_the_newer_names():
    config = PPOConfig().training(
        model={"post_fcnet_hiddens": [8], "fcnet_weights_initializer": "xavier_uniform_", "vf_share_layers": True}
    )
    config.rl_module(model_config={"post_fcnet_activation": "tanh", "fcnet_hiddens": [4]})
    merged = config.model_config
    assert merged["head_fcnet_hiddens"] == [8]
    assert merged["fcnet_kernel_initializer"] == "xavier_uniform_"
    assert (merged["head_fcnet_activation"], merged["fcnet_hiddens"], merged["vf_share_layers"]) == ("tanh", [4], True)
    assert not [key for key in merged if key.startswith("post_")]
    merged["fcnet_hiddens"].append(1)
    assert config.model_config["fcnet_hiddens"] == [4]
    assert PPOConfig.from_dict({"vf_share_layers": True}).model_config["vf_share_layers"] is True


def test_model_config_as_a_dataclass():
    from mltoolkit.rllib.core.rl_module.default_model_config import DefaultModelConfig

    given = DefaultModelConfig(fcnet_hiddens=[16])
    config = PPOConfig().rl_module(model_config=given)
    config.validate()
    assert config.model_config["fcnet_hiddens"] == [16]
    assert config.model_config["vf_share_layers"] is True  # as the dataclass says
    copied = config.copy()
    copied.__dict__["_model_config"].fcnet_hiddens.append(3)
    assert given.fcnet_hiddens == [16]
    config.rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[-1]))
    with pytest.raises(InvalidConfigError, match="fcnet_hiddens"):
        config.validate()


def test_the_spec_of_the_module():
    pytest.importorskip("torch")
    from mltoolkit.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
    from mltoolkit.rllib.core.rl_module.rl_module import RLModuleSpec
    from mltoolkit.rllib.models.torch._adapter import TorchModelV2Module

    class MyModule(DefaultPPOTorchRLModule):
        pass

    assert PPOConfig().rl_module_spec.module_class is DefaultPPOTorchRLModule
    assert PPOConfig().training(model={"custom_model": "mine"}).rl_module_spec.module_class is TorchModelV2Module
    own = RLModuleSpec(module_class=MyModule)
    for given in (own, MyModule):
        config = PPOConfig().rl_module(rl_module_spec=given)
        config.validate()
        assert config.rl_module_spec.module_class is MyModule
    merged = PPOConfig().rl_module(rl_module_spec=RLModuleSpec(model_config={"a": 1})).rl_module_spec
    assert (merged.module_class, merged.model_config) == (DefaultPPOTorchRLModule, {"a": 1})


def test_the_class_of_the_learner():
    pytest.importorskip("torch")
    from mltoolkit.rllib.algorithms.ppo.ppo import PPO
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    class MyLearner(PPOTorchLearner):
        pass

    assert PPOConfig().learner_class is PPOTorchLearner
    assert PPOConfig().training(learner_class=MyLearner).learner_class is MyLearner
    assert PPOConfig().algo_class is PPO


# -- building ---------------------------------------------------------------------------------------------------------


def test_building():
    config = PPOConfig(algo_class=FakeAlgorithm)
    algo = config.build_algo(env="CartPole-v1")
    assert algo.config.env == "CartPole-v1"
    assert config.env is None
    assert config.build("CartPole-v1", print).logger_creator is print
    assert config.build_algo(use_copy=False).config is config
    with pytest.raises(ValueError, match=r"Use PPOConfig, or .*algo_class"):
        AlgorithmConfig().build_algo()


def test_search_spaces_of_tune_stay():
    config = PPOConfig().environment("CartPole-v1")
    config.training(lr=tune.grid_search([1e-3, 1e-4]), gamma=tune.uniform(0.9, 1))
    config.training(model={"fcnet_hiddens": [tune.grid_search([20, 40]), tune.choice([20, 40])]})
    config.env_runners(num_env_runners=tune.choice([0, 1]))
    told = config.to_dict()
    assert told["lr"] == {"grid_search": [1e-3, 1e-4]}
    assert told["gamma"] is config.gamma
    assert told["model"]["fcnet_hiddens"][0] == {"grid_search": [20, 40]}
    with pytest.raises(InvalidConfigError, match="param_space=config") as caught:
        config.validate()
    for name in ("`lr`", "`gamma`", "`num_env_runners`", "`model['fcnet_hiddens'][0]`"):
        assert name in str(caught.value)
    PPOConfig().training(model=tune.choice([{}, {"use_lstm": True}])).environment(env_config=tune.grid_search([{}]))


def test_tune_resolves_the_spaces_of_a_configuration():
    from mltoolkit.tune.execution._build import as_space
    from mltoolkit.tune.search.variant_generator import generate_variants

    config = PPOConfig().training(lr=tune.grid_search([1e-3, 1e-4]), model={"fcnet_hiddens": [tune.grid_search([8])]})
    resolved = [PPOConfig.from_dict(spec) for _, spec in generate_variants(as_space(config))]
    assert [each.lr for each in resolved] == [1e-3, 1e-4]
    assert resolved[0].model["fcnet_hiddens"] == [8]
    for each in resolved:
        each.validate()


# -- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    config = PPOConfig.preset(name).debugging(seed=1)
    assert config.env == name
    config.validate()
    config.lr = 5
    assert PPOConfig.preset(name).lr != 5


def test_unknown_presets():
    with pytest.raises(ValueError, match=r"no preset 'CartPole'. Did you mean 'CartPole-v1'"):
        PPOConfig.preset("CartPole")

"""Configurations as data: complete, JSON, and harmless whoever wrote them."""

from __future__ import annotations

import functools
import importlib
import json
import math
import pathlib
import sys
import types

import pytest

from mltoolkit.rllib.algorithms._config_model import MODEL_SETTINGS
from mltoolkit.rllib.algorithms._settings import InvalidConfigError, UnknownSettingError
from mltoolkit.rllib.algorithms._space_data import space_from_data, space_to_data
from mltoolkit.rllib.algorithms.ppo.ppo_config import PPO_SETTINGS, PPOConfig


def through_json(config, **given):
    return type(config).from_data(json.loads(json.dumps(config.to_data())), given=given)


def with_setting(key, value):
    data = PPOConfig().to_data()
    data["settings"][key] = value
    return json.loads(json.dumps(data))


def lost_of(data, **given):
    with pytest.raises(InvalidConfigError) as caught:
        PPOConfig.from_data(data, given=given)
    return str(caught.value)


def a_function(env_config):
    raise AssertionError("nothing of a file is called")


class NotAnEnv:
    pass


@pytest.fixture
def env_class():
    gymnasium = pytest.importorskip("gymnasium")

    class MyEnv(gymnasium.Env):
        pass

    module = sys.modules[__name__]
    MyEnv.__qualname__ = "MyEnv"
    module.MyEnv = MyEnv
    yield MyEnv
    del module.MyEnv


def test_plain_values_survive():
    config = PPOConfig.preset("CartPole-v1").debugging(seed=3)
    config.environment(
        env_config={
            "tuple": (1, [2.5, None]),
            "inf": -math.inf,
            "nested": {"a": {"b": True}},
            "numbers": {1: "one", (2, 3): "two"},
            "__odd__": 1,
            "set": {1, 2},
            "path": pathlib.Path("a/b"),
        },
        clip_rewards=(-1.0, 1.0),
    )
    config.evaluation(evaluation_config={"explore": False, "env_config": {"tuple": (1,)}})
    config.training(vf_clip_param=math.inf)
    again = through_json(config)
    assert again == config
    assert type(again.clip_rewards) is tuple
    assert type(again.env_config["path"]) is type(pathlib.Path())
    again.validate()


def test_arrays_survive():
    np = pytest.importorskip("numpy")
    config = PPOConfig().environment(env_config={"a": np.arange(6.0).reshape(2, 3), "b": np.float32(0.1)})
    again = through_json(config)
    np.testing.assert_array_equal(again.env_config["a"], config.env_config["a"])
    assert again.env_config["a"].dtype == np.float64
    assert again.env_config["b"] == float(np.float32(0.1))


def test_whole_configurations_inside_survive():
    config = PPOConfig().evaluation(evaluation_config=PPOConfig().env_runners(explore=False))
    assert through_json(config) == config


def test_specs_and_model_configs_survive():
    pytest.importorskip("torch")
    from mltoolkit.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from mltoolkit.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

    class MyModule(RLModule):
        pass

    MyModule.__qualname__ = "MyModule"
    spec = RLModuleSpec(module_class=MyModule, model_config={"a": 1})
    config = PPOConfig().rl_module(rl_module_spec=spec, model_config=DefaultModelConfig(fcnet_hiddens=[3]))
    sys.modules[__name__].MyModule = MyModule
    try:
        assert through_json(config) == config
    finally:
        del sys.modules[__name__].MyModule
    assert "`_rl_module_spec['module_class']`: MyModule of module" in lost_of(
        with_setting("_rl_module_spec", {"__rl_module_spec__": {"module_class": {"__ref__": f"{__name__}:MyModule"}}})
    )


def test_classes_of_the_right_kind_are_found(env_class):
    config = PPOConfig().environment(env_class)
    assert config.to_data()["settings"]["env"] == {"__ref__": f"{__name__}:MyEnv"}
    assert through_json(config).env is env_class


def test_callbacks_are_found():
    from mltoolkit.rllib.callbacks.callbacks import RLlibCallback

    config = PPOConfig().callbacks([RLlibCallback])
    assert through_json(config).callbacks_class == [RLlibCallback]


def test_the_kinds_of_classes_that_are_taken_exist():
    pytest.importorskip("torch")
    pytest.importorskip("gymnasium")
    kinds = {entry.class_of for entry in (*PPO_SETTINGS.settings, *MODEL_SETTINGS.settings)} - {""}
    assert len(kinds) == 8
    for kind in kinds:
        module, _, name = kind.partition(":")
        assert isinstance(vars(importlib.import_module(module))[name], type)


def test_what_cannot_be_written_must_be_given_again(env_class):
    config = PPOConfig().environment(lambda env_config: None, env_config={"f": print, "log": sys.stderr, "a": 1})
    config.callbacks(on_episode_end=a_function, on_train_result=functools.partial(a_function, 1))
    data = json.loads(json.dumps(config.to_data()))
    text = lost_of(data)
    assert "from_data(data, given={...})" in text
    assert "again" in text
    for name in ("`env`", "`env_config['f']`", "`env_config['log']`", "`callbacks_on_episode_end`"):
        assert f"- {name}: " in text
    assert f"{__name__}:a_function is not taken from a file" in text
    again = PPOConfig.from_data(
        data,
        given={
            "env": env_class,
            "env_config": {"f": max, "log": None},
            "on_episode_end": print,
            "callbacks_on_train_result": print,
        },
    )
    assert again.env is env_class
    assert again.env_config == {"a": 1, "f": max, "log": None}
    assert again.callbacks_on_episode_end is again.callbacks_on_train_result is print
    assert "callbacks_on_train_result" in lost_of(
        data, env=env_class, env_config={"f": 1, "log": 1}, on_episode_end=max
    )


@pytest.mark.parametrize(
    "key", ["env", "callbacks", "_learner_class", "env_runner_cls", "optimizer", "custom_eval_function", "env_config"]
)
@pytest.mark.parametrize(
    "reference", ["os:system", "subprocess:Popen", "builtins:eval", f"{__name__}:a_function", f"{__name__}:NotAnEnv"]
)
def test_a_file_cannot_name_what_it_likes(key, reference):
    value = {"__ref__": reference}
    data = with_setting(key, {"inner": value} if key == "env_config" else value)
    assert "must be given again" in lost_of(data)
    assert "must be given again" in lost_of(with_setting("evaluation_config", {key: {"a": value}}))


def test_a_file_cannot_have_modules_imported():
    assert "antigravity" not in sys.modules
    assert "import the module first" in lost_of(with_setting("env", {"__ref__": "antigravity:Env"}))
    assert "import antigravity first" in lost_of(with_setting("env", "antigravity:Env-v0"))
    assert "no environment" in lost_of(with_setting("env", "antigravity.Env"))
    assert "no environment" in lost_of(with_setting("env", "subprocess.Popen"))
    assert "no environment" in lost_of(with_setting("evaluation_config", {"env": "subprocess.Popen"}))
    assert "antigravity" not in sys.modules


def test_looking_a_name_up_runs_nothing(monkeypatch):
    module = types.ModuleType("lazy_module_of_a_test")
    module.__getattr__ = lambda name: pytest.fail("a module's __getattr__ was called")
    monkeypatch.setitem(sys.modules, "lazy_module_of_a_test", module)
    assert "not loaded" in lost_of(with_setting("env", {"__ref__": "lazy_module_of_a_test:Env"}))


def test_environments_by_name(env_class):
    from mltoolkit.tune import registry

    assert PPOConfig.from_data(with_setting("env", "CartPole-v1")).env == "CartPole-v1"
    assert PPOConfig.from_data(with_setting("env", f"{__name__}.MyEnv")).env == f"{__name__}.MyEnv"
    registry.register_env("my.env:of-a-test", a_function)
    try:
        assert PPOConfig.from_data(with_setting("env", "my.env:of-a-test")).env == "my.env:of-a-test"
    finally:
        del registry._registered["environments"]["my.env:of-a-test"]


def test_damaged_data():
    with pytest.raises(ValueError, match="no configuration"):
        PPOConfig.from_data([])
    with pytest.raises(ValueError, match="no configuration"):
        PPOConfig.from_data({"format": 1})
    with pytest.raises(ValueError, match="format 9"):
        PPOConfig.from_data({"format": 9, "settings": {}})
    with pytest.raises(UnknownSettingError, match="gama"):
        PPOConfig.from_data(with_setting("gama", 1))
    with pytest.raises(ValueError, match="__pickle__"):
        PPOConfig.from_data(with_setting("env", {"__pickle__": []}))
    with pytest.raises(ValueError, match="describe no space"):
        PPOConfig.from_data(with_setting("action_space", {"__space__": {"kind": "Box"}}))


def test_settings_that_came_later_have_their_defaults():
    data = PPOConfig().to_data()
    del data["settings"]["frame_stack"]
    assert PPOConfig.from_data(data).frame_stack == 1


def test_spaces_survive():
    spaces = pytest.importorskip("gymnasium.spaces")
    np = pytest.importorskip("numpy")
    low = np.array([[-1, -np.inf], [0, 2]], np.float32)
    nested = spaces.Dict(
        {
            "box": spaces.Box(low, low + 3, dtype=np.float32),
            "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "endless": spaces.Box(-np.inf, np.inf, (3,), np.float64),
            "discrete": spaces.Discrete(4, start=-1),
            "several": spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(4), spaces.MultiBinary([2, 3])]),
        }
    )
    data = json.loads(json.dumps(space_to_data(nested)))
    again = space_from_data(data)
    assert again == nested
    assert again["box"].dtype == np.float32
    assert len(json.dumps(space_to_data(nested["image"]))) < 120
    assert through_json(PPOConfig().environment(observation_space=nested)).observation_space == nested


def test_spaces_that_are_no_data():
    spaces = pytest.importorskip("gymnasium.spaces")
    assert space_to_data(spaces.Text(3)) is None
    assert space_to_data(spaces.Dict({"a": spaces.Text(3)})) is None
    assert space_to_data(type("Box", (spaces.Discrete,), {})(3)) is None
    config = PPOConfig().environment(observation_space=spaces.Text(3))
    assert "`observation_space`" in lost_of(config.to_data())
    with pytest.raises(ValueError, match="Kinds are Box"):
        space_from_data({"kind": "Text"})

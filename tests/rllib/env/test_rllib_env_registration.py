"""What a configuration may call an environment, and how it is made."""

import copy
import doctest
import importlib
import pickle
import sys
import types

import cloudpickle
import numpy as np
import pytest

from mltoolkit.rllib.env.env_context import EnvContext
from mltoolkit.rllib.env.errors import EnvCreationError, UnknownEnvError, UnsupportedEnvError
from mltoolkit.rllib.env.registration import EnvSource, resolve_env
from mltoolkit.tune import registry

gymnasium = pytest.importorskip("gymnasium")


class Plain(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)


class Configured(Plain):
    def __init__(self, config):
        self.config = config


class WithSettings(Plain):
    def __init__(self, size=5, *, speed=1.0):
        self.size, self.speed = size, speed


class Needing(Plain):
    def __init__(self, size):
        self.size = size


class WithDefaultConfig(Plain):
    def __init__(self, options={}, name="x"):  # noqa: B006
        self.options = options


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {"environments": {}, "models": {}, "action_distributions": {}})
    return registry.register_env


def make(env, config=None, **place):
    return resolve_env(env).make(EnvContext(config or {}, **place))[0]


def test_contexts_carry_their_place():
    context = EnvContext({"a": [1]}, 2, 3, True, 4, True)
    assert (context.worker_index, context.vector_index, context.remote) == (2, 3, True)
    assert (context.num_workers, context.recreated_worker, dict(context)) == (4, True, {"a": [1]})
    other = context.copy_with_overrides(env_config={"b": 2}, vector_index=0, recreated_worker=False)
    assert (dict(other), other.vector_index, other.worker_index, other.recreated_worker) == ({"b": 2}, 0, 2, False)
    for twin in (pickle.loads(pickle.dumps(context)), copy.deepcopy(context), copy.copy(context)):
        assert twin == context and vars(twin) == vars(context)
    context.set_defaults({"a": 0, "c": 1})
    assert context == {"a": [1], "c": 1}
    assert str(EnvContext({"a": 1})) == "{'a': 1, worker=0/None, vector_idx=0, remote=False}"


def test_ids_of_gymnasium():
    env = make("CartPole-v1", {"sutton_barto_reward": True})
    assert env.unwrapped._sutton_barto_reward
    assert type(make("gymnasium.envs:CartPole-v1")).__name__ == "CartPoleEnv"
    assert resolve_env("CartPole").spec.id == "CartPole-v1"
    assert resolve_env(gymnasium.spec("CartPole-v1")).name == "CartPole-v1"


@pytest.mark.parametrize(
    ("old", "new"), [("Pendulum-v0", "PendulumEnv"), ("Taxi-v3", "TaxiEnv"), ("CliffWalking-v0", "CliffWalkingEnv")]
)
def test_ids_that_gymnasium_dropped(old, new):
    assert type(make(old)).__name__ == new
    assert resolve_env(old).spec.max_episode_steps == 200 or old.startswith("Cliff")


def test_cart_pole_v0_without_gymnasiums_own(monkeypatch):
    monkeypatch.delitem(gymnasium.registry, "CartPole-v0")
    env, limit = resolve_env("CartPole-v0").make(EnvContext())
    assert limit == 200 and type(env).__name__ == "CartPoleEnv" and env.spec.max_episode_steps == 200


def test_registered_names_come_first(registered):
    registered("CartPole-v1", Configured)
    registered("nothing", lambda: Plain())
    env = make("CartPole-v1", {"a": 1}, worker_index=3)
    assert isinstance(env, Configured) and env.config.worker_index == 3 and env.config["a"] == 1
    assert type(make("nothing")) is Plain


def test_classes_and_functions():
    assert make(Configured, {"a": 1}).config == {"a": 1}
    assert type(make(Plain)) is Plain
    env = make(WithSettings, {"speed": 2.0, "size": 3})
    assert (env.size, env.speed) == (3, 2.0)
    assert make(WithSettings).size == 5
    assert make(Needing, {"size": 4}).size == 4
    assert make(WithDefaultConfig, {"depth": 1}).options == {"depth": 1}
    assert make(lambda env_config: Configured(env_config)).config == {}
    assert make(f"{__name__}.Plain") is not None if __name__ in sys.modules else True


def test_paths_of_classes(monkeypatch):
    module = types.ModuleType("a_users_module")
    module.Configured = Configured
    monkeypatch.setitem(sys.modules, "a_users_module", module)
    assert make("a_users_module.Configured", {"b": 1}).config == {"b": 1}


def test_settings_that_a_class_does_not_take():
    with pytest.raises(UnsupportedEnvError, match=r"does not take: sise\. It takes size, speed"):
        make(WithSettings, {"sise": 3})


@pytest.mark.parametrize(
    ("name", "near"), [("CartPol-v1", "CartPole-v1"), ("cartpole-v1", "CartPole-v1"), ("my_envv", "my_env")]
)
def test_unknown_names_name_the_nearest(name, near, registered):
    registered("my_env", Plain)
    with pytest.raises(UnknownEnvError, match=f"Did you mean '{near}'") as caught:
        resolve_env(name)
    assert "Registered with `register_env`: my_env" in str(caught.value)


def test_unknown_modules():
    with pytest.raises(UnknownEnvError, match="module 'no_such_module' cannot be imported"):
        resolve_env("no_such_module:Env-v0")
    with pytest.raises(UnknownEnvError, match=r"No environment is known as 'no_such_module\.Env'"):
        resolve_env("no_such_module.Env")


@pytest.mark.parametrize(
    ("env", "words"), [(Plain(), "already made"), (5, "got 5 of type int"), (None, "NoneType")], ids=str
)
def test_what_is_no_environment(env, words):
    with pytest.raises(UnsupportedEnvError, match=words):
        resolve_env(env)


class MultiAgentEnv:
    possible_agents = ("a", "b")

    def __init__(self, config):
        self.observation_space = {"a": Plain.observation_space}

    reset = step = action_space = observation_space = None


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (lambda config: None, "is a `return` missing"),
        (lambda config: "env", "has no `reset`, `step`"),
        (MultiAgentEnv, "is a multi-agent environment"),
    ],
)
def test_functions_that_make_something_else(env, words):
    with pytest.raises(UnsupportedEnvError, match=words):
        make(env)


def _broken(config):
    return {}["track"]


@pytest.mark.parametrize(
    ("env", "config", "words"),
    [(_broken, {"n": 1}, 'return {}["track"]'), ("CartPole-v1", {"sped": 1}, "unexpected keyword argument 'sped'")],
)
def test_errors_in_constructors_show_their_line(env, config, words):
    with pytest.raises(EnvCreationError) as caught:
        make(env, config)
    assert words in str(caught.value) and repr(config) in str(caught.value)
    assert isinstance(caught.value.__cause__, (KeyError, TypeError))


def test_sources_travel(registered):
    class Local(Plain):
        pass

    registered("local", lambda config: Local())
    for name in ("local", "CartPole-v0"):
        source = pickle.loads(cloudpickle.dumps(resolve_env(name)))
        assert isinstance(source, EnvSource)
        assert source.name == name and source.make(EnvContext())[0].action_space == gymnasium.spaces.Discrete(2)


def test_what_the_script_registers_with_gymnasium_travels(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "Local", Plain, raising=False)
    gymnasium.register("Local-v0", entry_point="__main__:Local")
    try:
        text = cloudpickle.dumps(resolve_env("Local-v0"))
    finally:
        del gymnasium.registry["Local-v0"]
    monkeypatch.delattr(sys.modules["__main__"], "Local")
    assert type(pickle.loads(text).make(EnvContext())[0]).__name__ == "Plain"


def test_wrappers_that_come_with_an_id_keep_their_limit_below():
    spec = gymnasium.make("Pendulum-v1", max_episode_steps=9)
    spec = gymnasium.wrappers.RescaleAction(spec, np.float32(-1), np.float32(1)).spec
    env, limit = resolve_env(spec).make(EnvContext())
    assert limit is None and type(env).__name__ == "RescaleAction" and env.env._max_episode_steps == 9


@pytest.mark.parametrize(
    "module",
    ["checking", "env_context", "errors", "registration", "spaces", "vector_env"],
)
def test_the_examples_in_the_documentation(module):
    result = doctest.testmod(importlib.import_module(f"mltoolkit.rllib.env.{module}"))
    assert result.attempted and not result.failed

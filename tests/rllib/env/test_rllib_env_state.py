"""Environments go on from a recorded state exactly as they would have without it."""

import collections
import enum
import json
import logging
import random

import numpy as np
import pytest

from mltoolkit.rllib.env.vector_env import make_vector_env

gymnasium = pytest.importorskip("gymnasium")


class Direction(enum.Enum):
    LEFT = 0
    RIGHT = 1


class Wallet:
    def __init__(self, rng):
        self.rng = rng
        self.money = 10.0


class Market(gymnasium.Env):
    """A user's environment with everything that plain data can hold, and aliases among it."""

    def __init__(self, config):
        self.observation_space = gymnasium.spaces.Box(-1e6, 1e6, (3,), np.float64)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.config = config
        self.rng = random.Random(5)
        self.old_rng = np.random.RandomState(6)
        self.prices = np.asfortranarray(np.arange(12.0).reshape(3, 4))
        self.counts = collections.defaultdict(int)
        self.callback = lambda: None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.direction = Direction.LEFT
        self.wallet = Wallet(self.np_random)
        self.window = collections.deque([0.0] * 3, maxlen=3)
        self.view = self.window
        self.t = 0
        return np.array(self.window), {}

    def step(self, action):
        self.t += 1
        self.counts[int(action)] += 1
        self.direction = Direction.RIGHT if action else Direction.LEFT
        self.wallet.money += self.wallet.rng.normal() + self.np_random.normal()
        self.window.append(self.wallet.money + self.rng.random() + self.old_rng.rand())
        drift = float(self.observation_space.sample()[0]) * 1e-6 + self.direction.value + self.prices.sum()
        return np.array(self.view), drift + self.counts[1], self.t >= 17, False, {}


def _through_json(state):
    """As a checkpoint has it: text and arrays."""
    text = json.dumps({key: value for key, value in state.items() if key != "arrays"})
    return {**json.loads(text), "arrays": {key: array.copy() for key, array in state["arrays"].items()}}


CASES = [
    ("CartPole-v1", 3),
    ("CartPole-v1", 8),
    ("Acrobot-v1", 2),
    ("Pendulum-v1", 2),
    ("MountainCar-v0", 2),
    ("FrozenLake-v1", 2),
    ("Taxi-v4" if "Taxi-v4" in gymnasium.registry else "Taxi-v3", 2),
    (Market, 3),
]


@pytest.mark.parametrize(("env", "num_envs"), CASES, ids=lambda case: getattr(case, "__name__", str(case)))
def test_the_next_300_steps_are_the_same(env, num_envs):
    vector = make_vector_env(env, {}, num_envs)
    vector.reset(seed=3)
    vector.action_space.seed(0)
    actions = [np.array([vector.action_space.sample() for _ in range(num_envs)]) for _ in range(330)]
    for action in actions[:30]:
        vector.step(action)
    other = make_vector_env(env, {}, num_envs)

    observations = other.set_state(_through_json(vector.get_state()), seed=77)

    np.testing.assert_array_equal(np.array(observations), np.array(vector.observations))
    np.testing.assert_array_equal(other.dones, vector.dones)
    for action in actions[30:]:
        for ours, theirs in zip(vector.step(action), other.step(action), strict=True):
            np.testing.assert_array_equal(np.array(ours), np.array(theirs))


def test_native_and_serial_were_both_covered():
    assert make_vector_env("CartPole-v1", {}, 8).is_native
    assert not make_vector_env("CartPole-v1", {}, 3).is_native


def test_the_state_does_not_change_with_the_environment():
    vector = make_vector_env("Pendulum-v1", {}, 1)
    vector.reset(seed=0)
    state = vector.get_state()
    before = _through_json(state)
    for _ in range(5):
        vector.step(np.ones((1, 1)))
    assert state["data"] == before["data"]
    for key, array in state["arrays"].items():
        np.testing.assert_array_equal(array, before["arrays"][key])


class Socketed(Market):
    def reset(self, *, seed=None, options=None):
        self.stream = (i for i in range(10))  # a running generator is no data
        return super().reset(seed=seed)


def test_what_cannot_be_recorded_gives_no_state_and_says_so_once(caplog):
    vector = make_vector_env(Socketed, {}, 2)
    vector.reset(seed=0)
    with caplog.at_level(logging.WARNING):
        assert vector.get_state() is None
        assert vector.get_state() is None
    assert caplog.text.count("generator") == 1
    assert "stream" in caplog.text and "Socketed" in caplog.text


def test_no_state_starts_new_episodes_by_the_seed():
    vector, other = (make_vector_env("Pendulum-v1", {}, 2) for _ in range(2))
    np.testing.assert_array_equal(vector.set_state(None, seed=4), other.set_state(None, seed=4))
    assert not vector.dones.any()


class Views(Market):
    def reset(self, *, seed=None, options=None):
        self.grid = np.zeros((4, 4))
        self.row = self.grid[1]
        return super().reset(seed=seed)


def test_views_of_one_array_are_not_torn_apart():
    vector = make_vector_env(Views, {}, 1)
    vector.reset(seed=0)
    assert vector.get_state() is None


class LargerWallet(Wallet):
    pass


class Rich(Market):
    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.wallet = LargerWallet(self.np_random)
        return result


@pytest.mark.parametrize(("env", "num_envs"), [("Pendulum-v1", 2), (Rich, 3), (Market, 2)])
def test_a_state_that_does_not_fit_starts_new_episodes(env, num_envs, caplog):
    vector = make_vector_env(Market, {}, 3)
    vector.reset(seed=0)
    vector.step([1, 1, 1])
    other = make_vector_env(env, {}, num_envs)
    fresh = np.array(other.reset(seed=9))
    with caplog.at_level(logging.WARNING):
        observations = np.array(other.set_state(vector.get_state(), seed=9))
    np.testing.assert_array_equal(observations, fresh)
    assert "does not fit" in caplog.text


def test_a_damaged_state_starts_new_episodes():
    vector = make_vector_env("Pendulum-v1", {}, 2)
    fresh = np.array(vector.reset(seed=9))
    state = vector.get_state()
    vector.step(np.ones((2, 1)))
    state["data"] = '{"dict": {"envs": {"evil": 1}}}'
    np.testing.assert_array_equal(vector.set_state(state, seed=9), fresh)


def test_wrappers_keep_their_state():
    def wrapped(config):
        env = gymnasium.make("Pendulum-v1", max_episode_steps=20)
        return gymnasium.wrappers.FrameStackObservation(gymnasium.wrappers.NormalizeObservation(env), 3)

    vector, other = (make_vector_env(wrapped, {}, 2) for _ in range(2))
    vector.reset(seed=0)
    for _ in range(30):
        vector.step(np.ones((2, 1)))
    other.set_state(_through_json(vector.get_state()), seed=1)
    for _ in range(50):
        for ours, theirs in zip(vector.step(np.ones((2, 1))), other.step(np.ones((2, 1))), strict=True):
            np.testing.assert_array_equal(ours, theirs)

"""The same vector environments as Stable-Baselines3's ``VecEnv``; skipped where that is not installed."""

import os
import signal

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("stable_baselines3")


@pytest.fixture
def make(runtime):
    from mltoolkit.rllib.vec_env import SB3ClusterVecEnv

    made = []

    def make(*args, **kwargs):
        made.append(SB3ClusterVecEnv(*args, **kwargs))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def test_steps_as_sb3s_own(make):
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.monitor import Monitor

    functions = [lambda: Monitor(gymnasium.make("CartPole-v1"))] * 4
    envs, own = make(functions, num_runners=2), make_vec_env("CartPole-v1", 4)
    assert envs.observation_space == own.observation_space and envs.num_envs == 4
    envs.seed(3), own.seed(3)
    np.testing.assert_array_equal(envs.reset(), own.reset())
    rng = np.random.default_rng(0)
    episodes = 0
    for _ in range(80):
        actions = rng.integers(2, size=4)
        *ours, our_infos = envs.step(actions)
        *theirs, their_infos = own.step(actions)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        for one, other in zip(our_infos, their_infos, strict=True):
            assert one.keys() == other.keys()
            assert one["TimeLimit.truncated"] == other["TimeLimit.truncated"]
            if "episode" in one:
                episodes += 1
                np.testing.assert_array_equal(one["terminal_observation"], other["terminal_observation"])
                assert (one["episode"]["r"], one["episode"]["l"]) == (other["episode"]["r"], other["episode"]["l"])
    assert episodes > 4
    assert envs.env_is_wrapped(Monitor) == own.env_is_wrapped(Monitor) == [True] * 4
    assert envs.env_is_wrapped(gymnasium.wrappers.ClipReward, indices=[0]) == [False]
    assert envs.get_attr("gravity", indices=1) == own.get_attr("gravity", indices=1) == [9.8]
    envs.set_attr("gravity", 3.7, indices=[2])
    assert envs.get_attr("gravity") == [9.8, 9.8, 3.7, 9.8]
    assert envs.env_method("get_wrapper_attr", "gravity", indices=[2]) == [3.7]
    assert not envs.has_attr("no_such_thing") and envs.has_attr("gravity")
    assert envs.render_mode is None


@pytest.mark.slow
def test_ppo_learns_on_it(make):
    from stable_baselines3 import PPO

    envs = make("CartPole-v1", 4, num_runners=2)
    PPO("MlpPolicy", envs, n_steps=32, batch_size=32, n_epochs=1, device="cpu", seed=0).learn(512)


@pytest.mark.hostile
def test_a_dead_runners_episodes_are_truncated(make):
    from gymnasium.envs.classic_control import CartPoleEnv

    class Tracked(CartPoleEnv):
        def pid(self):
            return os.getpid()

    envs = make(Tracked, 2, num_runners=1)
    envs.seed(0)
    last = envs.reset()
    os.kill(envs.env_method("pid", indices=[0])[0], signal.SIGKILL)
    observations, rewards, dones, infos = envs.step(np.array([0, 1]))
    assert dones.all() and not rewards.any()
    for index, info in enumerate(infos):
        assert info["faulty_episode"] and info["TimeLimit.truncated"]
        np.testing.assert_array_equal(info["terminal_observation"], last[index])
    assert (observations != last).all()


def test_from_a_cluster_vec_env(make):
    from mltoolkit.rllib.vec_env import ClusterVecEnv, SB3ClusterVecEnv

    envs = ClusterVecEnv("Pendulum-v1", 1).as_sb3()
    try:
        assert isinstance(envs, SB3ClusterVecEnv)
        envs.set_options({"x_init": 0.1})
        assert envs.reset().shape == (1, 3)
        with pytest.raises(TypeError, match="no further arguments"):
            SB3ClusterVecEnv(envs._envs, 3)
    finally:
        envs.close()
    with pytest.raises(TypeError, match="same_step"):
        make("Pendulum-v1", 1, autoreset_mode="next_step")

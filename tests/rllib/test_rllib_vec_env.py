"""Vector environments whose environments live in actors."""

import doctest
import os
import signal

import numpy as np
import pytest

from mltoolkit.rllib.env.errors import EnvCreationError, EnvError, EnvStepError, UnsupportedEnvError

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces


class Counter(gymnasium.Env):
    """Observes the number of the step; ends after `length`; action 9 ends its process, 8 raises, 7 hangs."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, config):
        self.observation_space = spaces.Box(0.0, 100.0, (1,), np.float32)
        self.action_space = spaces.Discrete(10)
        self.index = config.vector_index
        self.length = config.get("length", 3)
        self.render_mode = config.get("render_mode")
        self.start = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = (options or {}).get("start", self.start)
        return np.array([self.t], np.float32), {"seed": seed} if seed is not None else {}

    def step(self, action):
        if action == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == 8:
            raise RuntimeError("off the track")
        while action == 7:
            pass
        self.t += 1
        return np.array([self.t], np.float32), 1.0, self.t >= self.length, False, {"t": self.t}

    def pid(self, plus=0):
        return os.getpid() + plus

    def render(self):
        return np.full((2, 2, 3), self.index, np.uint8)


class Nested(Counter):
    def __init__(self, config):
        super().__init__(config)
        self.observation_space = spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Discrete(5)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"a": np.zeros(2, np.float32), "b": self.index}, {}

    def step(self, action):
        return {"a": np.ones(2, np.float32), "b": self.index}, 0.0, False, False, {}


@pytest.fixture
def make(runtime):
    from mltoolkit.rllib.vec_env import ClusterVecEnv

    made = []

    def make(*args, **kwargs):
        made.append(ClusterVecEnv(*args, **kwargs))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def acts(*actions):
    return np.array(actions)


def test_gymnasiums_api_with_autoreset_at_the_next_step(make):
    envs = make(Counter, 3, num_runners=2, env_config={"length": 2})
    assert isinstance(envs, gymnasium.vector.VectorEnv) and envs.num_runners == 2
    assert envs.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.NEXT_STEP
    assert envs.single_action_space == spaces.Discrete(10) and envs.action_space == spaces.MultiDiscrete([10] * 3)
    assert envs.observation_space.shape == (3, 1)
    observations, infos = envs.reset(seed=5)
    assert observations.tolist() == [[0], [0], [0]] and infos["seed"].tolist() == [5, 6, 7]
    rows = [envs.step(acts(0, 1, 2)) for _ in range(4)]
    assert [row[0][0, 0] for row in rows] == [1, 2, 0, 1]
    assert [row[1].tolist() for row in rows] == [[1] * 3, [1] * 3, [0] * 3, [1] * 3]
    assert [row[2].all() for row in rows] == [False, True, False, False]
    assert rows[0][4]["t"].tolist() == [1, 1, 1] and not rows[3][3].any()
    assert len(set(envs.call("pid"))) == 2 and envs.call("index") == (0, 1, 2)
    assert envs.call("pid", plus=1)[0] == envs.get_attr("pid")[0] + 1
    envs.set_attr("start", [1, 0, 0])
    assert envs.reset(options=None)[0][0, 0] == 1
    assert envs.reset(options={"start": 7}, seed=[1, None, 3])[0].tolist() == [[7]] * 3
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        envs.step(acts(1))
    with pytest.raises(RuntimeError, match="step_async"):
        envs.step_wait()
    envs.step_async(acts(0, 0, 0))
    with pytest.raises(RuntimeError, match="step_wait"):
        envs.step_async(acts(0, 0, 0))
    envs.step_wait()


def test_agrees_with_gymnasiums_own(make):
    envs = make("CartPole-v1", 4, num_runners=2)
    ours = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="sync")
    np.testing.assert_array_equal(envs.reset(seed=3)[0], ours.reset(seed=3)[0])
    ours.action_space.seed(0)
    for _ in range(60):
        actions = ours.action_space.sample()
        for one, other in zip(envs.step(actions)[:4], ours.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(one, other)


def test_autoreset_in_the_same_step(make):
    envs = make([lambda: Counter(_Context()), lambda: Nested.__mro__[1](_Context())], autoreset_mode="same_step")
    envs.reset(seed=0)
    rows = [envs.step(acts(0, 0)) for _ in range(4)]
    assert [row[0][1, 0] for row in rows] == [1, 2, 0, 1] and rows[2][2].all()
    assert rows[2][4]["final_obs"][1].tolist() == [3] and rows[2][4]["final_info"]["t"].tolist() == [3, 3]
    assert "t" not in rows[2][4]


class _Context(dict):
    vector_index = 0


def test_nested_observations_and_pictures(make):
    envs = make(Nested, 2, env_config={"render_mode": "rgb_array"})
    observations, _ = envs.reset(seed=0)
    assert observations["a"].shape == (2, 2) and observations["b"].tolist() == [0, 1]
    observations, *_ = envs.step(acts(0, 0))
    assert observations["a"].all() and observations in envs.observation_space
    assert [frame[0, 0, 0] for frame in envs.render()] == [0, 1] and envs.render_mode == "rgb_array"


@pytest.mark.hostile
def test_a_dead_runners_episodes_are_truncated(make):
    envs = make(Counter, 4, num_runners=2, env_config={"length": 3})
    envs.reset(seed=0)
    pids = envs.call("pid")
    envs.step(acts(0, 0, 0, 0))
    observations, rewards, terminations, truncations, infos = envs.step(acts(0, 0, 0, 9))
    assert truncations.tolist() == [False, False, True, True] and not terminations.any()
    assert observations[:, 0].tolist() == [2, 2, 1, 1] and rewards.tolist() == [1, 1, 0, 0]
    assert infos["faulty_episode"].tolist() == [False, False, True, True]
    observations, rewards, terminations, truncations, _ = envs.step(acts(0, 0, 0, 0))
    assert observations[:, 0].tolist() == [3, 3, 0, 0] and rewards.tolist() == [1, 1, 0, 0]
    assert terminations.tolist() == [True, True, False, False] and not truncations.any()
    # Dying where the next step would start an episode anyway: it is started, and nothing is cut short.
    observations, rewards, terminations, truncations, _ = envs.step(acts(0, 0, 0, 0))
    assert observations[:, 0].tolist() == [0, 0, 1, 1]
    for _ in range(3):
        envs.step(acts(0, 0, 0, 0))
    assert envs._dones.tolist() == [True, True, False, False]
    os.kill(envs.call("pid")[0], signal.SIGKILL)
    observations, rewards, terminations, truncations, _ = envs.step(acts(0, 0, 0, 0))
    assert observations[:2, 0].tolist() == [0, 0] and not truncations.any() and rewards[0] == 0
    assert envs.step(acts(0, 0, 0, 0))[0][:2, 0].tolist() == [1, 1]
    assert not {*pids} & {*envs.call("pid")}


@pytest.mark.hostile
def test_a_dead_runner_with_autoreset_in_the_same_step(make):
    envs = make(Counter, 2, num_runners=1, autoreset_mode="same_step")
    envs.reset(seed=0)
    envs.step(acts(0, 0))
    observations, _, _, truncations, infos = envs.step(acts(0, 9))
    assert observations[:, 0].tolist() == [0, 0] and truncations.all()
    assert [obs.tolist() for obs in infos["final_obs"]] == [[1], [1]]
    assert envs.step(acts(0, 0))[0][:, 0].tolist() == [1, 1]


@pytest.mark.hostile
def test_runners_that_only_die_are_given_up(make, monkeypatch):
    monkeypatch.setattr("mltoolkit.rllib.vec_env._MAX_SUCCESSIVE_DEATHS", 1)

    class Cursed(Counter):
        def reset(self, *, seed=None, options=None):
            if options:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().reset(seed=seed)

    envs = make(Cursed, 1)
    with pytest.raises(EnvError, match="Runner 0, with the environments 0 to 0, died 2 times in succession"):
        envs.reset(options={"die": True})
    envs = make(Counter, 1, restart=False)
    envs.reset(seed=0)
    with pytest.raises(EnvError, match="Runner 0"):
        envs.step(acts(9))


@pytest.mark.hostile
def test_an_environment_that_hangs_is_an_error(make):
    envs = make(Counter, 2, num_runners=2, timeout=60)
    envs.reset(seed=0)
    envs.step_async(acts(0, 7))
    with pytest.raises(TimeoutError, match=r"Runner 1 did not finish a step within 0\.1 s"):
        envs.step_wait(timeout=0.1)
    envs._timeout = 0.1
    envs.close()


def test_errors_of_environments_name_them_and_show_their_line(make):
    envs = make(Counter, 4, num_runners=2)
    envs.reset(seed=0)
    with pytest.raises(EnvStepError, match=r"Environment 3 \(Counter\) raised in step\(\) at step 1") as caught:
        envs.step(acts(0, 0, 0, 8))
    assert 'raise RuntimeError("off the track")' in str(caught.value)
    with pytest.raises(EnvCreationError, match="no board"):
        make(_without_board, 2)
    with pytest.raises(UnsupportedEnvError, match="single ones"):
        make(lambda config: gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")]), 1)


def _without_board(config):
    raise FileNotFoundError("no board")


def test_closing(make):
    envs = make(Counter, 1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.step(acts(0))
    envs.close()
    envs.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        envs.reset()


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((Counter,), {}, "`num_envs`"),
        ((Counter, 2, 3), {}, "`num_runners`"),
        (([Counter], 2), {}, "1 functions"),
        ((Counter, 2), {"autoreset_mode": "never"}, "'never'"),
        ((Counter, 2), {"timeout": 0}, "`timeout`"),
    ],
)
def test_wrong_arguments(make, args, kwargs, words):
    with pytest.raises(ValueError, match=words):
        make(*args, **kwargs)


def test_more_runners_than_the_cluster_has_room_for(make):
    with pytest.raises(TimeoutError, match="free CPU"):
        make(Counter, 2, num_runners=2, num_cpus_per_runner=3, timeout=0.3)


def test_the_examples_in_the_documentation(runtime):
    from mltoolkit.rllib import vec_env

    result = doctest.testmod(vec_env)
    assert result.attempted and not result.failed

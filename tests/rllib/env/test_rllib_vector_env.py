"""Vectors of environments: next-step autoreset, limits, seeds, and what wrong environments get."""

import logging
import pickle
import warnings

import numpy as np
import pytest

from mltoolkit.rllib.env.checking import check_env
from mltoolkit.rllib.env.env_context import EnvContext
from mltoolkit.rllib.env.errors import (
    EnvError,
    EnvResetError,
    EnvStepError,
    InvalidEnvResultError,
    InvalidObservationError,
    InvalidRewardError,
    UnsupportedEnvError,
    UnsupportedSpaceError,
)
from mltoolkit.rllib.env.vector_env import env_seeds, make_vector_env

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces


class Counter(gymnasium.Env):
    """Observes and is paid the number of the step; its episodes last `length` steps."""

    observation_space = spaces.Box(0.0, 100.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, config):
        self.length = config.get("length", 3) + config.vector_index
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {"first": True}

    def observe(self):
        return np.array([self.t], np.float32)

    def step(self, action):
        self.t += 1
        self.actions.append(action)
        return self.observe(), float(self.t), self.t >= self.length, False, {"t": self.t}


def run(vector, num_steps, actions=None):
    """Observations (T+1, N, ...), rewards, terminateds, truncateds of some steps."""
    actions = np.zeros((vector.num_envs, *vector.action_space.shape)) if actions is None else actions
    rows = [(np.array(vector.reset(seed=0)), None, None, None)]
    rows += [tuple(np.array(part) for part in vector.step(actions)) for _ in range(num_steps)]
    observations, *others = zip(*rows, strict=True)
    return np.array(observations), *(np.array(part[1:]) for part in others)


def test_next_step_autoreset():
    vector = make_vector_env(Counter, {}, 2, check=False)  # episodes of 3 and of 4 steps
    observations, rewards, terminateds, truncateds = run(vector, 9)
    assert observations[:, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert observations[:, 1, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert rewards[:, 0].tolist() == [1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert terminateds[:, 0].tolist() == [False, False, True, False, False, False, True, False, False]
    assert not truncateds.any()
    assert rewards.dtype == np.float64 and observations.dtype == np.float32
    assert len(vector.envs[0].actions) == 7  # the steps that start an episode take no action
    assert vector.last_infos == [{"t": 1}, {"t": 4}]
    assert vector.dones.tolist() == [False, True]


@pytest.mark.parametrize("env", ["CartPole-v1", Counter])
@pytest.mark.parametrize("num_envs", [2, 8])
def test_serial_and_native_follow_one_contract(env, num_envs):
    vector = make_vector_env(env, {}, num_envs)
    observations, rewards, terminateds, truncateds = run(vector, 150, np.ones(num_envs, np.int64))
    ended = terminateds | truncateds
    after = np.roll(ended, 1, axis=0)
    after[0] = False
    assert ended.any(axis=0).all()
    assert (rewards[after] == 0).all() and not (ended & after).any()
    assert (rewards[~after] > 0).all()
    if env == "CartPole-v1":
        first = observations[1:][after]
        assert (np.abs(first) <= 0.05).all()  # where CartPole starts
        assert (np.abs(observations[1:][ended & terminateds]).max(axis=1) > 0.05).all()


@pytest.mark.parametrize("num_envs", [2, 8])
def test_equal_seeds_give_equal_episodes(num_envs):
    runs = [run(make_vector_env("CartPole-v1", {}, num_envs), 60)[0] for _ in range(2)]
    np.testing.assert_array_equal(*runs)
    assert len({tuple(row) for row in runs[0][0].tolist()}) == num_envs
    vector = make_vector_env("CartPole-v1", {}, num_envs)
    assert (vector.reset(seed=1) != runs[0][0]).all()


class Sampler(gymnasium.Env):
    """The books' favourite: observations drawn from the space itself."""

    def __init__(self, config=None):
        self.observation_space = spaces.Box(-1.0, 1.0, (2,))
        self.action_space = spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(self.action_space.sample()[0]), False, False, {}


def test_the_spaces_of_an_environment_are_seeded():
    runs = [run(make_vector_env(Sampler, {}, 2), 5) for _ in range(2)]
    for ours, theirs in zip(*runs, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_seeds_of_environments_differ():
    assert len(set(env_seeds(0, 100))) == 100
    assert env_seeds(0, 3) == env_seeds(0, 100)[:3]


@pytest.mark.parametrize(("horizon", "length"), [(None, 500), (20, 20), (1000, 500)])
@pytest.mark.parametrize("num_envs", [1, 8])
def test_horizon_truncates_and_a_shorter_limit_stays(horizon, length, num_envs, monkeypatch):
    vector = make_vector_env("MountainCarContinuous-v0", {"max_episode_steps": 500}, num_envs, horizon=horizon)
    steps = 0
    vector.reset(seed=0)
    while True:
        _, _, terminateds, truncateds = vector.step(np.zeros((num_envs, 1)))
        steps += 1
        if (terminateds | truncateds).any():
            break
    assert steps == length and truncateds.all() and not terminateds.any()


def test_native_horizon():
    vector = make_vector_env("CartPole-v1", {}, 8, horizon=5)
    truncateds = run(vector, 5)[3]
    assert vector.is_native and truncateds[4].all() and not truncateds[:4].any()


def test_cart_pole_v0_ends_after_200_steps_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vector = make_vector_env("CartPole-v0", {}, 1)
        native = make_vector_env("CartPole-v0", {}, 8)
    assert vector._limits == [200] and native.env.max_episode_steps == 200


def test_settings_that_the_native_environment_does_not_take_are_served_serially():
    assert make_vector_env("CartPole-v1", {"sutton_barto_reward": True}, 8).is_native
    vector = make_vector_env("CartPole-v1", {"render_mode": "rgb_array"}, 8)
    assert not vector.is_native and vector.envs[0].render_mode == "rgb_array"


def test_gymnasiums_own_outer_wrappers_are_taken_off():
    vector = make_vector_env(lambda config: gymnasium.make("Pendulum-v1", max_episode_steps=7), {}, 1)
    assert type(vector.envs[0]).__name__ == "PendulumEnv"
    assert np.flatnonzero(run(vector, 15)[3]).tolist() == [6, 14]


def test_actions_are_the_environments_to_keep():
    vector = make_vector_env("Pendulum-v1", {}, 2)
    vector.reset(seed=0)
    actions = np.ones((2, 1), np.float32)
    vector.step(actions)
    actions[:] = 7
    assert [float(env.unwrapped.last_u) for env in vector.envs] == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"shape \(2, 1\)"):
        vector.step(np.ones(2))


@pytest.mark.parametrize("num_envs", [2, 8])
def test_actions_of_wrong_shape(num_envs):
    vector = make_vector_env("CartPole-v1", {}, num_envs)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="`actions` must"):
        vector.step(np.zeros(num_envs + 1, np.int64))


def test_native_environments_check_actions_against_the_space():
    vector = make_vector_env("CartPole-v1", {}, 8)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match=r"Discrete\(2\)"):
        vector.step(np.full(8, 5))


# Environments of the older API and of no API.


class OldStyle:
    """As in the books that were written before gymnasium."""

    def __init__(self, config=None):
        self.observation_space = spaces.Box(0.0, 10.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.seeds = []

    def seed(self, seed=None):
        self.seeds.append(seed)

    def reset(self):
        self.t = 0
        return [0.0, 0.0]

    def step(self, action):
        self.t += 1
        late = self.t >= 3
        return [self.t, 1.0], self.t, late, {"TimeLimit.truncated": True} if late and action else {}


def test_environments_of_the_older_gym_api():
    vector = make_vector_env(OldStyle, {}, 2)
    observations, rewards, terminateds, truncateds = run(vector, 4, np.array([0, 1]))
    assert observations[:, 0, 0].tolist() == [0, 1, 2, 3, 0]
    assert rewards[:, 0].tolist() == [1, 2, 3, 0]
    assert terminateds[2].tolist() == [True, False] and truncateds[2].tolist() == [False, True]
    assert vector.envs[0].seeds and vector.envs[0].seeds != vector.envs[1].seeds


class PairObservations(OldStyle):
    def __init__(self, config=None):
        super().__init__()
        self.observation_space = spaces.Tuple([spaces.Discrete(5), spaces.Dict({"a": spaces.Discrete(2)})])

    def reset(self):
        return 0, {"a": 1}

    def step(self, action):
        return (1, {"a": 0}), 1.0, False, {}


def test_a_tuple_of_two_may_be_the_observation():
    vector = make_vector_env(PairObservations, {}, 1)
    assert vector.reset(seed=0) == [(0, {"a": 1})]
    assert vector.step([0])[0] == [(1, {"a": 0})]


def _counter(**changes):
    def make(config):
        env = Counter(config)
        for name, value in changes.items():
            setattr(env, name, value)
        return env

    return make


def _stepping(*result):
    return _counter(step=lambda action: result)


OBS = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        ((np.zeros(3, np.float32), 0.0, False, False, {}), InvalidObservationError, "shape (3,)"),
        ((np.zeros((), np.float32), 0.0, False, False, {}), InvalidObservationError, "shape ()"),
        ((None, 0.0, False, False, {}), InvalidObservationError, "NoneType"),
        (("far", 0.0, False, False, {}), InvalidObservationError, "'far'"),
        (([[1.0], [1.0, 2.0]], 0.0, False, False, {}), InvalidObservationError, "list"),
        ((np.full(1, np.nan, np.float32), 0.0, False, False, {}), InvalidObservationError, "nan"),
        ((np.full(1, np.inf, np.float32), 0.0, False, False, {}), InvalidObservationError, "finite"),
        ((np.full(1, 101, np.float32), 0.0, False, False, {}), InvalidObservationError, "0.0 to 100.0"),
        ((OBS, None, False, False, {}), InvalidRewardError, "NoneType"),
        ((OBS, "1.0", False, False, {}), InvalidRewardError, "'1.0'"),
        ((OBS, np.ones(2), False, False, {}), InvalidRewardError, "ndarray"),
        ((OBS, float("nan"), False, False, {}), InvalidRewardError, "nan"),
        ((OBS, float("-inf"), False, False, {}), InvalidRewardError, "-inf"),
        ((OBS, 0.0, None, False, {}), InvalidEnvResultError, "`terminated`"),
        ((OBS, 0.0, False, {}, False), InvalidEnvResultError, "`truncated`"),
        ((OBS, 0.0, False, False, "info"), InvalidEnvResultError, "info of type str"),
        ((OBS, 0.0, False), InvalidEnvResultError, "a tuple of 3: (ndarray, float, bool)"),
    ],
)
@pytest.mark.parametrize("during", ["creation", "training"])
def test_wrong_results_are_errors_that_say_what_and_where(result, error, words, during):
    with pytest.raises(error) as caught:
        vector = make_vector_env(_stepping(*result), {}, 2, check=during == "creation")
        vector._pending._enabled = True
        vector.reset(seed=0)
        vector.step([0, 0])
        vector.check_pending()
    assert words in str(caught.value) and "make" in str(caught.value)
    assert caught.value.env_index == 0
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value) and copy.env_index == 0


def test_checks_wait_for_many_steps_but_not_for_ever():
    vector = make_vector_env(Counter, {"length": 300}, 2)
    vector.reset(seed=0)
    with pytest.raises(InvalidObservationError, match=r"101\.0.*0\.0 to 100\.0") as caught:
        for _ in range(200):
            vector.step([0, 0])
    assert "before its last" in str(caught.value)


def test_without_checks_observations_may_be_anything_of_the_right_shape():
    vector = make_vector_env(Counter, {"length": 300}, 1, check=False)
    assert run(vector, 200)[0].max() == 200


def test_numbers_of_other_types_are_taken_where_nothing_is_lost():
    for reward in (1, True, np.float32(1), np.int8(1), np.array(1.0), np.ones(1)):
        assert run(make_vector_env(_stepping(np.ones(1), reward, np.bool_(False), 0, None), {}, 1), 1)[1] == 1.0
    image = spaces.Box(0, 255, (2,), np.uint8)
    fits = _counter(observation_space=image, observe=lambda: np.array([3, 255]))
    assert run(make_vector_env(fits, {}, 1), 1)[0][1].tolist() == [[3, 255]]
    for wrong in (np.array([3, 256]), np.array([0.5, 1.0])):
        with pytest.raises(InvalidObservationError, match="uint8"):
            make_vector_env(_counter(observation_space=image, observe=lambda wrong=wrong: wrong), {}, 1)


@pytest.mark.parametrize(
    ("space", "good", "bad"),
    [
        (spaces.Discrete(3, start=1), 3, 0),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), np.array([2, 0])),
        (spaces.MultiBinary(2), np.array([0, 1], np.int8), np.array([0, 2], np.int8)),
    ],
)
def test_discrete_observations(space, good, bad):
    vector = make_vector_env(_counter(observation_space=space, observe=lambda: good), {}, 2)
    assert np.array_equal(run(vector, 1)[0][0], [good, good])
    with pytest.raises(InvalidObservationError, match="outside its space"):
        make_vector_env(_counter(observation_space=space, observe=lambda: bad), {}, 2)


NESTED = spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Tuple([spaces.Discrete(2)])})


def test_nested_observations():
    good = {"a": np.ones(2, np.float32), "b": (1,)}
    vector = make_vector_env(_counter(observation_space=NESTED, observe=lambda: good), {}, 2)
    vector.reset(seed=0)
    assert vector.step([0, 0])[0] == [good, good]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"a": np.ones(2)}, "the keys"),
        ({"a": np.ones(3), "b": (1,)}, "['a']"),
        ({"a": np.ones(2), "b": (2,)}, "0 to 1"),
        ({"a": np.ones(2), "b": [1, 1]}, "2 parts"),
        ({"a": np.array([0, np.nan]), "b": (1,)}, "nan"),
        (np.ones(2), "a ndarray"),
    ],
)
def test_wrong_nested_observations(bad, words):
    with pytest.raises(InvalidObservationError) as caught:
        make_vector_env(_counter(observation_space=NESTED, observe=lambda: bad), {}, 2)
    assert words in str(caught.value)


def test_environments_of_one_vector_have_the_same_spaces():
    def make(config):
        env = Counter(config)
        env.action_space = spaces.Discrete(2 + config.vector_index)
        return env

    with pytest.raises(InvalidEnvResultError, match=r"Environment 1 .*Discrete\(3\).*Discrete\(2\)"):
        make_vector_env(make, {}, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"observation_space": spaces.Text(5)}, "Text"),
        ({"observation_space": spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))})}, "['a']"),
        ({"observation_space": spaces.Graph(spaces.Discrete(2), None)}, "Graph"),
        ({"observation_space": spaces.OneOf([spaces.Discrete(2)])}, "OneOf"),
        ({"observation_space": {"a": spaces.Discrete(2)}}, "plain dictionary"),
        ({"action_space": spaces.Text(5)}, "Text"),
        ({"action_space": spaces.Dict({"a": spaces.Discrete(2)})}, "Dict"),
        ({"action_space": spaces.Box(0, 5, (1,), np.int64)}, "MultiDiscrete"),
    ],
)
def test_spaces_that_are_not_supported(changes, words):
    with pytest.raises(UnsupportedSpaceError) as caught:
        make_vector_env(_counter(**changes), {}, 1)
    assert words in str(caught.value) and "Supported: " in str(caught.value)


def test_unbounded_actions_are_supported():
    make_vector_env(_counter(action_space=spaces.Box(-np.inf, np.inf, (2,))), {}, 1)


# Environments that raise.


class Failing(Counter):
    failures = 0
    where = "step"
    at = 2

    def reset(self, *, seed=None, options=None):
        if Failing.where == "reset" and Failing.failures > 0:
            Failing.failures -= 1
            raise RuntimeError("no board")
        return super().reset(seed=seed)

    def step(self, action):
        if Failing.where == "step" and Failing.failures > 0 and self.t == Failing.at:
            Failing.failures -= 1
            raise RuntimeError("stuck")
        return super().step(action)


@pytest.fixture
def failing(monkeypatch):
    def configure(failures, where="step", at=2):
        monkeypatch.setattr(Failing, "failures", failures)
        monkeypatch.setattr(Failing, "where", where)
        monkeypatch.setattr(Failing, "at", at)
        return Failing

    return configure


@pytest.mark.parametrize(("where", "kind"), [("step", EnvStepError), ("reset", EnvResetError)])
def test_errors_of_the_environment_show_its_line(failing, where, kind):
    env = failing(0)
    vector = make_vector_env(env, {}, 2)
    failing(1, where)
    with pytest.raises(kind) as caught:
        run(vector, 5)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "raise RuntimeError(" in str(caught.value) and __file__ in str(caught.value)
    assert caught.value.env_index == 0 and caught.value.step == (3 if where == "step" else 0)
    assert pickle.loads(pickle.dumps(caught.value)).step == caught.value.step


def test_failed_environments_are_made_anew(failing, caplog):
    vector = make_vector_env(failing(0), {"length": 5}, 2, restart_failed_sub_environments=True)
    failing(1)
    with caplog.at_level(logging.WARNING):
        vector.reset(seed=0)
        rows = []
        for _ in range(6):
            observations, rewards, terminateds, truncateds = vector.step([0, 0])
            rows.append((observations[0, 0], rewards[0], terminateds[0], truncateds[0], vector.faulty[0]))
    assert rows[:3] == [(1, 1, False, False, False), (2, 2, False, False, False), (2, 0, False, True, True)]
    assert rows[3][0] == 0 and not rows[3][3] and not rows[3][4]  # a new episode, of the new environment
    assert rows[4][0] == 1
    assert vector.num_faulty_episodes == 1 and "stuck" in caplog.text
    assert observations[1, 0] == 6 and terminateds[1]  # its neighbour went on


def test_failures_in_reset_are_tried_again_with_a_new_environment(failing):
    vector = make_vector_env(failing(0), {}, 1, restart_failed_sub_environments=True)
    failing(3, "reset")
    before = vector.envs[0]
    vector.reset(seed=0)
    assert vector.envs[0] is not before


@pytest.mark.parametrize(("where", "at"), [("reset", 0), ("step", 0)])
def test_environments_that_only_fail_are_given_up(failing, where, at):
    vector = make_vector_env(failing(0), {}, 1, restart_failed_sub_environments=True)
    failing(10**6, where, at)
    with pytest.raises(EnvError, match="10 times in succession"):
        run(vector, 100)


def test_closing_twice_and_errors_in_close(caplog):
    def close():
        raise RuntimeError("already gone")

    vector = make_vector_env(_counter(close=close), {}, 2)
    vector.close()
    vector.close()
    assert caplog.text.count("already gone") == 2 * 2  # what it raised, and the line


# Vector environments of the user.


def _vector(mode="NEXT_STEP", num_envs=3):
    mode = getattr(gymnasium.vector.AutoresetMode, mode)
    fns = [lambda: gymnasium.make("CartPole-v1")] * num_envs
    return gymnasium.vector.SyncVectorEnv(fns, autoreset_mode=mode)


def test_a_vector_environment_of_the_user_is_used_as_it_is():
    vector = make_vector_env(lambda config: _vector(), {}, 3)
    assert vector.is_native and isinstance(vector.env, gymnasium.vector.SyncVectorEnv) and len(vector.envs) == 3
    assert run(vector, 30)[2].any()
    vector.close()


def test_vectorize_mode_vector_entry_point_tells_the_function_how_many():
    vector = make_vector_env(
        lambda config: _vector(num_envs=config["num_envs"]), {}, 2, vectorize_mode="vector_entry_point"
    )
    assert vector.num_envs == 2
    with pytest.raises(UnsupportedEnvError, match="returned a Counter"):
        make_vector_env(Counter, {}, 2, vectorize_mode="vector_entry_point")


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda config: _vector("SAME_STEP"), {}, "SAME_STEP"),
        (lambda config: _vector(), {"horizon": 5}, "`horizon`"),
        (lambda config: _vector(), {"restart_failed_sub_environments": True}, "`restart_failed_sub_environments`"),
        (lambda config: _vector(num_envs=2), {}, "2 environments"),
    ],
)
def test_vector_environments_that_cannot_be_used(make, options, words):
    with pytest.raises(UnsupportedEnvError) as caught:
        make_vector_env(make, {}, 3, **options)
    assert words in str(caught.value)


class Noisy(gymnasium.vector.VectorEnv):
    """Nested observations, infos and an error."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs=2):
        self.num_envs = num_envs
        self.single_observation_space = spaces.Dict({"a": spaces.Box(0, 1, (1,))})
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        return {"a": np.zeros((2, 1), np.float32)}, {}

    def step(self, action):
        if action.all():
            raise RuntimeError("both")
        infos = {"x": np.array([1, 0]), "_x": np.array([True, False])}
        return {"a": np.ones((2, 1), np.float32)}, np.ones(2), np.zeros(2, bool), np.zeros(2, bool), infos


def test_nested_observations_and_infos_of_vector_environments():
    vector = make_vector_env(Noisy, {"num_envs": 2}, 2)
    assert vector.reset(seed=0)[0]["a"].tolist() == [0] and vector.last_infos is None
    observations, *_ = vector.step([1, 0])
    assert len(observations) == 2 and observations[1]["a"].tolist() == [1]
    assert vector.last_infos == [{"x": 1}, {}]
    with pytest.raises(EnvStepError, match="RuntimeError: both"):
        vector.step([1, 1])


def test_every_environment_in_a_process_of_its_own():
    vector = make_vector_env(Counter, {"length": 2}, 2, vectorize_mode="async", horizon=2)
    try:
        observations, rewards, terminateds, truncateds = run(vector, 4)
        assert observations[:, 1, 0].tolist() == [0, 1, 2, 0, 1] and rewards[:, 1].tolist() == [1, 2, 0, 1]
        assert truncateds[1].all() and terminateds[1].tolist() == [True, False]
    finally:
        vector.close()
    with pytest.raises(ValueError, match="`restart_failed_sub_environments=True`"):
        make_vector_env(Counter, {}, 2, vectorize_mode="async", restart_failed_sub_environments=True)


@pytest.mark.parametrize(
    ("env", "config", "options", "words"),
    [
        ("Pendulum-v1", {}, {}, "no vector implementation"),
        ("CartPole-v1", {"render_mode": "rgb_array"}, {}, "shown"),
        ("CartPole-v1", {"gravity": 3}, {}, "does not take gravity"),
        ("CartPole-v1", {}, {"restart_failed_sub_environments": True}, "made anew"),
    ],
)
def test_why_there_is_no_native_environment(env, config, options, words):
    with pytest.raises(ValueError, match=words):
        make_vector_env(env, config, 2, vectorize_mode="vector_entry_point", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 0}, "`num_envs`"),
        ({"num_envs": 2, "horizon": 0}, "`horizon`"),
        ({"num_envs": 2, "vectorize_mode": "threads"}, "'threads'"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        make_vector_env("CartPole-v1", {}, **options)


def test_check_env_leaves_no_warning_and_takes_wrapped_environments():
    check_env(gymnasium.make("Taxi-v4" if "Taxi-v4" in gymnasium.registry else "Taxi-v3"))
    with pytest.raises(InvalidRewardError, match="Counter"):
        env = Counter(EnvContext())
        env.step = lambda action: (OBS, "much", False, False, {})
        check_env(env)

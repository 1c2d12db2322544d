"""Pipelines: what settings ask for, serving, statistics of several runners, state."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from mltoolkit.rllib.connectors import ConnectorError, ConnectorV2
from mltoolkit.rllib.connectors.env_to_module import (
    FlattenObservations,
    FrameStackingEnvToModule,
    MeanStdFilter,
    NormalizeRewards,
    PrevActionsPrevRewards,
)
from mltoolkit.rllib.connectors.pipeline import EnvToModulePipeline, build_pipelines


@pytest.fixture(scope="module")
def sp():
    import gymnasium

    return gymnasium.spaces


def config_of(**changes):
    settings = {
        "_env_to_module_connector": None,
        "_module_to_env_connector": None,
        "add_default_connectors_to_env_to_module_pipeline": True,
        "add_default_connectors_to_module_to_env_pipeline": True,
        "observation_filter": "NoFilter",
        "frame_stack": 1,
        "clip_rewards": None,
        "normalize_rewards": False,
        "normalize_actions": True,
        "clip_actions": False,
        "gamma": 0.99,
        "in_evaluation": False,
        "model_config": {"lstm_use_prev_action": False, "lstm_use_prev_reward": False},
    }
    assert set(changes) <= set(settings)
    return SimpleNamespace(**(settings | changes))


def names(pipeline):
    return [type(connector).__name__ for connector in pipeline.connectors]


def build(space, sp, num_envs=2, **changes):
    return build_pipelines(config_of(**changes), space, sp.Discrete(2), num_envs)[0]


def firsts(n, first=True):
    return np.full(n, first)


# -- what is built -----------------------------------------------------------------------------------------------------


def test_where_nothing_is_to_be_done_nothing_is_done(sp):
    pipeline = build(sp.Box(-1, 1, (4,)), sp)
    obs = np.ones((2, 4), np.float32)
    assert pipeline.observe(obs, firsts(2)) is obs
    assert pipeline.observation_space == sp.Box(-1, 1, (4,))
    assert pipeline.connectors == [] and not pipeline.wants_previous and pipeline.pop_delta() == {}
    rewards = pipeline.rewards(np.array([1.5, 2.0]), np.zeros(2, bool), np.zeros(2, bool))
    assert rewards.dtype == np.float32 and rewards.tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    ("make", "expected", "shape", "dtype"),
    [
        (lambda sp: sp.Box(-1, 1, (4,), np.float64), ["FlattenObservations"], (4,), np.float32),
        (lambda sp: sp.Box(-1, 1, ()), ["FlattenObservations"], (1,), np.float32),
        (lambda sp: sp.Box(-1, 1, (2, 3)), ["FlattenObservations"], (6,), np.float32),
        (lambda sp: sp.Discrete(5), ["FlattenObservations"], (5,), np.float32),
        (lambda sp: sp.Dict({"a": sp.Discrete(2), "b": sp.Box(0, 1, (3,))}), ["FlattenObservations"], (5,), np.float32),
        (lambda sp: sp.Box(0, 255, (8, 8, 3), np.uint8), [], (8, 8, 3), np.uint8),
        (lambda sp: sp.Box(0, 255, (8, 8), np.uint8), ["PrepareImages"], (8, 8, 1), np.uint8),
        (lambda sp: sp.Box(0, 2, (8, 8), np.uint8), ["FlattenObservations"], (64,), np.float32),
        (lambda sp: sp.Box(0, 1, (8, 8, 1), np.float32), [], (8, 8, 1), np.float32),
        (lambda sp: sp.Box(0, 1, (8, 8, 1), np.float64), ["PrepareImages"], (8, 8, 1), np.float32),
    ],
)
def test_every_space_becomes_what_modules_take(sp, make, expected, shape, dtype):
    space = make(sp)
    pipeline = build(space, sp)
    assert names(pipeline) == expected
    assert pipeline.observation_space.shape == shape and pipeline.observation_space.dtype == dtype
    space.seed(0)
    samples = [space.sample(), space.sample()]
    out = pipeline.observe(samples if isinstance(space, sp.Dict) else np.array(samples), firsts(2))
    assert out.shape == (2, *shape) and out.dtype == dtype
    assert pipeline.observation_space.contains(out[0])
    np.testing.assert_array_equal(pipeline.observe_one(samples[1]), out[1])


def test_settings_add_connectors_in_order(sp):
    pipeline = build(
        sp.Discrete(3),
        sp,
        observation_filter="MeanStdFilter",
        frame_stack=2,
        clip_rewards=1.0,
        normalize_rewards=True,
        gamma=0.5,
        model_config={"lstm_use_prev_action": True, "lstm_use_prev_reward": True},
    )
    assert names(pipeline) == [
        "FlattenObservations",
        "MeanStdFilter",
        "FrameStackingEnvToModule",
        "PrevActionsPrevRewards",
        "ClipRewards",
        "NormalizeRewards",
    ]
    assert pipeline.observation_space.shape == (3 * 2 + 2 + 1,)
    assert pipeline.connectors[-1].gamma == 0.5
    assert pipeline.wants_previous


def test_only_the_previous_reward(sp):
    pipeline = build(sp.Box(-1, 1, (1,)), sp, model_config={"lstm_use_prev_reward": True})
    pipeline.observe(np.zeros((2, 1), np.float32), firsts(2))
    out = pipeline.observe(
        np.zeros((2, 1), np.float32), firsts(2, False), prev_actions=np.array([0, 1]), prev_rewards=np.array([3.0, 4.0])
    )
    assert out.tolist() == [[0, 3], [0, 4]]


def test_clip_rewards(sp):
    no = np.zeros(2, bool)
    for given, expected in (
        (True, [1, -1]),
        (0.5, [0.5, -0.5]),
        ((-2.0, 1.0), [1, -2]),
        (False, [3, -4]),
        (None, [3, -4]),
    ):
        pipeline = build(sp.Box(-1, 1, (1,)), sp, clip_rewards=given)
        assert pipeline.rewards(np.array([3.0, -4.0]), no, no).tolist() == expected


@pytest.mark.parametrize(
    "function",
    [
        lambda env, spaces, device: [MeanStdFilter()],
        lambda env, spaces: [MeanStdFilter()],
        lambda env: [MeanStdFilter()],
        lambda: MeanStdFilter(),
        lambda *args: (MeanStdFilter(),),
        lambda env, spaces=None, device=None, more=None: MeanStdFilter(),
        lambda env=None, **kwargs: MeanStdFilter(),
        MeanStdFilter,
    ],
)
def test_every_signature_of_a_function_that_makes_connectors(sp, function):
    assert names(build(sp.Box(-1, 1, (1,)), sp, _env_to_module_connector=function)) == ["MeanStdFilter"]


def test_own_connectors_come_before_the_implied_ones(sp):
    seen = {}

    def make(env, spaces, device):
        seen.update(env=env, spaces=spaces, device=device)
        return [PrevActionsPrevRewards(), FlattenObservations()]

    space = sp.Discrete(3)
    observe, _ = build_pipelines(
        config_of(_env_to_module_connector=make, frame_stack=2), space, sp.Discrete(2), 4, env="the env"
    )
    assert names(observe) == ["PrevActionsPrevRewards", "FlattenObservations", "FrameStackingEnvToModule"]
    assert observe.observation_space.shape == ((3 + 2 + 1) * 2,)
    assert seen["env"] == "the env" and seen["spaces"]["__env_single__"] == (space, sp.Discrete(2))
    assert seen["spaces"]["__env__"][0].shape == (4,)


def test_functions_that_make_no_connectors_are_refused(sp):
    def fails(env):
        raise KeyError("no such thing")

    for function, message in (
        (lambda env: 3, "`env_to_module_connector` must return a ConnectorV2 or a list of them, got 3"),
        (lambda env: [MeanStdFilter(), None], "got None"),
        (MeanStdFilter(), "must be a function that makes connectors"),
        (fails, "`env_to_module_connector` raised KeyError"),
    ):
        with pytest.raises(ConnectorError, match=message):
            build(sp.Box(-1, 1, (1,)), sp, _env_to_module_connector=function)


def test_without_the_implied_connectors_the_own_ones_must_suffice(sp):
    off = {"add_default_connectors_to_env_to_module_pipeline": False}
    with pytest.raises(
        ValueError, match=r"the connectors end with Discrete\(3\)\. Put FlattenObservations at their end"
    ):
        build(sp.Discrete(3), sp, **off)
    made = build(sp.Discrete(3), sp, **off, frame_stack=4, _env_to_module_connector=lambda env: FlattenObservations())
    assert names(made) == ["FlattenObservations"]
    assert build(sp.Box(-1, 1, (2,), np.float64), sp, **off).observe(np.ones((1, 2)), firsts(1)).dtype == np.float32


def test_actions(sp):
    class Double(ConnectorV2):
        def actions(self, actions):
            return actions * 2

    box = sp.Box(0, 4, (1,))
    actions = np.array([[0.25]], np.float32)
    for changes, expected in (
        ({}, 2.5),
        ({"normalize_actions": False, "clip_actions": True}, 0.25),
        ({"_module_to_env_connector": lambda env, spaces: [Double()]}, 3.0),
        ({"_module_to_env_connector": lambda env: Double(), "normalize_actions": False}, 0.5),
        ({"add_default_connectors_to_module_to_env_pipeline": False}, 0.25),
    ):
        act = build_pipelines(config_of(**changes), sp.Box(-1, 1, (1,)), box, 1)[1]
        assert act(actions).tolist() == [[expected]]


def test_the_real_configuration_has_every_setting(sp):
    from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig

    config = (
        AlgorithmConfig()
        .environment(clip_rewards=True)
        .env_runners(observation_filter="MeanStdFilter", frame_stack=3, normalize_rewards=True)
        .training(model={"use_lstm": True, "lstm_use_prev_action": True})
    )
    observe, _ = build_pipelines(config, sp.Discrete(3), sp.Discrete(2), 2)
    assert names(observe) == [
        "FlattenObservations",
        "MeanStdFilter",
        "FrameStackingEnvToModule",
        "PrevActionsPrevRewards",
        "ClipRewards",
        "NormalizeRewards",
    ]
    assert not observe.evaluation
    config.in_evaluation = True
    assert build_pipelines(config, sp.Discrete(3), sp.Discrete(2), 2)[0].evaluation


# -- evaluation and serving --------------------------------------------------------------------------------------------


def test_in_evaluation_nothing_is_learned_and_rewards_are_the_environments(sp):
    changes = {"observation_filter": "MeanStdFilter", "normalize_rewards": True, "clip_rewards": True}
    training = build(sp.Box(-9, 9, (1,)), sp, **changes)
    evaluation = build(sp.Box(-9, 9, (1,)), sp, in_evaluation=True, **changes)
    no = np.zeros(2, bool)
    training.observe(np.array([[1.0], [3.0]], np.float32), firsts(2))
    training.rewards(np.array([4.0, -8.0]), no, no)
    evaluation.set_statistics(training.get_statistics())
    before = str(evaluation.get_statistics())
    assert evaluation.observe(np.array([[2.0], [99.0]], np.float32), firsts(2)).tolist() == [[0.0], [10.0]]
    assert evaluation.rewards(np.array([4.0, -8.0]), no, no).tolist() == [4, -8]
    assert str(evaluation.get_statistics()) == before


def everything(num_envs, sp):
    return EnvToModulePipeline(
        [MeanStdFilter(), FrameStackingEnvToModule(num_frames=2), PrevActionsPrevRewards(), NormalizeRewards()],
        sp.Box(-np.inf, np.inf, (2,)),
        sp.Discrete(3),
        num_envs,
    )


def drive(pipeline, rng, steps, first=True):
    n = pipeline.num_envs
    ended, outs = np.zeros(n, bool), []
    first = firsts(n, first)
    for _ in range(steps):
        outs.append(
            pipeline.observe(
                rng.normal(size=(n, 2)), first, prev_actions=rng.integers(0, 3, n), prev_rewards=rng.normal(size=n)
            ).copy()
        )
        first, ended = ended, ~ended & (rng.random(n) < 0.3)
        outs.append(pipeline.rewards(rng.normal(size=n), ended, np.zeros(n, bool)))
    return outs


def test_serving_disturbs_nothing(sp):
    alone, served = everything(3, sp), everything(3, sp)
    a, b = np.random.default_rng(0), np.random.default_rng(0)
    stream = served.stream()
    for _ in range(5):
        for one, other in zip(drive(alone, a, 2, False), drive(served, b, 2, False), strict=True):
            np.testing.assert_array_equal(one, other)
        served.observe_one([1.0, 2.0], stream=stream, prev_action=1, prev_reward=2.0)
        served.observe_one(np.array([5.0, 6.0]))
    assert str(alone.get_state()) == str(served.get_state())


def test_a_stream_serves_what_sampling_would_see(sp):
    pipeline = everything(1, sp)
    drive(pipeline, np.random.default_rng(0), 20)
    pipeline.reset()
    rng = np.random.default_rng(1)
    stream = pipeline.stream()
    for t in range(6):
        obs, action, reward = rng.normal(size=2), int(rng.integers(3)), float(rng.normal())
        first = t in (0, 4)
        sampled = pipeline.observe(
            obs[None], np.array([first]), prev_actions=np.array([action]), prev_rewards=np.array([reward]), update=False
        )[0]
        if first:
            stream.reset()
            one = pipeline.observe_one(obs, stream=stream)
        else:
            one = pipeline.observe_one(obs, stream=stream, prev_action=action, prev_reward=reward)
        np.testing.assert_array_equal(one, sampled)


def test_a_stream_of_several_environments(sp):
    pipeline = EnvToModulePipeline(
        [FlattenObservations(), FrameStackingEnvToModule(num_frames=2)], sp.Discrete(2), sp.Discrete(2), 7
    )
    stream = pipeline.stream(2)
    assert stream.observe([0, 1]).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    assert stream.observe([1, 1], is_first=np.array([False, True])).tolist() == [[1, 0, 0, 1], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match="`observations` must be 2, as many as the stream has, got 1"):
        stream.observe([0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0, 3.0], r"must have the shape \(2,\) and dtype float64 .*got shape \(3,\)"),
        ([[1.0, 2.0]], r"got shape \(1, 2\)"),
        ("text", "got"),
        ([1.0, [2.0]], "got"),
        ([np.nan, 1.0], "must not contain NaN"),
        (None, "got None"),
    ],
)
def test_a_single_observation_that_does_not_fit_is_refused(sp, given, message):
    pipeline = build(sp.Box(-9, 9, (2,), np.float64), sp)
    with pytest.raises(ValueError, match=message):
        pipeline.observe_one(given)


def test_single_observations_in_the_types_that_users_have(sp):
    pipeline = build(sp.Discrete(3), sp)
    for given in (2, np.int64(2), np.array(2), 2.0, np.int8(2)):
        assert pipeline.observe_one(given).tolist() == [0, 0, 1]
    images = build(sp.Box(0, 255, (4, 4, 3), np.uint8), sp)
    assert images.observe_one(np.full((4, 4, 3), 7, np.int64)).dtype == np.uint8
    with pytest.raises(ValueError, match="must have the shape"):
        images.observe_one(np.full((4, 4, 3), 300))
    with pytest.raises(ValueError, match=r"outside of its space: expected Discrete\(3\)"):
        pipeline.observe_one(3)


# -- statistics of several runners, and state --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_runners_together_know_what_one_that_saw_everything_knows(sp, seed):
    rng = np.random.default_rng(seed)
    driver = everything(1, sp)
    runners = [everything(n, sp) for n in (1, 2, 4)]
    seen = []
    for _ in range(4):
        for runner in runners:
            for _ in range(int(rng.integers(1, 4))):
                obs = rng.normal(3, 2, size=(runner.num_envs, 2))
                seen.append(obs)
                runner.observe(obs, firsts(runner.num_envs))
        driver.merge_deltas([runner.pop_delta() for runner in runners])
        for runner in runners:
            runner.set_statistics(driver.get_statistics())
    everyone = np.concatenate(seen)
    obs = rng.normal(3, 2, size=(1, 2))
    expected = np.clip((obs - everyone.mean(0)) / (everyone.std(0, ddof=1) + 1e-8), -10, 10)
    for runner in (driver, *runners):
        out = runner.stream().observe(obs)
        np.testing.assert_allclose(out[:, 2:4], expected, rtol=1e-5)


def test_one_that_samples_by_itself_merges_its_own(sp):
    alone, merging = everything(2, sp), everything(2, sp)
    a, b = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(3):
        for one, other in zip(drive(alone, a, 4), drive(merging, b, 4), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        merging.merge_deltas([merging.pop_delta()])


def test_a_state_is_data_and_goes_on_bit_for_bit(sp):
    first, second = everything(3, sp), everything(3, sp)
    rng = np.random.default_rng(0)
    drive(first, rng, 7)
    state = first.get_state()
    json.dumps(state, default=lambda value: value.tolist())  # numbers, strings and arrays only
    second.set_state(state)
    again = np.random.default_rng()
    again.bit_generator.state = rng.bit_generator.state
    for one, other in zip(drive(first, rng, 7, False), drive(second, again, 7, False), strict=True):
        np.testing.assert_array_equal(one, other)
    third = everything(5, sp)  # other environments: their episodes begin anew
    third.set_state(state)
    assert third.get_state()["memories"] == {} and str(third.get_statistics()) == str(state["statistics"])


def test_a_state_of_other_connectors_is_refused(sp):
    plain = build(sp.Box(-1, 1, (2,)), sp)
    with pytest.raises(
        ValueError, match=r"state is of the connectors \['0_MeanStdFilter'.*but there are \[\].*Configure the same"
    ):
        plain.set_state(everything(3, sp).get_state())
    small = EnvToModulePipeline([MeanStdFilter()], sp.Box(-1, 1, (3,)), sp.Discrete(2), 1)
    large = EnvToModulePipeline([MeanStdFilter()], sp.Box(-1, 1, (4,)), sp.Discrete(2), 1)
    with pytest.raises(ValueError, match=r"of shape \(4,\), but these have the shape \(3,\)"):
        small.set_state(large.get_state())


def test_returns_begin_anew_when_all_environments_are_reset(sp):
    pipeline = EnvToModulePipeline([NormalizeRewards(gamma=1.0)], sp.Box(-1, 1, (1,)), sp.Discrete(2), 2)
    obs, no = np.zeros((2, 1), np.float32), np.zeros(2, bool)
    pipeline.observe(obs, firsts(2))
    pipeline.rewards(np.array([1.0, 5.0]), no, ~no)
    pipeline.observe(obs, firsts(2))  # a reset from outside, in place of the one that the next step would have done
    pipeline.rewards(np.array([2.0, 2.0]), no, no)
    assert pipeline.get_state()["memories"]["0_NormalizeRewards"]["returns"].tolist() == [2, 2]
    assert pipeline.pop_delta()["0_NormalizeRewards"]["n"] == 4

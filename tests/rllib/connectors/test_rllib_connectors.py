"""Single connectors, vectorised over environments."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from mltoolkit.rllib.connectors import ConnectorError, ConnectorV2, Step
from mltoolkit.rllib.connectors.env_to_module import (
    ClipRewards,
    EnvToModulePipeline,
    FlattenObservations,
    FrameStackingEnvToModule,
    MeanStdFilter,
    NormalizeRewards,
    PrepareImages,
    PrevActionsPrevRewards,
    SingleAgentObservationPreprocessor,
    WriteObservationsToEpisodes,
)
from mltoolkit.rllib.connectors.module_to_env import ModuleToEnvPipeline, NormalizeAndClipActions


@pytest.fixture(scope="module")
def sp():
    import gymnasium

    return gymnasium.spaces


def step_of(n, first=True, **values):
    step = Step(n)
    step.is_first = np.full(n, first) if isinstance(first, bool) else np.array(first)
    for name, value in values.items():
        setattr(step, name, value)
    return step


@pytest.mark.parametrize(
    "name",
    [
        "connector_v2",
        "env_to_module.clip_rewards",
        "env_to_module.env_to_module_pipeline",
        "env_to_module.flatten_observations",
        "env_to_module.frame_stacking",
        "env_to_module.mean_std_filter",
        "env_to_module.observation_preprocessor",
        "module_to_env.module_to_env_pipeline",
        "module_to_env.normalize_and_clip_actions",
    ],
)
def test_examples(name):
    module = importlib.import_module(f"mltoolkit.rllib.connectors.{name}")
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


# -- flattening --------------------------------------------------------------------------------------------------------


def test_nested_observations_become_vectors_in_the_order_of_the_space(sp):
    space = sp.Dict(
        {
            "a": sp.Box(-10, 10, (), np.float32),
            "b": sp.Tuple([sp.Discrete(2), sp.Box(-1, 1, (2, 1), np.float64)]),
            "c": sp.MultiDiscrete([2, 3]),
            "d": sp.MultiBinary(2),
            "e": sp.Dict({"z": sp.Discrete(2, start=5)}),
        }
    )
    flatten = FlattenObservations(space)
    observations = [
        {
            "a": np.float32(-10),
            "b": (1, np.array([[-1.0], [-0.5]])),
            "c": np.array([0, 2]),
            "d": np.array([1, 0], np.int8),
            "e": {"z": 6},
        },
        {
            "a": np.float32(10),
            "b": (0, np.array([[1.0], [0.5]])),
            "c": np.array([1, 1]),
            "d": np.array([0, 1], np.int8),
            "e": {"z": 5},
        },
    ]
    out = flatten(observations, step_of(2))
    assert out.dtype == np.float32
    assert out.tolist() == [
        [-10, 0, 1, -1, -0.5, 1, 0, 0, 0, 1, 1, 0, 0, 1],
        [10, 1, 0, 1, 0.5, 0, 1, 0, 1, 0, 0, 1, 1, 0],
    ]
    assert flatten.observation_space.shape == (14,)
    assert all(flatten.observation_space.contains(row) for row in out)


@pytest.mark.parametrize(
    "make",
    [
        lambda sp: sp.Discrete(4, start=-1),
        lambda sp: sp.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [-2, 0]]),
        lambda sp: sp.MultiBinary((2, 3)),
        lambda sp: sp.Box(-3, 7, (2, 2), np.int16),
        lambda sp: sp.Box(0, 255, (4, 4, 3), np.uint8),
        lambda sp: sp.Box(-1, 1, (5,), np.float64),
        lambda sp: sp.Tuple([sp.Discrete(3), sp.Dict({"x": sp.Box(0, 1, (2,))})]),
    ],
)
def test_flattening_agrees_with_gymnasium(sp, make):
    space = make(sp)
    space.seed(0)
    samples = [space.sample() for _ in range(16)]
    flatten = FlattenObservations(space)
    batch = samples if isinstance(space, sp.Tuple) else np.array(samples)
    expected = np.array([sp.flatten(space, sample) for sample in samples], np.float32)
    np.testing.assert_array_equal(flatten(batch, step_of(16)), expected)
    assert flatten.observation_space.shape == expected.shape[1:]


@pytest.mark.parametrize("value", [-1, 3])
def test_a_value_outside_of_a_discrete_space_is_named(sp, value):
    with pytest.raises(
        ValueError, match=rf"environment 1 is outside of its space: expected Discrete\(3\), got .*{value}"
    ):
        FlattenObservations(sp.Discrete(3))(np.array([0, value]), step_of(2))


def test_a_missing_key_is_named(sp):
    flatten = FlattenObservations(sp.Dict({"x": sp.Discrete(3), "y": sp.Discrete(2)}))
    with pytest.raises(ValueError, match=r"environment 1 has nothing at \['y'\]"):
        flatten([{"x": 0, "y": 1}, {"x": 0}], step_of(2))


def test_keys_can_be_removed(sp):
    space = sp.Dict({"x": sp.Discrete(3), "y": sp.Discrete(2)})
    flatten = FlattenObservations(space, keys_to_remove=["x"])
    assert flatten([{"x": 0, "y": 1}], step_of(1)).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match=r"names \['z'\].* has \['x', 'y'\]"):
        FlattenObservations(space, keys_to_remove=["z"])
    with pytest.raises(ValueError, match="needs observations of a Dict space"):
        FlattenObservations(sp.Discrete(2), keys_to_remove=["z"])


def test_a_space_that_cannot_be_flattened_is_named_with_its_place(sp):
    with pytest.raises(ValueError, match=r"space Text at \['note'\] are not supported"):
        FlattenObservations(sp.Dict({"note": sp.Text(3)}))


# -- filter ------------------------------------------------------------------------------------------------------------


def test_the_filter_gives_what_two_passes_over_everything_so_far_give(sp):
    rng = np.random.default_rng(0)
    data = rng.normal([3, -200], [0.1, 50], size=(30, 4, 2)).astype(np.float32)
    flt = MeanStdFilter(sp.Box(-np.inf, np.inf, (2,)))
    for t, batch in enumerate(data):
        out = flt(batch, step_of(4))
        seen = data[: t + 1].reshape(-1, 2).astype(np.float64)
        expected = np.clip((batch - seen.mean(0)) / (seen.std(0, ddof=1) + 1e-8), -10, 10)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert out.dtype == np.float32


def test_the_filter_agrees_with_rllib(sp):
    # Numbers from RLlib's own filter, fed one observation after the other.
    flt = MeanStdFilter(sp.Box(-np.inf, np.inf, (2,)))
    rows = np.array([[1.0, 10.0], [2.0, 30.0], [4.0, 20.0], [100.0, -5.0]])
    out = np.concatenate([flt(row[None], step_of(1)) for row in rows])
    np.testing.assert_allclose(
        out, [[0, 0], [0.70710677, 0.70710677], [1.0910894, 0], [1.4995110, -1.2558275]], atol=1e-5
    )


def test_the_filter_does_not_learn_in_evaluation_or_when_told_not_to(sp):
    space = sp.Box(-9, 9, (1,))
    flt = MeanStdFilter(space)
    flt(np.array([[1.0], [3.0]]), step_of(2))
    before = flt.get_state()
    out = flt(np.array([[500.0], [2.0]]), step_of(2, update=False))
    assert str(flt.get_state()) == str(before)
    assert out.ravel().tolist() == [10.0, 0.0]
    still = MeanStdFilter(space, update_stats=False)
    assert still(np.array([[5.0]]), step_of(1)).tolist() == [[5.0]]  # it has nothing to go by


def test_filter_options(sp):
    space = sp.Box(-9, 9, (1,))
    data = np.array([[1.0], [3.0], [100.0]])
    assert MeanStdFilter(space, clip_by_value=None).observation_space.high[0] == np.inf
    assert MeanStdFilter(space, clip_by_value=0.5)(data, step_of(3)).max() == 0.5
    np.testing.assert_allclose(
        MeanStdFilter(space, de_std_to_one=False, clip_by_value=None)(data, step_of(3)), data - data.mean(), rtol=1e-6
    )
    np.testing.assert_allclose(
        MeanStdFilter(space, de_mean_to_zero=False)(data, step_of(3)), data / data.std(ddof=1), rtol=1e-6
    )
    with pytest.raises(ValueError, match="`clip_by_value` must be positive"):
        MeanStdFilter(clip_by_value=0)
    with pytest.raises(NotImplementedError, match="multi_agent=True"):
        MeanStdFilter(multi_agent=True)
    with pytest.raises(TypeError, match=r"no parameter `clip_value`. Did you mean `clip_by_value`"):
        MeanStdFilter(clip_value=3)


def test_a_constant_feature_stays_zero(sp):
    flt = MeanStdFilter(sp.Box(-9, 9, (1,)))
    for _ in range(5):
        assert (flt(np.full((3, 1), 0.1, np.float32), step_of(3)) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_observation_that_is_no_number_does_not_reach_the_statistics(sp, bad):
    flt = MeanStdFilter(sp.Box(-np.inf, np.inf, (2,)))
    flt(np.ones((2, 2)), step_of(2))
    before = str(flt.get_state())
    with pytest.raises(ValueError, match=r"environment 1, at observation\[0\]"):
        flt(np.array([[1.0, 1.0], [bad, 1.0]]), step_of(2))
    assert str(flt.get_state()) == before


def test_the_filter_works_within_nested_spaces(sp):
    space = sp.Dict({"x": sp.Box(-9, 9, (2,)), "n": sp.Discrete(3), "t": sp.Tuple([sp.Box(-9, 9, ())])})
    flt = MeanStdFilter(space)
    observations = [
        {"x": np.array([1.0, 5.0]), "n": 2, "t": (1.0,)},
        {"x": np.array([3.0, 5.0]), "n": 0, "t": (2.0,)},
    ]
    out = flt(observations, step_of(2))
    assert [one["n"] for one in out] == [2, 0]
    np.testing.assert_allclose([one["x"] for one in out], [[-(2**-0.5), 0], [2**-0.5, 0]], rtol=1e-6)
    np.testing.assert_allclose([one["t"][0] for one in out], [-(2**-0.5), 2**-0.5], rtol=1e-6)
    other = MeanStdFilter(space)
    other.set_state(flt.get_state())
    np.testing.assert_array_equal(
        [o["x"] for o in other(observations, step_of(2, update=False))],
        [o["x"] for o in flt(observations, step_of(2, update=False))],
    )


# -- frames ------------------------------------------------------------------------------------------------------------


def test_frames_are_stacked_per_environment_and_begin_anew_with_episodes(sp):
    stack = FrameStackingEnvToModule(sp.Box(1, 9, (2,)), num_frames=3)
    step = step_of(2)
    rows = []
    for t, first in enumerate([[1, 1], [0, 0], [0, 1], [0, 0]]):
        step.is_first = np.array(first, bool)
        rows.append(stack(np.array([[t, -t], [10 + t, 0]], np.float32), step).copy())
    assert rows[-1].tolist() == [[1, -1, 2, -2, 3, -3], [0, 0, 12, 0, 13, 0]]
    assert rows[1].tolist() == [[0, 0, 0, 0, 1, -1], [0, 0, 10, 0, 11, 0]]
    assert stack.observation_space.shape == (6,)
    assert stack.observation_space.low.tolist() == [0] * 6  # the zeros before an episode belong to it


def test_channels_of_images_are_stacked_last(sp):
    stack = FrameStackingEnvToModule(sp.Box(0, 255, (2, 3, 3), np.uint8), num_frames=2)
    step = step_of(1)
    images = np.random.default_rng(0).integers(0, 255, (2, 1, 2, 3, 3)).astype(np.uint8)
    stack(images[0], step)
    step.is_first = np.array([False])
    out = stack(images[1], step)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, np.concatenate(images, axis=-1))
    assert stack.observation_space.shape == (2, 3, 6)


def test_frame_options(sp):
    space = sp.Box(0, 1, (2,))
    same = np.zeros((1, 2))
    assert FrameStackingEnvToModule(space, num_frames=1)(same, step_of(1)) is same
    with pytest.raises(ValueError, match="`num_frames` must be a whole number of at least 1, got 0"):
        FrameStackingEnvToModule(num_frames=0)
    with pytest.raises(ValueError, match="put a FlattenObservations connector before"):
        FrameStackingEnvToModule(sp.Discrete(3), num_frames=2)


def test_images_get_channels_and_dtype(sp):
    grey = PrepareImages(sp.Box(0, 255, (4, 5), np.uint8))
    assert grey(np.ones((2, 4, 5), np.uint8), step_of(2)).shape == (2, 4, 5, 1)
    assert grey.observation_space.dtype == np.uint8
    doubles = PrepareImages(sp.Box(0, 1, (4, 5, 3), np.float64))
    assert doubles(np.ones((2, 4, 5, 3)), step_of(2)).dtype == np.float32


# -- previous actions and rewards --------------------------------------------------------------------------------------


def test_previous_actions_and_rewards_are_appended(sp):
    prev = PrevActionsPrevRewards(sp.Box(-1, 1, (1,)), sp.Discrete(3), n_prev_actions=2, n_prev_rewards=2)
    step = step_of(2)
    assert prev(np.array([[0.5], [0.25]]), step).tolist() == [[0.5] + [0] * 8, [0.25] + [0] * 8]
    for actions, rewards, first in (([2, 0], [1.0, -1.0], [0, 0]), ([1, 1], [5.0, 6.0], [0, 1])):
        step.prev_actions, step.prev_rewards = np.array(actions), np.array(rewards)
        step.is_first = np.array(first, bool)
        out = prev(np.zeros((2, 1)), step)
    assert out.tolist() == [[0, 0, 0, 1, 0, 1, 0, 1, 5], [0] * 9]
    assert prev.observation_space.shape == (9,)


def test_previous_actions_of_other_spaces(sp):
    box = PrevActionsPrevRewards(sp.Box(-1, 1, (1,)), sp.Box(1, 2, (2,)), n_prev_rewards=0)
    step = step_of(1, False, prev_actions=np.array([[1.5, 2.0]]), prev_rewards=np.array([7.0]))
    assert box(np.zeros((1, 1)), step).tolist() == [[0, 1.5, 2]]
    multi = PrevActionsPrevRewards(sp.Discrete(2), sp.MultiDiscrete([2, 3]), n_prev_rewards=1)
    step = step_of(1, False, prev_actions=np.array([[1, 2]]), prev_rewards=np.array([7.0]))
    assert multi(np.array([1]), step).tolist() == [[0, 1, 0, 1, 0, 0, 1, 7]]
    step.memory = {}
    rewards = PrevActionsPrevRewards(sp.Box(-1, 1, (1,)), sp.Discrete(2), n_prev_actions=0)
    assert rewards(np.zeros((1, 1)), step).tolist() == [[0, 7]]


def test_previous_actions_must_be_given_and_images_take_none(sp):
    prev = PrevActionsPrevRewards(sp.Box(-1, 1, (1,)), sp.Discrete(3))
    with pytest.raises(ValueError, match="`prev_actions` and `prev_rewards` must be given"):
        prev(np.zeros((1, 1)), step_of(1, False))
    with pytest.raises(ValueError, match="cannot be appended to images"):
        PrevActionsPrevRewards(sp.Box(0, 255, (4, 4, 3), np.uint8), sp.Discrete(2))
    with pytest.raises(ValueError, match="`n_prev_actions` must be a whole number"):
        PrevActionsPrevRewards(n_prev_actions=-1)


# -- rewards -----------------------------------------------------------------------------------------------------------


def test_rewards_are_clipped_to_sign_number_or_pair():
    rewards = np.array([-3.0, 0.0, 0.2, 8.0])
    assert ClipRewards(True).rewards(rewards, Step(4)).tolist() == [-1, 0, 1, 1]
    assert ClipRewards(0.5).rewards(rewards, Step(4)).tolist() == [-0.5, 0, 0.2, 0.5]
    assert ClipRewards((-1.0, 2.0)).rewards(rewards, Step(4)).tolist() == [-1, 0, 0.2, 2]
    for wrong in (False, 0, -1.0, (2.0, 1.0)):
        with pytest.raises(ValueError, match="`clip_rewards` must be"):
            ClipRewards(wrong)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return():
    rng = np.random.default_rng(0)
    gamma, n = 0.9, 3
    normalize = NormalizeRewards(gamma=gamma, clip_by_value=None)
    step = step_of(n)
    returns, seen, ended = np.zeros(n), [], np.zeros(n, bool)
    for _ in range(50):
        rewards = np.where(ended, 0.0, rng.normal(2, 3, n))
        step.autoreset, step.ended = ended, ~ended & (rng.random(n) < 0.2)
        out = normalize.rewards(rewards, step)
        returns = returns * gamma + rewards
        seen += list(returns[~ended])  # not those of steps that only reset
        returns[step.ended] = 0
        np.testing.assert_allclose(out, rewards / np.sqrt(np.var(seen) + 1e-8), rtol=1e-9)
        ended = step.ended


def test_normalised_rewards_are_clipped_and_keep_their_sign():
    normalize = NormalizeRewards(clip_by_value=0.5)
    step = step_of(4, ended=np.zeros(4, bool), autoreset=np.zeros(4, bool))
    out = normalize.rewards(np.array([-100.0, 1.0, 2.0, 300.0]), step)
    assert out[0] == -0.5 and out[-1] == 0.5 and (out[1:3] > 0).all()
    with pytest.raises(ValueError, match="reward nan from environment 2"):
        normalize.rewards(np.array([1.0, 1.0, np.nan, 1.0]), step)
    for wrong in ({"gamma": 1.5}, {"clip_by_value": 0}, {"epsilon": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NormalizeRewards(**wrong)


# -- connectors of one's own -------------------------------------------------------------------------------------------


class Difference(SingleAgentObservationPreprocessor):
    def recompute_output_observation_space(self, input_observation_space, input_action_space):
        import gymnasium

        return gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def preprocess(self, observation, episode):
        episode.custom_data["sum"] = episode.custom_data.get("sum", 0.0) + float(observation[0])
        observation[0] = -99.0  # its own copy
        return np.array([episode.custom_data["sum"], len(episode), episode.get_return()], np.float32)


def test_a_preprocessor_sees_the_episode_of_its_environment(sp):
    pipeline = EnvToModulePipeline([Difference()], sp.Box(-9, 9, (1,)), sp.Discrete(2), 2)
    assert pipeline.wants_previous
    obs = np.array([[1.0], [2.0]], np.float32)
    pipeline.observe(obs, np.array([True, True]))
    previous = {"prev_actions": np.array([0, 1]), "prev_rewards": np.array([4.0, 5.0])}
    out = pipeline.observe(obs, np.array([False, False]), **previous)
    assert out.tolist() == [[2, 1, 4], [4, 1, 5]]
    out = pipeline.observe(obs, np.array([False, True]), **previous)
    assert out.tolist() == [[3, 2, 8], [2, 0, 0]]
    assert obs.tolist() == [[1], [2]]


def test_a_preprocessors_episodes_go_on_from_a_state(sp):
    space = sp.Box(-9, 9, (1,))
    first, second = (EnvToModulePipeline([Difference()], space, sp.Discrete(2), 1) for _ in range(2))
    obs = np.array([[1.0]], np.float32)
    first.observe(obs, np.array([True]))
    second.set_state(first.get_state())
    previous = {"prev_actions": np.array([0]), "prev_rewards": np.array([4.0])}
    for pipeline in (first, second):
        assert pipeline.observe(obs, np.array([False]), **previous).tolist() == [[2, 1, 4]]


def test_an_endless_episode_does_not_fill_the_memory(sp):
    kept = []

    class Watch(SingleAgentObservationPreprocessor):
        def preprocess(self, observation, episode):
            kept.append(len(episode.observations))
            return observation

    pipeline = EnvToModulePipeline([Watch()], sp.Box(-9, 9, (1,)), sp.Discrete(2), 1)
    obs = np.zeros((1, 1), np.float32)
    pipeline.observe(obs, np.array([True]))
    for _ in range(1500):
        pipeline.observe(obs, np.array([False]), prev_actions=np.array([0]), prev_rewards=np.array([1.0]))
    assert 256 <= max(kept) <= 513
    assert pipeline._memories[0]["episodes"][0].get_return() == 1500


def test_a_preprocessor_may_change_nested_observations(sp):
    class OnlyX(SingleAgentObservationPreprocessor):
        def recompute_output_observation_space(self, input_observation_space, input_action_space):
            return input_observation_space["x"]

        def preprocess(self, observation, episode):
            return observation["x"]

    space = sp.Dict({"x": sp.Box(-9, 9, (2,)), "y": sp.Discrete(3)})
    pipeline = EnvToModulePipeline([OnlyX()], space, sp.Discrete(2), 1)
    out = pipeline.observe([{"x": np.array([1.0, 2.0]), "y": 0}], np.array([True]))
    assert out.tolist() == [[1, 2]] and out.dtype == np.float32


class Wrong(ConnectorV2):
    def __init__(self, what):
        self.what = what

    def __call__(self, observations, step):
        if self.what == "raise":
            return observations["missing"]
        if self.what == "shape":
            return observations[:, :1]
        if self.what == "nan":
            out = observations.copy()
            out[1, 0] = np.nan
            return out
        if self.what == "list":
            return [1, 2]
        return observations.astype(str)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("raise", r"Connector Wrong raised IndexError"),
        ("shape", r"Connector Wrong announces .*shape \(2, 2\), got the shape \(2, 1\)\. Override `recompute"),
        ("nan", r"Connector Wrong returned NaN for environment 1, at entry \[0\]"),
        ("list", r"Connector Wrong announces .* got list \[1, 2\]"),
        ("text", r"Connector Wrong must return numbers"),
    ],
)
def test_what_a_connector_does_wrong_names_it(sp, what, message):
    pipeline = EnvToModulePipeline([Wrong(what)], sp.Box(-9, 9, (2,)), sp.Discrete(2), 2)
    with pytest.raises(ConnectorError, match=message):
        pipeline.observe(np.ones((2, 2), np.float32), np.array([True, True]))


def test_wrong_reward_connectors_are_named(sp):
    class Rewarding(ConnectorV2):
        result = None

        def rewards(self, rewards, step):
            return self.result

    connector = Rewarding()
    pipeline = EnvToModulePipeline([connector], sp.Box(-9, 9, (2,)), sp.Discrete(2), 2)
    no = np.zeros(2, bool)
    for result, message in (
        (np.ones(3), r"shape \(2,\), got the shape \(3,\)"),
        (np.array([1, np.nan]), "NaN as a reward"),
    ):
        connector.result = result
        with pytest.raises(ConnectorError, match=f"Connector Rewarding .*{message}"):
            pipeline.rewards(np.ones(2), no, no)
    connector.result = np.array([2.0, 3.0])
    assert pipeline.rewards(np.ones(2), no, no).tolist() == [2, 3]


def test_connectors_written_for_rllibs_episode_lists_are_refused_with_the_way_out(sp):
    class Old(ConnectorV2):
        def __call__(self, *, rl_module, batch, episodes, explore=None, shared_data=None, **kwargs):
            return batch

    with pytest.raises(
        ConnectorError, match=r"Connector Old takes rl_module, batch.*SingleAgentObservationPreprocessor"
    ):
        EnvToModulePipeline([Old()], sp.Box(-9, 9, (2,)), sp.Discrete(2), 2)


def test_a_connector_that_cannot_work_on_the_space_is_named(sp):
    with pytest.raises(ConnectorError, match="Connector FrameStackingEnvToModule cannot work on Discrete"):
        EnvToModulePipeline([FrameStackingEnvToModule(num_frames=2)], sp.Discrete(3), sp.Discrete(2), 2)

    class NoSpace(ConnectorV2):
        def recompute_output_observation_space(self, input_observation_space, input_action_space):
            return (3,)

    with pytest.raises(ConnectorError, match=r"NoSpace: .*must return a gymnasium space, got \(3,\)"):
        EnvToModulePipeline([NoSpace()], sp.Discrete(3), sp.Discrete(2), 2)
    with pytest.raises(ConnectorError, match="must be a ConnectorV2, got 3"):
        EnvToModulePipeline([3], sp.Discrete(3), sp.Discrete(2), 2)


def test_observations_written_to_episodes_need_nothing(sp):
    pipeline = EnvToModulePipeline([WriteObservationsToEpisodes()], sp.Box(-9, 9, (2,)), sp.Discrete(2), 2)
    obs = np.ones((2, 2), np.float32)
    assert pipeline.observe(obs, np.array([True, True])) is obs


# -- actions -----------------------------------------------------------------------------------------------------------


def test_actions_are_mapped_to_the_bounds(sp):
    space = sp.Box(np.array([-2.0, 0.0], np.float32), np.array([-0.5, 10.0], np.float32))
    to_env = ModuleToEnvPipeline(space, normalize_actions=True, clip_actions=False)
    actions = np.array([[-1.0, 1.0], [0.0, 0.9], [5.0, -7.0]], np.float32)
    kept = actions.copy()
    out = to_env(actions)
    np.testing.assert_allclose(out, [[-2, 10], [-1.25, 9.5], [-0.5, 0]], rtol=1e-6)
    assert out.dtype == np.float32 and (actions == kept).all()
    assert all(space.contains(one) for one in out)


def test_actions_can_be_clipped_only_or_left(sp):
    space = sp.Box(-0.5, 0.5, (1,))
    actions = np.array([[0.9], [-0.1]], np.float32)
    clipped = ModuleToEnvPipeline(space, normalize_actions=False, clip_actions=True)(actions)
    np.testing.assert_allclose(clipped, [[0.5], [-0.1]])
    assert ModuleToEnvPipeline(space, False, False)(actions) is actions


def test_half_bounded_actions_are_clipped_not_scaled(sp):
    space = sp.Box(np.array([0.0, -np.inf], np.float32), np.array([np.inf, np.inf], np.float32))
    out = ModuleToEnvPipeline(space, normalize_actions=True)(np.array([[-1.0, -3.0], [2.0, 9.0]], np.float32))
    assert out.tolist() == [[0, -3], [2, 9]]
    free = sp.Box(-np.inf, np.inf, (1,))
    actions = np.ones((2, 1), np.float32)
    assert ModuleToEnvPipeline(free, normalize_actions=True)(actions) is actions


def test_bounds_as_wide_as_the_dtype_do_not_overflow(sp):
    top = np.finfo(np.float32).max
    space = sp.Box(-top, top, (1,), np.float32)
    out = ModuleToEnvPipeline(space)(np.array([[-1.0], [0.0], [1.0]], np.float32))
    assert np.isfinite(out).all() and out[1, 0] == 0 and all(space.contains(one) for one in out)


def test_actions_have_the_dtype_of_their_space(sp):
    assert ModuleToEnvPipeline(sp.Box(-1, 1, (1,), np.float64))(np.zeros((2, 1), np.float32)).dtype == np.float64
    whole = ModuleToEnvPipeline(sp.Box(3, 5, (1,), np.int32))(np.array([[4], [9]]))
    assert whole.dtype == np.int32 and whole.tolist() == [[4], [5]]


def test_discrete_actions_pass_as_they_are(sp):
    for space in (sp.Discrete(3), sp.MultiDiscrete([2, 2]), sp.MultiBinary(2)):
        actions = np.ones((2, 2), np.int64)
        assert ModuleToEnvPipeline(space)(actions) is actions
    with pytest.raises(NotImplementedError, match=r"space Tuple are not supported"):
        ModuleToEnvPipeline(sp.Tuple([sp.Discrete(2)]))


def test_own_action_connectors_come_first_and_are_named(sp):
    class Flip(ConnectorV2):
        def actions(self, actions):
            return -actions

    class Bad(ConnectorV2):
        def __init__(self, result):
            self.result = result

        def actions(self, actions):
            if self.result is None:
                raise OSError("broken")
            return self.result

    space = sp.Box(0, 10, (1,))
    actions = np.array([[1.0]], np.float32)
    assert ModuleToEnvPipeline(space, connectors=[Flip()])(actions).tolist() == [[0]]
    for result, message in (
        (None, "raised OSError: broken"),
        (np.ones(3), r"shape \(1, 1\)"),
        (actions * np.nan, "NaN"),
    ):
        with pytest.raises(ConnectorError, match=f"Connector Bad .*{message}"):
            ModuleToEnvPipeline(space, connectors=[Bad(result)])(actions)
    with pytest.raises(ConnectorError, match="overrides `actions"):
        ModuleToEnvPipeline(space, connectors=[MeanStdFilter()])


def test_the_connector_alone_takes_rllibs_arguments(sp):
    connector = NormalizeAndClipActions(normalize_actions=True, clip_actions=False)
    connector.set_spaces(None, sp.Box(0, 2, (1,)))
    assert connector.actions(np.zeros((1, 1), np.float32)).tolist() == [[1]]

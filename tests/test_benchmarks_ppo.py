"""The PPO benchmarks give all libraries the same task, and what they call the same settings is the same."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="a distribution without benchmarks/")


@pytest.fixture
def module(monkeypatch):
    """Import a module of benchmarks/, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    known = set(sys.modules)

    yield importlib.import_module
    for name in set(sys.modules) - known:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


class FakeAlgorithm:
    """Returns the results it was given, one an iteration."""

    def __init__(self, *results):
        self.results = list(results)

    def train(self):
        steps, episodes, mean = self.results.pop(0)
        runners = {"num_env_steps_sampled_lifetime": steps, "num_episodes_lifetime": episodes}
        return {"env_runners": runners | ({} if mean is None else {"episode_return_mean": mean})}


def test_presets_are_read_without_importing_mltoolkit(module):
    from mltoolkit.rllib.algorithms.ppo.presets import PRESETS

    runtimes = module("_ppo_runtimes")
    assert {env: runtimes.preset(env) for env in PRESETS} == PRESETS
    assert {task.env for task in runtimes.TASKS.values()} == set(PRESETS)


def test_training_ends_at_the_goal(module):
    runtimes = module("_ppo_runtimes")
    algorithm = FakeAlgorithm((10, 0, None), (20, 99, 50.0), (30, 120, 49.0), (40, 130, 50.0), (50, 140, 60.0))
    outcome = runtimes._until(runtimes.Task("any", 50.0, 1000), algorithm)
    assert (outcome.steps, outcome.reached) == (40, True)  # not at 20, where the mean is one of 99 episodes
    assert len(algorithm.results) == 1


def test_training_is_given_up_at_the_limit(module):
    runtimes = module("_ppo_runtimes")
    algorithm = FakeAlgorithm((10, 200, 0.0), (20, 210, 0.0), (30, 220, 100.0))
    outcome = runtimes._until(runtimes.Task("any", 50.0, 20), algorithm)
    assert (outcome.steps, outcome.reached) == (20, False)


def test_the_same_settings_for_stable_baselines3_follow_the_schedule(module):
    pytest.importorskip("torch")
    runtimes = module("_ppo_runtimes")
    settings = runtimes.preset("CartPole-v1")
    same = runtimes.sb3_settings(settings, 300_000)
    (_, first), (end, last) = settings["lr"]
    rate = same.arguments["learning_rate"]
    assert rate(1.0) == pytest.approx(first)
    assert rate(1 - end / 2 / 300_000) == pytest.approx((first + last) / 2)
    assert rate(0.0) == pytest.approx(last)
    assert same.n_envs * same.arguments["n_steps"] == settings["train_batch_size"]


@pytest.mark.parametrize("runtime", ["mltoolkit", "ray", "sb3"])
def test_every_kind_of_sampling_has_its_row(runtime, module):
    rows = {name for name, metric in module("_metrics").METRICS.items() if metric.program == "ppo_sampling"}
    shapes = module("ppo_sampling").SHAPES
    assert {f"sample_{runners}_{envs}" for runners, envs in shapes[runtime]} <= rows
    if runtime == "mltoolkit":
        assert {f"sample_{runners}_{envs}" for runners, envs in shapes[runtime]} == rows


def test_a_peer_is_an_aim_only_where_it_is_measured(module):
    metrics, shapes = module("_metrics").METRICS, module("ppo_sampling").SHAPES
    for name, metric in metrics.items():
        if metric.program == "ppo_sampling":
            shape = tuple(int(number) for number in name.split("_")[1:])
            assert {aim.against for aim in metric.aims} == {peer for peer in ("ray", "sb3") if shape in shapes[peer]}


def test_a_rare_failure_shows_in_a_mean(module):
    table = module("_table")
    samples = {"pendulum_unsolved": {"mltoolkit": [0.0, 0.0, 0.0, 1.0]}}
    (row,) = table.summarise(samples)
    assert row["runtimes"]["mltoolkit"]["median"] == 0.25
    assert [aim["met"] for aim in row["aims"]] == [False]

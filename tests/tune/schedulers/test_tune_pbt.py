"""Population Based Training, its replay, and PB2."""

from __future__ import annotations

import json
import random
import statistics

import pytest
from tune.simulator import Inert, Search, Simulator

from mltoolkit.tune.error import TuneError
from mltoolkit.tune.experiment import Trial
from mltoolkit.tune.schedulers import PopulationBasedTraining, PopulationBasedTrainingReplay
from mltoolkit.tune.schedulers._explore import explore, fill_missing
from mltoolkit.tune.schedulers.pb2 import PB2
from mltoolkit.tune.search.sample import Function, choice, uniform


def pbt(**options):
    options.setdefault("hyperparam_mutations", {"lr": uniform(0, 1)})
    options.setdefault("perturbation_interval", 4)
    return PopulationBasedTraining("training_iteration", "score", "max", seed=options.pop("seed", 1), **options)


class Learner:
    """Trainables whose score is the sum of what their configurations gained; checkpoints hold it."""

    def __init__(self, gain):
        self.gain = gain
        self.state = {}

    def __call__(self, trial, iteration):
        config, score = self.state.get(trial.trial_id, (trial.config, 0.0))
        if config is not trial.config:
            score = trial.checkpoint.metrics["score"]
        score += self.gain(trial.config, iteration)
        self.state[trial.trial_id] = (trial.config, score)
        return score


def population(scheduler, num_trials=8, slots=4, gain=lambda config, iteration: config["lr"], **options):
    options.setdefault("length", 20)
    options.setdefault("config", lambda i: {"lr": 0.1 * (i + 1)})
    return Simulator(scheduler, Learner(gain), num_trials, slots, **options)


# Explore


def test_lists_are_shifted_to_a_neighbour_or_drawn_anew():
    rng = random.Random(0)
    values = [1, 2, 4, 8]
    seen = {explore({"n": 2}, {"n": values}, 0, (1.2,), rng)[0]["n"] for _ in range(50)}
    assert seen == {1, 4}
    ends = {(c["n"], o["n"]) for c, o in (explore({"n": 1}, {"n": values}, 0, (1.2,), rng) for _ in range(50))}
    assert ends == {(1, "shift left (noop)"), (2, "shift right")}
    assert {explore({"n": 2}, {"n": values}, 1, (1.2,), rng)[0]["n"] for _ in range(100)} == set(values)
    assert {explore({"n": 3}, {"n": values}, 0, (1.2,), rng)[1]["n"] for _ in range(9)} == {"resample"}


def test_domains_and_functions_are_scaled_or_drawn_anew():
    rng = random.Random(0)
    mutations = {"lr": uniform(0, 1), "n": lambda: 50, "flag": choice([True, False]), "deep": {"x": uniform(5, 6)}}
    config = {"lr": 0.5, "n": 10, "flag": True, "deep": {"x": 10.0, "y": 3}, "other": "kept"}
    new, operations = explore(config, mutations, 0, (0.8,), rng)
    assert new == {"lr": 0.4, "n": 8, "flag": True, "deep": {"x": 8.0, "y": 3}, "other": "kept"}
    assert operations == {"lr": "* 0.8", "n": "* 0.8", "flag": "* 0.8", "deep": {"x": "* 0.8"}}
    assert config["deep"]["x"] == 10.0, "the old configuration stays as it is"
    new, _ = explore(config, mutations, 1, (0.8,), rng)
    assert new["n"] == 50 and 5 <= new["deep"]["x"] <= 6 and 0 <= new["lr"] <= 1


def test_missing_parameters_are_drawn():
    filled = fill_missing({"a": 1, "deep": {"x": 2}}, {"b": [7], "deep": {"x": [0], "y": [3]}}, random.Random(0))
    assert filled == {"a": 1, "b": 7, "deep": {"x": 2, "y": 3}}
    sweep = population(
        pbt(hyperparam_mutations={"lr": uniform(2, 3), "mo": {"m": [5]}}), config=lambda i: {"mo": {}}
    ).run()
    assert all(2 <= sweep.trials[i].evaluated_params["lr"] <= 3 for i in sweep.trials)
    assert sweep.trials["sim_00000"].evaluated_params["mo/m"] == 5


# Exploit


@pytest.mark.parametrize(
    ("size", "fraction", "expected"),
    [(1, 0.25, 0), (2, 0.25, 1), (3, 0.5, 1), (4, 0.25, 1), (5, 0.25, 2), (8, 0.25, 2), (8, 0.5, 4), (8, 0, 0)],
)
def test_quantiles(size, fraction, expected):
    scheduler = pbt(quantile_fraction=fraction)
    scheduler._ranking = [(float(i), i) for i in range(size)]
    assert scheduler._quantile_size() == expected


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_synchronous_the_two_worst_of_eight_clone_the_two_best(slots):
    scheduler = pbt(synch=True)
    sweep = population(scheduler, slots=slots).run(max_events=8 * 4)
    resets = {trial_id: config for what, trial_id, config in sweep.log if what == "reset"}
    assert set(resets) == {"sim_00000", "sim_00001"}
    for trial_id in resets:
        saved = sweep.trials[trial_id].checkpoint
        assert saved.trial_id in ("sim_00006", "sim_00007") and saved.iteration == 4
        assert "@perturbed[lr=" in sweep.trials[trial_id].experiment_tag


def test_cloning_pays():
    plain = population(pbt(quantile_fraction=0), num_trials=6, slots=6, length=60).run()
    cloning = population(pbt(), num_trials=6, slots=6, length=60).run()

    def mean(sweep):
        return statistics.mean(trial.last_result["score"] for trial in sweep.get_trials())

    assert cloning.scheduler._num_perturbations > 5
    assert mean(cloning) > 1.3 * mean(plain)


@pytest.mark.parametrize("synch", [False, True])
def test_populations_larger_than_the_slots_take_turns(synch):
    sweep = population(pbt(synch=synch), num_trials=8, slots=2).run(max_events=8 * 4)
    assert [sweep.results_of[i] for i in sweep.trials] == [4] * 8


def test_burn_in():
    sweep = population(pbt(burn_in_period=9), slots=8, length=9).run()
    assert not any(entry[0] == "reset" for entry in sweep.log)


def test_without_checkpoints_nobody_clones():
    sweep = population(pbt(), checkpoints=False).run()
    assert sweep.scheduler._num_perturbations == 0


def test_results_without_the_metric_are_passed_over_where_that_is_allowed():
    value = lambda trial, iteration: {"score": iteration} if iteration % 2 else {"loss": 1}  # noqa: E731
    sweep = Simulator(pbt(require_attrs=False), value, 3, 3, length=9, config=lambda i: {"lr": 0.1}).run()
    assert set(sweep.results_of.values()) >= {9}


@pytest.mark.parametrize("synch", [False, True])
def test_a_population_that_cannot_be_completed_goes_on(synch):
    search = Search(6, lambda i: {"lr": 0.1}, limit=2)
    sweep = population(pbt(synch=synch), num_trials=6, slots=2, search=search).run()
    assert len(sweep.trials) == 6


def test_the_seed_decides():
    logs = [population(pbt(seed=seed)).run().log for seed in (1, 1, 2)]
    assert logs[0] == logs[1] != logs[2]


def test_custom_explore_has_the_last_word_and_must_answer():
    sweep = population(pbt(hyperparam_mutations=None, custom_explore_fn=lambda config: {**config, "mark": 1})).run()
    assert any(trial.config.get("mark") for trial in sweep.get_trials())
    with pytest.raises(TuneError, match="`custom_explore_fn` must return the new configuration"):
        population(pbt(custom_explore_fn=lambda config: None)).run()


def test_state_is_saved_without_functions(tmp_path):
    sweep = population(pbt(custom_explore_fn=lambda config: config)).run(max_events=50)
    sweep.scheduler.save(tmp_path / "state")
    restored = pbt(custom_explore_fn=lambda config: config)
    restored.restore(tmp_path / "state")
    assert restored._num_perturbations == sweep.scheduler._num_perturbations > 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"hyperparam_mutations": None}, TuneError, "nothing to vary"),
        ({"hyperparam_mutations": {"lr": 3}}, TypeError, r"`hyperparam_mutations\['lr'\]` must be a list"),
        ({"hyperparam_mutations": {"a": {"b": []}}}, ValueError, r"\['a/b'\]` is an empty list"),
        ({"hyperparam_mutations": {"lr": Function(lambda: 1)}}, ValueError, "sample_from"),
        ({"quantile_fraction": 0.6}, ValueError, "`quantile_fraction` .* between 0 and 0.5, got 0.6"),
        ({"perturbation_interval": 0}, ValueError, "`perturbation_interval` .* > 0, got 0"),
        ({"resample_probability": 2}, ValueError, "`resample_probability` .* between 0 and 1, got 2"),
        ({"perturbation_factors": ()}, ValueError, "`perturbation_factors` .* at least one"),
    ],
)
def test_options_out_of_range(options, error, text):
    with pytest.raises(error, match=text):
        pbt(**options)


def test_searchers_and_limits_on_unfinished_trials_are_refused():
    from mltoolkit.tune.search import BasicVariantGenerator, Searcher

    inert = Inert(population(pbt()))
    inert.search_alg = Searcher("score", "max")
    with pytest.raises(ValueError, match="Searcher would learn from configurations that it did not suggest"):
        pbt().on_trial_add(inert, Trial("a", "t", {"lr": 1.0}))
    inert.search_alg = BasicVariantGenerator(max_concurrent=2)
    with pytest.raises(ValueError, match="`max_concurrent=2` of BasicVariantGenerator"):
        pbt().on_trial_add(inert, Trial("a", "t", {"lr": 1.0}))


# Policies


def test_policies_are_logged_and_replayed(tmp_path):
    sweep = population(pbt(), slots=8, length=40, experiment_path=tmp_path).run()
    entries = [json.loads(line) for line in (tmp_path / "pbt_global.txt").read_text().splitlines()]
    assert len(entries) == sweep.scheduler._num_perturbations > 3
    for target, cloned, _, step, old, new in entries:
        assert target != cloned and target.endswith("_tag") and step % 4 == 0 and {*old} == {*new} == {"lr"}
    best = max(sweep.get_trials(), key=lambda trial: trial.last_result["score"])
    target = next(t for t in sweep.get_trials() if (tmp_path / f"pbt_policy_{t.trial_id}.txt").exists())
    replay = PopulationBasedTrainingReplay(tmp_path / f"pbt_policy_{target.trial_id}.txt")
    again = Simulator(replay, Learner(lambda config, i: config["lr"]), 1, length=40, config=lambda i: {}).run()
    trial = again.get_trials()[0]
    assert trial.config == target.config
    assert trial.last_result["score"] == pytest.approx(target.last_result["score"])
    assert best.last_result["score"] >= target.last_result["score"]
    assert "perturb" in replay.debug_string()


def test_replayed_events_write_no_policy_twice(tmp_path):
    sweep = population(pbt(), slots=8, length=40, experiment_path=tmp_path).run()
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with open(tmp_path / "pbt_global.txt", "a") as file:
        file.write('["torn')
    Inert(sweep).replay(pbt(), sweep.events)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_a_policy_chain_ends_where_it_was_overwritten(tmp_path):
    rows = [
        ["a", "b", 4, 4, {"lr": 1}, {"lr": 2}],  # what a did before it was overwritten with c
        ["c", "d", 8, 8, {"lr": 3}, {"lr": 4}],
        ["a", "c", 12, 12, {"lr": 4}, {"lr": 5}],
    ]
    file = tmp_path / "policy.txt"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    replay = PopulationBasedTrainingReplay(file)
    assert replay.config == {"lr": 3}
    assert replay._policy == [(8, {"lr": 4}), (12, {"lr": 5})]
    with pytest.raises(ValueError, match="trains one trial"):
        Simulator(replay, lambda trial, i: 0.0, 2, 2, length=3).run()


def test_files_that_are_no_policies(tmp_path):
    with pytest.raises(ValueError, match="no policy file .*nowhere"):
        PopulationBasedTrainingReplay(tmp_path / "nowhere")
    (tmp_path / "text").write_text("[1, 2]\n")
    with pytest.raises(ValueError, match="is no policy file of PBT"):
        PopulationBasedTrainingReplay(tmp_path / "text")
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="holds no schedule"):
        Simulator(PopulationBasedTrainingReplay(tmp_path / "empty"), lambda t, i: 0.0, 1, config=lambda i: {}).run()


# PB2


def pb2(**options):
    options.setdefault("hyperparam_bounds", {"lr": [0.0, 1.0]})
    return PB2("training_iteration", "score", "max", 5, seed=options.pop("seed", 0), **options)


def test_the_gaussian_process_interpolates_and_knows_where_it_knows_nothing():
    import numpy as np

    from mltoolkit.tune.schedulers._pb2_gp import TimeVaryingGP

    x = np.linspace(0, 0.5, 12)
    model = TimeVaryingGP(np.column_stack([np.ones(12), x]), np.sin(6 * x))
    mean, std = model.predict(np.column_stack([np.ones(3), [0.21, 0.33, 1.0]]))
    assert mean[:2] == pytest.approx(np.sin(6 * np.array([0.21, 0.33])), abs=0.05)
    assert std[2] > 5 * std[0]


def test_the_chosen_point_is_where_scores_grew_most():
    from mltoolkit.tune.schedulers._pb2_gp import select_point

    rng = random.Random(0)
    observed = [(float(t), 0.0, rng.random()) for t in range(60)]
    changes = [1 - (point[2] - 0.3) ** 2 for point in observed]
    chosen = select_point(observed, changes, (60.0, 0.0), [], [(0, 1)], 1, seed=0)
    assert chosen == select_point(observed, changes, (60.0, 0.0), [], [(0, 1)], 1, seed=0)
    assert abs(chosen[0] - 0.3) < 0.15


def test_pb2_keeps_types_bounds_and_nesting():
    scheduler = pb2(hyperparam_bounds={"n": [1, 64], "opt": {"lr": [0.1, 0.2]}}, synch=True)
    gain = lambda config, iteration: config["n"] * config["opt"]["lr"]  # noqa: E731
    sweep = population(scheduler, 4, 4, gain, config=lambda i: {"n": 8, "fixed": "x"}).run()
    assert scheduler._num_perturbations > 0
    for trial in sweep.get_trials():
        assert isinstance(trial.config["n"], int) and 1 <= trial.config["n"] <= 64
        assert 0.1 <= trial.config["opt"]["lr"] <= 0.2 and trial.config["fixed"] == "x"


def test_pb2_finds_a_moving_optimum():
    def gain(config, iteration):
        return 1 - 4 * (config["lr"] - 0.8 + 0.6 * iteration / 60) ** 2

    sweep = population(pb2(), 4, 4, gain, length=60, config=lambda i: {"lr": 0.1 * i}).run()
    assert max(trial.last_result["score"] for trial in sweep.get_trials()) > 40


@pytest.mark.parametrize("bounds", [[1], [2, 1], "ab", ["a", "b"]])
def test_pb2_bounds_are_pairs(bounds):
    with pytest.raises(ValueError, match=r"`hyperparam_bounds\['lr'\]` must be a pair"):
        pb2(hyperparam_bounds={"lr": bounds})
    with pytest.raises(TuneError, match="nothing to vary"):
        pb2(hyperparam_bounds={})


def test_scores_of_those_that_are_alive_and_counts_from_zero(tmp_path):
    sweep = population(pbt(), slots=8, experiment_path=tmp_path)
    sweep.run(max_events=100)
    trials, scheduler = sweep.get_trials(), sweep.scheduler
    scores = scheduler.last_scores(trials)
    assert len(scores) == len(trials) == 8
    assert scheduler.last_scores([trials[2], trials[1]]) == [scores[2], scores[1]]
    assert scheduler.last_scores([Trial("unknown", "f", {})]) == []
    before = scheduler._num_perturbations
    assert f"{before} perturbs" in scheduler.debug_string()
    assert before > 0
    scheduler.reset_stats()
    assert "0 checkpoints, 0 perturbs" in scheduler.debug_string()
    sweep.run()
    assert f" {scheduler._num_perturbations - before} perturbs" in scheduler.debug_string()
    assert scheduler.last_scores(trials) == []
    # Entries of the log go on with their numbers.
    assert len((tmp_path / "pbt_global.txt").read_text().splitlines()) == scheduler._num_perturbations > before

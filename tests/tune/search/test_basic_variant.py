"""Grid and random search as a search algorithm: order, counts, seeds, and going on after a restart."""

from __future__ import annotations

import itertools
import pickle
import random

import numpy as np
import pytest

from mltoolkit.tune.search import BasicVariantGenerator
from mltoolkit.tune.search.sample import choice, randint, sample_from, uniform
from mltoolkit.tune.search.variant_generator import grid_search

SPACE = {
    "g": grid_search([1, 2, 3]),
    "model": {"lr": uniform(0, 1), "layers": [choice([2, 4]), grid_search(["a", "b"])]},
    "noise": sample_from(lambda spec: spec.config.g + np.random.uniform() + random.random()),
    "fixed": 7,
}


def search(space=SPACE, num_samples=3, seed=None, **options):
    made = BasicVariantGenerator(**options)
    assert made.set_search_properties("loss", "min", space)
    made.prepare(num_samples, seed=seed)
    return made


def take(algorithm, n=None, prefix="t"):
    taken = []
    while (n is None or len(taken) < n) and not algorithm.is_finished():
        suggestion = algorithm.next_suggestion(f"{prefix}{len(taken)}")
        if suggestion is None:
            break
        taken.append(suggestion)
    return taken


def test_each_sample_walks_through_the_whole_grid():
    algorithm = search()
    assert algorithm.total_samples == 18
    taken = take(algorithm)
    assert len(taken) == 18
    assert algorithm.is_finished()
    assert algorithm.next_suggestion("more") is None
    points = [(s.config["g"], s.config["model"]["layers"][1]) for s in taken]
    assert points == [(g, letter) for letter in "ab" for g in (1, 2, 3)] * 3
    assert len({s.config["model"]["lr"] for s in taken}) == 18
    assert all(s.config["fixed"] == 7 for s in taken)
    assert set(taken[0].evaluated_params) == {"g", "model/lr", "model/layers/0", "model/layers/1", "noise"}
    assert taken[0].evaluated_params["model/lr"] == taken[0].config["model"]["lr"]


def test_a_random_state_gives_the_values_that_ray_tune_draws():
    taken = take(search({"a": grid_search([1, 2]), "b": randint(0, 100), "u": uniform(0, 1)}, 2, random_state=1234))
    rng = np.random.default_rng(1234)
    expected = [(int(rng.integers(0, 100, size=1)[0]), float(rng.uniform(0, 1, size=1)[0])) for _ in range(4)]
    assert [(s.config["b"], s.config["u"]) for s in taken] == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: search(seed=5),
        lambda: search(random_state=5),
        lambda: search(random_state=np.int64(5), seed=99),
        lambda: search(random_state=np.random.default_rng(5)),
        lambda: search(random_state=np.random.RandomState(5)),
    ],
)
def test_a_seed_makes_the_sweep_repeatable_functions_included(make):
    assert take(make()) == take(make())


def test_seeds_differ_and_the_algorithms_own_wins():
    assert take(search(seed=5)) != take(search(seed=6))
    assert take(search(seed=5, random_state=6)) == take(search(random_state=6)) == take(search(seed=6))


def test_without_a_seed_numpys_global_one_decides():
    state = np.random.get_state()
    try:
        np.random.seed(11)
        first = take(search())
        np.random.seed(11)
        second = take(search())
        third = take(search())
    finally:
        np.random.set_state(state)
    assert first == second != third


def test_the_users_random_numbers_are_left_alone():
    algorithm = search(seed=0)
    numpy_state, state = np.random.get_state()[1].tolist(), random.getstate()
    take(algorithm)
    assert np.random.get_state()[1].tolist() == numpy_state
    assert random.getstate() == state


def test_the_order_does_not_depend_on_concurrency():
    limited = search(seed=1, max_concurrent=2)
    taken = take(limited)
    assert len(taken) == 2
    assert not limited.is_finished()
    for number in itertools.count():
        limited.on_trial_complete(f"t{number}", {"loss": 1})
        suggestion = limited.next_suggestion(f"t{number + 2}")
        if suggestion is None:
            break
        taken.append(suggestion)
        assert limited.next_suggestion("too many") is None
    assert taken == take(search(seed=1))


@pytest.mark.parametrize("options", [{"seed": 3}, {"random_state": 3}, {"seed": 3, "constant_grid_search": True}, {}])
@pytest.mark.parametrize("stop", [0, 1, 4, 6, 7, 17, 18])
def test_a_restored_search_goes_on_as_it_would_have(tmp_path, options, stop):
    points = [{"g": 2}]
    algorithm = search(points_to_evaluate=points, **options)
    take(algorithm, stop)
    algorithm.save(tmp_path / "state")
    rest = take(algorithm)
    again = search(points_to_evaluate=points, **options)
    again.restore(tmp_path / "state")
    assert take(again) == rest
    assert again.is_finished()
    assert algorithm.total_samples == 14 == stop + len(rest) or stop > 14


def test_a_generator_is_restored_where_it_stood(tmp_path):
    for make in (np.random.default_rng, np.random.RandomState):
        algorithm = search(random_state=make(4))
        take(algorithm, 5)
        algorithm.save(tmp_path / "state")
        again = search(random_state=make(99))
        again.restore(tmp_path / "state")
        assert take(again) == take(algorithm)


def test_the_number_of_samples_may_be_raised_after_a_restart(tmp_path):
    algorithm = search(num_samples=1, seed=3)
    first = take(algorithm)
    algorithm.save(tmp_path / "state")
    longer = BasicVariantGenerator()
    longer.set_search_properties(None, None, SPACE)
    longer.restore(tmp_path / "state")
    longer.prepare(3, seed=1000)
    assert first + take(longer) == take(search(seed=3))


def test_running_trials_count_after_a_restart(tmp_path):
    algorithm = search(max_concurrent=2, seed=0)
    take(algorithm)
    algorithm.save(tmp_path / "state")
    again = search(max_concurrent=2, seed=0)
    again.restore(tmp_path / "state")
    assert again.next_suggestion("t2") is None
    again.on_trial_complete("t0")
    assert again.next_suggestion("t2") is not None


def test_the_state_stays_small():
    algorithm = search({"u": uniform(0, 1)}, 100_000, seed=0)
    for number in range(2_000):
        algorithm.next_suggestion(str(number))
        algorithm.on_trial_complete(str(number))
    assert len(pickle.dumps(algorithm.get_state())) < 1_000


def test_samples_without_end():
    algorithm = search({"u": uniform(0, 1)}, -1, seed=0)
    assert algorithm.total_samples is None
    taken = take(algorithm, 100)
    assert len({s.config["u"] for s in taken}) == 100
    assert not algorithm.is_finished()


def test_a_million_samples_are_made_when_they_are_asked_for():
    space = {str(i): grid_search(range(100)) for i in range(5)}
    algorithm = search({**space, "u": uniform(0, 1)}, 1_000_000, seed=0)
    assert algorithm.total_samples == 10**16
    assert take(algorithm, 2)[1].config["0"] == 1


def test_a_number_of_variants_that_chance_decides():
    space = {"a": choice([grid_search([1, 2]), 3])}
    algorithm = search(space, 20, seed=0)
    assert algorithm.total_samples is None
    values = [s.config["a"] for s in take(algorithm)]
    assert algorithm.is_finished()
    assert set(values) == {1, 2, 3}
    assert values.count(1) == values.count(2)
    assert values.count(1) + values.count(3) == 20


def test_points_to_evaluate_come_first():
    space = {"a": grid_search([1, 2]), "b": randint(0, 3)}
    algorithm = search(space, 4, seed=0, points_to_evaluate=[{"a": 2, "b": 2}, {"a": 1}, {"b": 2}])
    assert algorithm.total_samples == 6
    taken = take(algorithm)
    assert [s.config["a"] for s in taken] == [2, 1, 1, 2, 1, 2]
    assert [taken[i].config["b"] for i in (0, 2, 3)] == [2, 2, 2]
    assert "a" not in taken[0].evaluated_params
    more = search(space, 1, seed=0, points_to_evaluate=[{"a": 2}, {"a": 1}])
    assert more.total_samples == len(take(more)) == 2


def test_an_empty_space_is_one_configuration_for_each_sample():
    assert [s.config for s in take(search({}, 2))] == [{}, {}]
    assert [s.config for s in take(search(None, 1))] == [{}]


def test_a_search_can_be_used_for_another_sweep():
    algorithm = search(random_state=1)
    first = take(algorithm)
    algorithm.set_search_properties("loss", "min", SPACE)
    algorithm.prepare(3)
    assert take(algorithm) == first


@pytest.mark.parametrize("num_samples", [0, -2])
def test_invalid_numbers_of_samples(num_samples):
    with pytest.raises(ValueError, match=f"at least 1, or -1.*got {num_samples}"):
        search(num_samples=num_samples)


def test_invalid_arguments():
    with pytest.raises(TypeError, match="`num_samples` must be an int, got 2.5"):
        search(num_samples=2.5)
    with pytest.raises(TypeError, match="`param_space` must be a dict, got list"):
        search([uniform(0, 1)])
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max', got 'minimum'"):
        BasicVariantGenerator().set_search_properties("loss", "minimum", {})
    with pytest.raises(ValueError, match="`max_concurrent`.*-1"):
        BasicVariantGenerator(max_concurrent=-1)
    with pytest.raises(TypeError, match="list of dicts"):
        BasicVariantGenerator(points_to_evaluate={"a": 1})
    with pytest.raises(ValueError, match="'b', which is not in the search space"):
        search({"a": uniform(0, 1)}, points_to_evaluate=[{"b": 1}])
    with pytest.raises(TypeError, match="random_state"):
        BasicVariantGenerator(random_state="seed")
    with pytest.raises(RuntimeError, match="set_search_properties"):
        BasicVariantGenerator().prepare(1)
    unprepared = BasicVariantGenerator()
    unprepared.set_search_properties(None, None, {})
    with pytest.raises(RuntimeError, match="prepare"):
        unprepared.next_suggestion("a")

"""A searcher as the search algorithm of a sweep, alone and within wrappers."""

from __future__ import annotations

import logging
import random

import pytest

from mltoolkit.tune.search import ConcurrencyLimiter, Repeater, Searcher, SearchGenerator
from mltoolkit.tune.search.sample import choice, sample_from, uniform
from mltoolkit.tune.search.searcher import check_search_space
from mltoolkit.tune.search.variant_generator import flatten_resolved_vars, grid_search, unflatten


class RandomSearcher(Searcher):
    """Draws from the space it is given, with its own generator, and remembers what it is told."""

    def __init__(self, metric=None, mode=None, space=None, limit=None, limits_itself=False):
        super().__init__(metric, mode)
        self.space = space
        self.own_space = space is not None
        self.limit = limit
        self.limits_itself = limits_itself
        self.rng = random.Random(0)
        self.told = []
        self.given = None

    def set_search_properties(self, metric, mode, config, **spec):
        self.set_metric_and_mode(metric, mode)
        self.given = config
        if self.own_space:
            return False
        check_search_space(self, config)
        self.space = config
        return True

    def set_seed(self, seed):
        self.rng.seed(seed)
        return True

    def set_max_concurrency(self, max_concurrent):
        return self.limits_itself

    def suggest(self, trial_id):
        if self.limit == 0:
            return self.FINISHED
        self.limit = self.limit and self.limit - 1
        domains = dict(check_search_space(self, self.space))
        drawn = {path: domain.sample(random_state=self.rng.getrandbits(32)) for path, domain in domains.items()}
        return unflatten(flatten_resolved_vars(drawn))

    def on_trial_result(self, trial_id, result):
        self.told.append(("result", trial_id, result))

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.told.append(("complete", trial_id, result, error))

    def on_pause(self, trial_id):
        self.told.append(("pause", trial_id))

    def on_unpause(self, trial_id):
        self.told.append(("unpause", trial_id))

    def add_evaluated_point(self, parameters, value, *rest):
        self.told.append(("point", parameters, value))


def generator(searcher, space=None, num_samples=4, seed=0):
    made = SearchGenerator(searcher)
    made.set_search_properties("loss", "min", {"x": uniform(0, 1)} if space is None else space)
    made.prepare(num_samples, seed=seed)
    return made


def take(algorithm, start=0):
    taken = []
    while (suggestion := algorithm.next_suggestion(f"t{start + len(taken)}")) is not None:
        taken.append(suggestion)
    return taken


def test_suggestions_are_put_over_the_constants():
    space = {
        "m": {"lr": uniform(0, 1), "act": "relu", "layers": [uniform(2, 3), 7, {"k": choice(["v"])}]},
        1: choice(["one"]),
        "data": [1, 2],
        "obj": len,
    }
    taken = take(generator(RandomSearcher(), space))
    assert len(taken) == 4
    for suggestion in taken:
        config = suggestion.config
        assert 0 <= config["m"]["lr"] < 1
        assert 2 <= config["m"]["layers"][0] < 3
        assert config["m"]["layers"][1:] == [7, {"k": "v"}]
        assert config[1] == "one"
        assert "1" not in config
        assert config["m"]["act"] == "relu"
        assert config["obj"] is len
        assert set(suggestion.evaluated_params) == {"m/lr", "m/layers/0", "m/layers/2/k", "1"}
    taken[0].config["data"].append(3)
    assert taken[1].config["data"] == [1, 2]


def test_the_sweeps_seed_reaches_the_searcher():
    for wrap in (lambda s: s, lambda s: ConcurrencyLimiter(s, 9), Repeater):
        assert take(generator(wrap(RandomSearcher()), seed=1)) == take(generator(wrap(RandomSearcher()), seed=1))
        assert take(generator(wrap(RandomSearcher()), seed=1)) != take(generator(wrap(RandomSearcher()), seed=2))


def test_functions_are_computed_from_what_the_searcher_suggests():
    searcher = RandomSearcher()
    space = {
        "x": uniform(0, 1),
        "twice": sample_from(lambda spec: spec.config.x * 2),
        "l": [sample_from(lambda config: config["twice"] + random.random()), 5],
    }
    taken = take(generator(searcher, space))
    assert searcher.given == {"x": space["x"], "l": [None, 5]}
    for suggestion in taken:
        assert suggestion.config["twice"] == 2 * suggestion.config["x"]
        assert suggestion.config["twice"] <= suggestion.config["l"][0] <= suggestion.config["twice"] + 1
        assert set(suggestion.evaluated_params) == {"x", "twice", "l/0"}
    assert taken == take(generator(RandomSearcher(), space))


def test_a_searcher_with_its_own_space_gets_the_constants_of_param_space():
    searcher = RandomSearcher(space={"x": uniform(0, 1)})
    assert generator(searcher, {"epochs": 3}).next_suggestion("a").config.keys() == {"epochs", "x"}
    with pytest.raises(ValueError, match=r"RandomSearcher has a search space of its own.*'m/lr'"):
        generator(ConcurrencyLimiter(RandomSearcher(space={"x": uniform(0, 1)}), 2), {"m": {"lr": uniform(0, 1)}})


def test_spaces_that_are_refused():
    with pytest.raises(ValueError, match="RandomSearcher cannot take `grid_search` at 'a'"):
        generator(RandomSearcher(), {"a": grid_search([1])})
    with pytest.raises(ValueError, match="nothing to search"):
        generator(RandomSearcher(), {"a": 1})
    with pytest.raises(TypeError, match="`param_space` must be a dict"):
        generator(RandomSearcher(), [1])
    with pytest.raises(ValueError, match="`mode`"):
        SearchGenerator(RandomSearcher()).set_search_properties("loss", "down", {})
    with pytest.raises(ValueError, match="`num_samples`"):
        generator(RandomSearcher(), num_samples=0)
    with pytest.raises(TypeError, match="must be a Searcher"):
        SearchGenerator("optuna")


def test_a_searcher_that_forgets_a_value_is_named():
    class Forgetful(RandomSearcher):
        def suggest(self, trial_id):
            return {"x": 1}

    with pytest.raises(ValueError, match=r"Forgetful suggested no value for 'm/y'"):
        generator(Forgetful(), {"x": uniform(0, 1), "m": {"y": uniform(0, 1)}}).next_suggestion("a")

    class Confused(RandomSearcher):
        def suggest(self, trial_id):
            return [1]

    with pytest.raises(TypeError, match=r"Confused.suggest must return a dict.*got \[1\]"):
        generator(Confused()).next_suggestion("a")


def test_how_many_there_are():
    algorithm = generator(RandomSearcher(), num_samples=3)
    assert algorithm.total_samples == 3
    assert len(take(algorithm)) == 3
    assert algorithm.is_finished()
    endless = generator(RandomSearcher(limit=7), num_samples=-1)
    assert endless.total_samples is None
    assert len(take(endless)) == 7
    assert endless.is_finished()


def test_none_means_not_now():
    algorithm = generator(ConcurrencyLimiter(RandomSearcher(), 2))
    assert len(take(algorithm)) == 2
    assert not algorithm.is_finished()
    algorithm.on_trial_complete("t1", {"loss": 1})
    assert len(take(algorithm, 2)) == 1


def test_the_older_form_of_set_search_properties():
    class Older(RandomSearcher):
        def set_search_properties(self, metric, mode, config):
            return super().set_search_properties(metric, mode, config)

    made = SearchGenerator(ConcurrencyLimiter(Older(), 2))
    assert made.set_search_properties("loss", "min", {"x": uniform(0, 1)}, num_samples=3) is True
    assert (made.metric, made.mode) == ("loss", "min")


def wrapped(kind):
    if kind == "plain":
        return RandomSearcher()
    if kind == "limited":
        return ConcurrencyLimiter(RandomSearcher(), 3, batch=True)
    return Repeater(ConcurrencyLimiter(RandomSearcher(), 2), repeat=2)


def play(algorithm, events):
    """Ask and tell in a fixed order; returns what was suggested."""
    seen = []
    for kind, number in events:
        if kind == "ask":
            seen.append(algorithm.next_suggestion(f"t{number}"))
        else:
            algorithm.on_trial_complete(f"t{number}", {"loss": float(number)}, False)
    return seen


EVENTS = [("ask", 0), ("ask", 1), ("ask", 2), ("tell", 1), ("ask", 3), ("tell", 0), ("tell", 2), ("ask", 4), ("ask", 5)]


@pytest.mark.parametrize("kind", ["plain", "limited", "repeated"])
@pytest.mark.parametrize("stop", [0, 3, 5, 8])
def test_a_restored_search_goes_on_as_it_would_have(tmp_path, kind, stop):
    algorithm = generator(wrapped(kind), num_samples=6)
    play(algorithm, EVENTS[:stop])
    algorithm.save(tmp_path / "state")
    again = generator(wrapped(kind), num_samples=6, seed=5)
    again.restore(tmp_path / "state")
    assert play(again, EVENTS[stop:]) == play(algorithm, EVENTS[stop:])
    base, same = algorithm.searcher, again.searcher
    while isinstance(base, (ConcurrencyLimiter, Repeater)):
        base, same = base.searcher, same.searcher
    assert same.told == base.told
    assert again.is_finished() == algorithm.is_finished()


def test_the_number_of_samples_may_be_raised_after_a_restart(tmp_path):
    algorithm = generator(RandomSearcher(), num_samples=2)
    first = take(algorithm)
    algorithm.save(tmp_path / "state")
    longer = SearchGenerator(RandomSearcher())
    longer.set_search_properties("loss", "min", {"x": uniform(0, 1)})
    longer.restore(tmp_path / "state")
    longer.prepare(4, seed=77)
    assert first + take(longer) == take(generator(RandomSearcher(), num_samples=4))


def test_a_searcher_that_cannot_be_saved_is_warned_of(tmp_path, caplog):
    class Unsaved(RandomSearcher):
        def save(self, checkpoint_path):
            raise NotImplementedError("no save")

    algorithm = generator(Unsaved())
    take(algorithm)
    with caplog.at_level(logging.WARNING):
        algorithm.save(tmp_path / "state")
        algorithm.save(tmp_path / "state")
        assert caplog.text.count("Unsaved cannot be saved") == 1
        again = generator(Unsaved(), num_samples=9, seed=5)
        again.restore(tmp_path / "state")
    assert "starts afresh" in caplog.text
    fresh = generator(Unsaved(), num_samples=5)
    assert take(again) == take(fresh)  # five are left of nine; the seed is the saved one


def test_the_limiter_tells_at_once_or_in_batches():
    for batch, after_first in ((False, [("complete", "a", {"loss": 1}, False)]), (True, [])):
        searcher = RandomSearcher(space={"x": uniform(0, 1)})
        limiter = ConcurrencyLimiter(searcher, 2, batch=batch)
        assert limiter.suggest("a") and limiter.suggest("b")
        assert limiter.suggest("c") is None
        limiter.on_trial_complete("unknown", {"loss": 0})
        limiter.on_trial_complete("a", {"loss": 1})
        assert searcher.told == after_first
        assert (limiter.suggest("c") is None) == batch  # a batch takes no more before all of it ended
        limiter.on_trial_complete("b", None, error=True)
        assert searcher.told == [("complete", "a", {"loss": 1}, False), ("complete", "b", None, True)]
        assert limiter.suggest("d")


def test_the_limiter_leaves_it_to_a_searcher_that_limits_itself():
    searcher = RandomSearcher(space={"x": uniform(0, 1)}, limits_itself=True)
    limiter = ConcurrencyLimiter(searcher, 1)
    assert all(limiter.suggest(str(i)) for i in range(3))
    limiter.on_trial_complete("0", {"loss": 1})
    assert len(searcher.told) == 1


def test_the_outer_of_two_limiters_decides():
    inner = ConcurrencyLimiter(RandomSearcher(space={"x": uniform(0, 1)}), 5)
    outer = ConcurrencyLimiter(inner, 1)
    assert outer.suggest("a")
    assert outer.suggest("b") is None


def test_wrappers_pass_on_what_is_not_theirs():
    searcher = RandomSearcher("loss", "min", space={"x": uniform(0, 1)})
    limiter = ConcurrencyLimiter(searcher, 2)
    limiter.on_trial_result("a", {"loss": 1})
    limiter.on_pause("a")
    limiter.on_unpause("a")
    limiter.add_evaluated_point({"x": 1}, 2.0)
    assert [what for what, *_ in searcher.told] == ["result", "pause", "unpause", "point"]
    assert (limiter.metric, limiter.mode) == ("loss", "min")


def test_a_wrapper_restores_the_state_of_the_searcher_alone(tmp_path):
    searcher = RandomSearcher()
    searcher.told = ["something"]
    searcher.save(tmp_path / "state")
    limiter = ConcurrencyLimiter(RandomSearcher(), 2)
    limiter.restore(tmp_path / "state")
    assert limiter.searcher.told == ["something"]


def test_invalid_wrappers():
    from mltoolkit.tune.search import BasicVariantGenerator

    with pytest.raises(TypeError, match="`max_concurrent` to BasicVariantGenerator"):
        ConcurrencyLimiter(BasicVariantGenerator(), 2)
    for number in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="at least 1"):
            ConcurrencyLimiter(RandomSearcher(), number)
        with pytest.raises(ValueError, match="at least 1"):
            Repeater(RandomSearcher(), number)
    with pytest.raises(TypeError, match="Repeater needs a Searcher"):
        Repeater("random")
    limiter = ConcurrencyLimiter(RandomSearcher(space={"x": uniform(0, 1)}), 2)
    limiter.suggest("a")
    with pytest.raises(ValueError, match="'a' was given a configuration before"):
        limiter.suggest("a")


def repeated(repeat=3, **options):
    searcher = RandomSearcher("eval/loss", "min", space={"x": uniform(0, 1)})
    return searcher, Repeater(searcher, repeat, **options)


def test_the_repeater_repeats_and_tells_the_mean():
    searcher, repeater = repeated()
    configs = [repeater.suggest(f"t{i}") for i in range(4)]
    assert [config["__trial_index__"] for config in configs] == [0, 1, 2, 0]
    assert len({config["x"] for config in configs[:3]}) == 1
    assert configs[3]["x"] != configs[0]["x"]
    repeater.on_trial_result("t1", {"eval": {"loss": 50}})
    repeater.on_trial_complete("t2", {"eval": {"loss": 3.0}, "training_iteration": 9})
    repeater.on_trial_complete("t1", {"eval/loss": 1.0}, error=False)
    assert searcher.told == []
    repeater.on_trial_complete("t0", {"eval": {"loss": 2.0}})
    assert len(searcher.told) == 1
    what, trial_id, result, error = searcher.told[0]
    assert (what, trial_id, result["eval/loss"], result["training_iteration"], error) == (
        "complete",
        "t0",
        2.0,
        9,
        False,
    )


def test_repeats_that_failed_are_left_out_of_the_mean(caplog):
    searcher, repeater = repeated(set_index=False)
    assert "__trial_index__" not in repeater.suggest("a")
    repeater.suggest("b")
    repeater.suggest("c")
    repeater.on_trial_complete("a", {"eval": {"loss": float("nan")}})
    repeater.on_trial_complete("b", None, error=True)
    repeater.on_trial_complete("c", {"eval": {"loss": 4.0}})
    assert searcher.told[0][2]["eval/loss"] == 4.0
    for name in "def":
        repeater.suggest(name)
    for name in "def":
        repeater.on_trial_complete(name, {"eval": {"loss": 1.0}}, error=True)
    assert searcher.told[1] == ("complete", "d", None, True)
    repeater.on_trial_complete("stranger", {})
    assert "stranger" in caplog.text


def test_a_remainder_of_repeats_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        generator(Repeater(RandomSearcher(), 3), num_samples=6)
        assert not caplog.text
        generator(Repeater(RandomSearcher(), 3), num_samples=7)
    assert "7 is no multiple of repeat=3" in caplog.text


def test_random_numbers_of_functions_follow_from_the_seed():
    space = {"x": choice([1]), "noise": sample_from(lambda config: random.random())}
    noise = [[s.config["noise"] for s in take(generator(RandomSearcher(), space, seed=seed))] for seed in (1, 1, 2)]
    assert noise[0] == noise[1] != noise[2]
    assert len(set(noise[0])) == 4

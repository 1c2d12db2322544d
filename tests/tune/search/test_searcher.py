"""The base class of searchers, and the checks that searchers share."""

from __future__ import annotations

import pytest

from mltoolkit.tune.experiment import Trial
from mltoolkit.tune.search import Searcher
from mltoolkit.tune.search.sample import choice, sample_from, uniform
from mltoolkit.tune.search.searcher import check_search_space
from mltoolkit.tune.search.variant_generator import grid_search


class Remembering(Searcher):
    def __init__(self, metric=None, mode=None):
        super().__init__(metric, mode)
        self.points = []

    def add_evaluated_point(self, parameters, value, error=False, pruned=False, intermediate_values=None):
        self.points.append((parameters, value, error, pruned))


def test_metric_and_mode_come_from_the_sweep_where_the_searcher_has_none():
    searcher = Remembering()
    assert (searcher.metric, searcher.mode) == (None, None)
    assert searcher.set_search_properties("loss", "min", {"a": 1}) is False
    assert (searcher.metric, searcher.mode) == ("loss", "min")
    own = Remembering("accuracy", "max")
    own.set_search_properties("loss", "min", {})
    assert (own.metric, own.mode) == ("accuracy", "max")
    several = Remembering(["loss", "size"], ["min", "obs"])
    assert several.mode == ["min", "obs"]


@pytest.mark.parametrize(
    ("metric", "mode", "message"),
    [
        ("loss", "minimize", "`mode` must be 'min' or 'max', got 'minimize'"),
        ("loss", "obs", "'obs'"),
        (["a", "b"], ["min", "low"], "'min' or 'max' or 'obs', got 'low'"),
        (["a", "b"], ["min"], "equally many"),
        ("a", ["min"], "both be a name or both a list"),
        (None, "best", "got 'best'"),
    ],
)
def test_wrong_modes(metric, mode, message):
    with pytest.raises(ValueError, match=message):
        Remembering(metric, mode)
    with pytest.raises(ValueError, match=message):
        Remembering().set_search_properties(metric, mode, {})


def test_a_subclass_that_does_not_call_the_constructor():
    class Bare(Searcher):
        def __init__(self):
            pass

    assert (Bare().metric, Bare().mode) == (None, None)


def test_what_a_subclass_must_implement_is_named():
    for call, name in (
        (lambda s: s.suggest("t"), "suggest"),
        (lambda s: s.on_trial_complete("t"), "on_trial_complete"),
        (lambda s: s.add_evaluated_point({}, 1), "OptunaSearch can"),
    ):
        with pytest.raises(NotImplementedError, match=name):
            call(Searcher())
    assert Searcher().set_seed(1) is False
    assert Searcher().set_max_concurrency(1) is False


def test_the_space_that_a_searcher_can_take():
    space = {"m": {"lr": uniform(0, 1)}, "l": [choice([1, 2]), 3], "c": 4}
    assert [path for path, _ in check_search_space(Remembering(), space)] == [("m", "lr"), ("l", 0)]
    assert check_search_space(Remembering(), {"a": 1}, required=False) == []


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        (
            {"a": {"b": grid_search([1])}},
            ValueError,
            "Remembering cannot take `grid_search` at 'a/b': use `tune.choice`",
        ),
        ({"a": [1, sample_from(lambda: 1)]}, ValueError, "Remembering cannot take `sample_from` at 'a/1'"),
        ({"a": 1}, ValueError, "Remembering has nothing to search: `param_space`"),
        ({}, ValueError, "nothing to search"),
        ([uniform(0, 1)], TypeError, "`param_space` must be a dict, got list"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_spaces_that_a_searcher_cannot_take(space, error, message):
    with pytest.raises(error, match=message):
        check_search_space(Remembering(), space)


def test_state_is_saved_and_restored(tmp_path):
    searcher = Remembering("loss", "min")
    searcher.points = [({"a": 1}, 2, False, False)]
    searcher.save(tmp_path / "state.pkl")
    again = Remembering()
    again.restore(tmp_path / "state.pkl")
    assert (again.points, again.metric) == (searcher.points, "loss")


def test_the_newest_state_of_a_folder_is_restored(tmp_path):
    import os

    for number, session in enumerate(["z-first", "a-second"]):
        searcher = Remembering()
        searcher.points = [session]
        searcher.save_to_dir(tmp_path, session)
        os.utime(tmp_path / f"searcher-state-{session}.pkl", (number, number))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "searcher-state-a-second.pkl",
        "searcher-state-z-first.pkl",
    ]
    again = Remembering()
    again.restore_from_dir(tmp_path)
    assert again.points == ["a-second"]
    with pytest.raises(FileNotFoundError, match="No state of a searcher"):
        again.restore_from_dir(tmp_path / "nowhere")


def finished(number, status=Trial.TERMINATED, **result):
    trial = Trial(str(number), "f", {"x": number}, status=status)
    trial.last_result = result
    return trial


def test_learning_from_other_trials():
    trials = [
        finished(0, loss=1.0, done=True),
        finished(1, loss=2.0),
        finished(2, Trial.ERROR, loss=3.0),
        finished(3, done=True),
        finished(4, Trial.RUNNING, loss=5.0),
    ]
    searcher = Remembering()
    searcher.add_evaluated_trials(trials, "loss")
    assert searcher.points == [
        ({"x": 0}, 1.0, False, False),
        ({"x": 1}, 2.0, False, True),
        ({"x": 2}, 3.0, True, False),
    ]
    searcher.add_evaluated_trials(finished(7, eval={"loss": 9}, done=True), "eval/loss")
    assert searcher.points[-1] == ({"x": 7}, 9, False, False)
    with pytest.raises(ValueError, match="None of the finished trials reported 'los'"):
        searcher.add_evaluated_trials(trials, "los")
    with pytest.raises(TypeError, match="list of Trial"):
        searcher.add_evaluated_trials([1], "loss")

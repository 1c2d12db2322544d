"""Stoppers: their rules, their state through a pickle, what they refuse."""

from __future__ import annotations

import datetime
import functools
import logging
import math
import pickle
import random

import cloudpickle
import pytest

from mltoolkit.tune.error import MissingMetricError, TuneError
from mltoolkit.tune.stopper import (
    CombinedStopper,
    DictionaryStopper,
    ExperimentPlateauStopper,
    FunctionStopper,
    MaximumIterationStopper,
    NoopStopper,
    Stopper,
    TimeoutStopper,
    TrialPlateauStopper,
    make_stopper,
)
from mltoolkit.tune.stopper import timeout as timeout_module


def test_maximum_iteration_counts_each_trial_by_itself():
    stopper = MaximumIterationStopper(3)
    assert [stopper("a", {}) for _ in range(4)] == [False, False, True, True]
    assert not stopper("b", {})
    assert not stopper.stop_all()


@pytest.mark.parametrize("bad", [0, -1, "3", None, True, math.nan])
def test_maximum_iteration_refuses(bad):
    with pytest.raises(ValueError, match="`max_iter` must be a number >= 1, got"):
        MaximumIterationStopper(bad)


def test_noop_never_stops():
    assert not NoopStopper()("a", {"x": math.inf})
    assert not NoopStopper().stop_all()


def test_function():
    stopper = FunctionStopper(lambda trial_id, result: trial_id == "a" and result["x"] > 2)
    assert stopper("a", {"x": 3}) is True
    assert stopper("b", {"x": 3}) is False
    assert not stopper.stop_all()
    with pytest.raises(TypeError, match="function"):
        FunctionStopper(3)


def test_trial_plateau_waits_for_grace_and_for_enough_results():
    stopper = TrialPlateauStopper("loss", std=0.01, num_results=3, grace_period=5)
    assert [stopper("a", {"loss": 1.0}) for _ in range(6)] == [False] * 4 + [True, True]
    stopper = TrialPlateauStopper("loss", std=0.01, num_results=3, grace_period=1)
    assert [stopper("a", {"loss": 1.0}) for _ in range(3)] == [False, False, True]


def test_trial_plateau_at_the_bound():
    # The deviation of (1, 3) is 1: less than the bound stops, the bound itself does not.
    for bound, stops in ((1.0, False), (1.0001, True)):
        stopper = TrialPlateauStopper("loss", std=bound, num_results=2, grace_period=2)
        stopper("a", {"loss": 1.0})
        assert stopper("a", {"loss": 3.0}) is stops


@pytest.mark.parametrize(
    ("mode", "at", "stops"), [("min", 0.6, False), ("min", 0.5, True), ("max", 0.4, False), ("max", 0.5, True)]
)
def test_trial_plateau_threshold(mode, at, stops):
    stopper = TrialPlateauStopper("a/b", num_results=2, grace_period=2, metric_threshold=0.5, mode=mode)
    stopper("t", {"a": {"b": at}})
    assert stopper("t", {"a": {"b": at}}) is stops


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, None, "text", 1e300])
def test_trial_plateau_never_stops_on_what_has_no_deviation(odd):
    stopper = TrialPlateauStopper("loss", num_results=2, grace_period=2)
    assert [stopper("a", {"loss": value}) for value in (odd, 1.0, odd)] == [False] * 3
    assert [stopper("b", {"loss": value}) for value in (math.inf, -math.inf)] == [False] * 2
    assert [stopper("c", result) for result in ({}, {"loss": 1.0}, {})] == [False] * 3


def test_trial_plateau_refuses():
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max' when `metric_threshold` is given, got None"):
        TrialPlateauStopper("loss", metric_threshold=0.0)
    with pytest.raises(ValueError, match="`num_results`"):
        TrialPlateauStopper("loss", num_results=0)


@pytest.mark.parametrize(("mode", "losses"), [("min", [9.0, 1.0, 5.0, 1.0]), ("max", [1.0, 9.0, 5.0, 9.0])])
def test_experiment_plateau_looks_at_the_best(mode, losses):
    stopper = ExperimentPlateauStopper("loss", std=0.1, top=2, mode=mode)
    assert [stopper(f"t{i}", {"loss": loss}) for i, loss in enumerate(losses)] == [False, False, False, True]
    assert stopper.has_plateaued()
    assert stopper.stop_all()


def test_experiment_plateau_patience_starts_again_after_a_change():
    stopper = ExperimentPlateauStopper("loss", std=0.1, top=2, patience=3)
    decisions = [stopper("t", {"loss": loss}) for loss in (1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)]
    assert decisions == [False] * 6 + [True]


def test_experiment_plateau_odd_values():
    stopper = ExperimentPlateauStopper("loss", std=0.1, top=2)
    assert [stopper("t", {"loss": value}) for value in (math.nan, 1.0, math.nan)] == [False] * 3
    stopper = ExperimentPlateauStopper("loss", std=0.1, top=2, mode="max")
    assert [stopper("t", {"loss": math.inf}) for _ in range(3)] == [False] * 3
    for result in ({"other": 1}, {"loss": None}, {"loss": "low"}):
        with pytest.raises(MissingMetricError, match=r"'loss', for which trial t7 reported no number"):
            stopper("t7", result)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"mode": "low"}, "mode"),
        ({"top": 1}, "top"),
        ({"patience": -1}, "patience"),
        ({"std": 0}, "std"),
        ({"top": 2.5}, "top"),
    ],
)
def test_experiment_plateau_refuses(kwargs, named):
    with pytest.raises(ValueError, match=f"`{named}` must be .*got {next(iter(kwargs.values()))!r}"):
        ExperimentPlateauStopper("loss", **kwargs)


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(timeout_module.time, "monotonic", lambda: now[0])
    return now


def test_timeout_runs_from_the_first_check(clock):
    stopper = TimeoutStopper(10)
    clock[0] += 100
    assert not stopper.stop_all()
    clock[0] += 9
    assert not stopper.stop_all()
    assert not stopper("a", {})
    clock[0] += 1
    assert stopper.stop_all()
    assert stopper.stop_all()


def test_timeout_budget_outlives_a_restore(clock):
    stopper = TimeoutStopper(datetime.timedelta(seconds=10))
    stopper.stop_all()
    clock[0] += 6
    saved = pickle.dumps(stopper)  # no check since: the 6 s count all the same
    clock[0] -= 900  # another process, another clock
    restored = pickle.loads(saved)
    assert not restored.stop_all()
    clock[0] += 3.9
    assert not restored.stop_all()
    clock[0] += 0.2
    assert restored.stop_all()


@pytest.mark.parametrize("bad", ["10", None, True, math.nan])
def test_timeout_refuses(bad):
    with pytest.raises(ValueError, match="`timeout` must be a number of seconds"):
        TimeoutStopper(bad)


def test_combined_asks_everybody():
    first, second = MaximumIterationStopper(1), MaximumIterationStopper(3)
    stopper = CombinedStopper(first, second)
    assert stopper("a", {}) and stopper("a", {})
    assert second("a", {}), "the second one saw the results that the first had decided"
    assert not stopper.stop_all()
    assert CombinedStopper(NoopStopper(), TimeoutStopper(0)).stop_all()
    with pytest.raises(TypeError, match="takes Stoppers, got"):
        CombinedStopper(lambda trial_id, result: True)


def test_dictionary_any_bound_is_enough():
    stopper = DictionaryStopper({"training_iteration": 5, "eval/acc": 0.9})
    assert not stopper("a", {"training_iteration": 4, "eval": {"acc": 0.89}})
    assert stopper("a", {"training_iteration": 5, "eval": {"acc": 0.1}})
    assert stopper("a", {"training_iteration": 1, "eval": {"acc": 0.9}})
    assert stopper("a", {"eval/acc": 0.9, "training_iteration": 1})
    assert not stopper("a", {"training_iteration": math.nan, "eval": {"acc": "high"}})
    assert not stopper.stop_all()


def test_dictionary_names_a_missing_metric_once(caplog):
    stopper = DictionaryStopper({"accuracy": 0.5})
    with caplog.at_level(logging.WARNING, "mltoolkit"):
        assert not stopper("t1", {"acuracy": 0.9})
        assert not stopper("t2", {"acuracy": 0.9})
    [record] = caplog.records
    assert record.getMessage().startswith(
        "Trial t1 did not report 'accuracy', which `stop` has a bound for; it reported 'acuracy'."
    )


@pytest.mark.parametrize(
    ("criteria", "error", "text"),
    [
        ({"a": {"b": 1}}, ValueError, "stop={'a/b': ...}"),
        ({"a": "1"}, TypeError, "`stop['a']` must be a number, got '1'"),
        ({"a": math.nan}, TypeError, "must be a number, got nan"),
        ({3: 1}, TypeError, "got 3 for a name"),
    ],
)
def test_dictionary_refuses(criteria, error, text):
    with pytest.raises(error) as caught:
        DictionaryStopper(criteria)
    assert text in str(caught.value)


def test_make_stopper():
    np = pytest.importorskip("numpy")
    assert isinstance(make_stopper(None), NoopStopper)
    assert isinstance(make_stopper({}), NoopStopper)
    assert make_stopper({"x": np.int64(3)}).criteria == {"x": 3}
    function = make_stopper(lambda trial_id, result: result["x"] > 1)
    assert function("a", {"x": 2}) and not function("a", {"x": 1})
    given = MaximumIterationStopper(1)
    assert make_stopper(given) is given
    several = make_stopper([given, {"x": 3}])
    assert isinstance(several, CombinedStopper) and several("a", {"x": 0})


def test_make_stopper_refuses():
    class Lookalike:
        def __call__(self, trial_id, result):
            return False

        def stop_all(self):
            return False

    with pytest.raises(ValueError, match="`stop_all` but is no `mltoolkit.tune.Stopper`"):
        make_stopper(Lookalike())
    with pytest.raises(TypeError, match=r"give an instance: `MaximumIterationStopper\(...\)`"):
        make_stopper(MaximumIterationStopper)
    with pytest.raises(TypeError, match="got 3 of type int"):
        make_stopper(3)
    with pytest.raises(TypeError, match="got 'x' of type str"):
        make_stopper([{"a": 1}, "x"])


def test_base_class_says_what_is_missing():
    class Half(Stopper):
        pass

    with pytest.raises(NotImplementedError, match="Half must define `__call__"):
        Half()("a", {})
    with pytest.raises(NotImplementedError, match="Half must define `stop_all"):
        Half().stop_all()


MAKERS = {
    "plateau": lambda: ExperimentPlateauStopper("m", std=0.5, top=4, patience=3),
    "trial": lambda: TrialPlateauStopper("m", std=0.3, num_results=3),
    "iterations": lambda: MaximumIterationStopper(5),
    "function": lambda: FunctionStopper(lambda trial_id, result: result["m"] < -0.5),
    "bounds": lambda: DictionaryStopper({"m": 0.4}),
    "combined": lambda: CombinedStopper(MaximumIterationStopper(5), TrialPlateauStopper("m", std=0.3)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_pickled_stopper_goes_on_as_the_first_would(name):
    rng = random.Random(1)
    results = [(f"t{rng.randrange(3)}", {"m": rng.gauss(0, 1) / (1 + i / 9)}) for i in range(90)]
    whole = MAKERS[name]()
    expected = [(whole(*result), whole.stop_all()) for result in results]
    assert len(set(expected)) > 1, "the sequence stops something and lets something go on"
    for cut in (0, 7, 31):
        stopper = MAKERS[name]()
        decisions = [(stopper(*result), stopper.stop_all()) for result in results[:cut]]
        stopper = pickle.loads(cloudpickle.dumps(stopper))
        decisions += [(stopper(*result), stopper.stop_all()) for result in results[cut:]]
        assert decisions == expected


@pytest.mark.parametrize(
    "function", [lambda result: True, lambda: True, lambda a, b, c: True, lambda *, trial_id: True]
)
def test_a_stop_function_takes_two_arguments(function):
    with pytest.raises(
        TypeError, match=r"`stop` is called with \(trial_id, result\), which <lambda>\(.*\) does not take"
    ):
        make_stopper(function)


def test_stop_functions_of_other_forms():
    class Callable:
        def __call__(self, trial_id, result, factor=2):
            return result["x"] > factor

    for function in (Callable(), lambda *args: args[1]["x"] > 2, functools.partial(lambda m, t, r: r["x"] > m, 2)):
        stopper = make_stopper(function)
        assert (stopper("a", {"x": 2}), stopper("a", {"x": 3})) == (False, True)


class Loss(Stopper):
    def __call__(self, trial_id, result):
        return result["loss"] < 0.1

    def stop_all(self):
        return False


class Inherited(Loss):
    def __call__(self, trial_id, result):
        return super().__call__(trial_id, result)


@pytest.mark.parametrize(
    ("stop", "who"),
    [
        (lambda trial_id, result: result["loss"] < 0.1, "function <lambda>"),
        (Loss(), "Stopper Loss"),
        (Inherited(), "Stopper Inherited"),
        ([Loss(), {"x": 3}], "Stopper Loss"),
    ],
    ids=["function", "class", "derived", "list"],
)
def test_errors_of_the_users_stoppers_name_them_and_the_trial(stop, who):
    stopper = cloudpickle.loads(cloudpickle.dumps(make_stopper(stop)))
    with pytest.raises(
        TuneError, match=f"The {who} .`stop`. failed for trial t7: KeyError: 'loss'. The result has 'los'"
    ):
        stopper("t7", {"los": 1.0})
    assert stopper("t7", {"loss": 0.0})

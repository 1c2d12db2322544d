"""What every scheduler has to do, shown by simulated sweeps."""

from __future__ import annotations

import math
import random
import time
from collections import Counter

import pytest
from tune.simulator import Inert, Search, Simulator

from mltoolkit.tune.error import MissingMetricError, TuneError
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.experiment import Trial
from mltoolkit.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    ResourceChangingScheduler,
)
from mltoolkit.tune.schedulers.pb2 import PB2


def _asha(**kw):
    return ASHAScheduler(max_t=27, reduction_factor=3, seed=3, **kw)


def _pbt(**kw):
    mutations = {"lr": [0.1, 0.2, 0.4], "width": lambda: 3}
    return PopulationBasedTraining(
        "training_iteration", perturbation_interval=5, hyperparam_mutations=mutations, seed=5, **kw
    )


MAKERS = {
    "asha": _asha,
    "asha-brackets": lambda **kw: _asha(brackets=3, **kw),
    "asha-go-on": lambda **kw: _asha(stop_last_trials=False, **kw),
    "asha-promote": lambda **kw: _asha(variant="promote", **kw),
    "asha-promote-brackets": lambda **kw: _asha(variant="promote", brackets=2, stop_last_trials=False, **kw),
    "hyperband": lambda **kw: HyperBandScheduler(max_t=27, **kw),
    "hyperband-go-on": lambda **kw: HyperBandScheduler(max_t=9, stop_last_trials=False, **kw),
    "median": lambda **kw: MedianStoppingRule("training_iteration", grace_period=3, **kw),
    "median-soft": lambda **kw: MedianStoppingRule(
        "training_iteration", grace_period=3, hard_stop=False, min_time_slice=2, **kw
    ),
    "pbt": _pbt,
    "pbt-synch": lambda **kw: _pbt(synch=True, **kw),
    "pb2": lambda **kw: PB2(
        "training_iteration", perturbation_interval=12, hyperparam_bounds={"lr": [0.0, 1.0]}, seed=7, **kw
    ),
    "resources": lambda **kw: ResourceChangingScheduler(_asha(**kw)),
    "resources-hyperband": lambda **kw: ResourceChangingScheduler(HyperBandScheduler(max_t=9, **kw)),
}
each = pytest.mark.parametrize("name", MAKERS)


def make(name, metric="score", mode="max"):
    return MAKERS[name](metric=metric, mode=mode)


def curve(trial, iteration):
    rng = random.Random(f"{trial.index}/{iteration}")
    return (trial.index * 7919 % 1009) / 1009 * (1 - 0.8**iteration) + rng.gauss(0, 0.02)


def simulate(scheduler, value=curve, num_trials=None, slots=3, **options):
    if num_trials is None:
        num_trials = 8 if isinstance(scheduler, PB2) else 30  # its Gaussian process takes time
    options.setdefault("length", 35)
    options.setdefault("config", lambda i: {"lr": 0.1 * (1 + i % 4), "index": i})
    options.setdefault("factory", PlacementGroupFactory([{"CPU": 1}]))
    options.setdefault("resources", {"CPU": 40.0})
    return Simulator(scheduler, value, num_trials, slots, **options)


def plain(value, seen=()):
    """A state as nested plain values, so that two of them can be compared."""
    assert not isinstance(value, (Trial, Simulator)), f"the state holds {value!r}"
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, dict):
        return [(plain(k), plain(v)) for k, v in value.items()]
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value), key=repr)
    if hasattr(value, "__dict__") and not callable(value):
        return (type(value).__name__, plain(value.__dict__))
    if hasattr(value, "__slots__"):
        return [(slot, plain(getattr(value, slot))) for slot in value.__slots__]
    if isinstance(value, (list, tuple)) or type(value).__name__ == "deque":
        return [plain(item) for item in value]
    return "function" if callable(value) else repr(value)


def state(scheduler):
    return plain({name: value for name, value in scheduler.__dict__.items() if name != "_log"})


@each
@pytest.mark.parametrize("num_trials", [0, 1, 2, 7, 50])
def test_sweeps_end(name, num_trials):
    for slots, ahead in ((1, 0), (1, 100), (4, 3), (60, 0)):
        if num_trials > 7 and (name == "pb2" or slots > 4):
            continue
        sweep = simulate(make(name), num_trials=num_trials, slots=slots, ahead=ahead).run()
        assert len(sweep.trials) == num_trials
        assert all(trial.status == Trial.TERMINATED for trial in sweep.get_trials())


@each
def test_sweeps_of_functions_without_checkpoints_end(name):
    sweep = simulate(make(name), num_trials=12, checkpoints=False).run()
    assert all(trial.is_finished() for trial in sweep.get_trials())


@each
@pytest.mark.parametrize("retries", [0, 1])
def test_failing_trials_hold_up_nobody(name, retries):
    def value(trial, iteration):
        if trial.index % 3 == 0 and iteration == 1 + trial.index % 7 and trial.num_failures <= trial.index % 2:
            raise ArithmeticError
        return curve(trial, iteration)

    for slots in (1, 4):
        sweep = simulate(make(name), value, num_trials=20, slots=slots, retries=retries).run()
        statuses = Counter(trial.status for trial in sweep.get_trials())
        assert statuses[Trial.ERROR] + statuses[Trial.TERMINATED] == 20
        assert statuses[Trial.ERROR] >= (1 if retries else 2)


@each
def test_a_sweep_whose_trials_all_fail_ends(name):
    def value(trial, iteration):
        raise ArithmeticError

    sweep = simulate(make(name), value, num_trials=9).run()
    assert {trial.status for trial in sweep.get_trials()} == {Trial.ERROR}


@each
def test_all_but_one_fail_late(name):
    def value(trial, iteration):
        if trial.index and iteration == 6:
            raise ArithmeticError
        return curve(trial, iteration)

    for slots in (1, 3, 10):
        sweep = simulate(make(name), value, num_trials=10, slots=slots).run()
        assert all(trial.is_finished() for trial in sweep.get_trials())


@each
def test_trials_that_complete_early_hold_up_nobody(name):
    sweep = simulate(make(name), num_trials=25, length=lambda trial: 1 + trial.index % 5).run()
    assert all(trial.is_finished() for trial in sweep.get_trials())


@each
def test_nan_is_the_worst_score(name):
    def value(trial, iteration):
        return math.nan if trial.index % 2 else curve(trial, iteration)

    sweep = simulate(make(name), value, num_trials=20).run()
    assert all(trial.is_finished() for trial in sweep.get_trials())
    if not name.startswith("pb"):  # there a trial that reports NaN is set back, and runs again
        means = [sum(sweep.results_of[t.trial_id] for t in sweep.get_trials() if t.index % 2 == odd) for odd in (0, 1)]
        assert means[0] >= means[1], "trials that report NaN get more time than the others"
    simulate(make(name), lambda trial, iteration: math.nan, num_trials=10).run()
    simulate(make(name), lambda trial, iteration: math.inf * (-1) ** trial.index, num_trials=10).run()


@each
def test_equal_scores_and_uneven_durations(name):
    sweep = simulate(
        make(name), lambda trial, iteration: 1.0, num_trials=15, duration=lambda t, i: 1 + t.index % 4
    ).run()
    assert all(trial.is_finished() for trial in sweep.get_trials())


@each
def test_coarse_times(name):
    """Reports at 10, 20, ... pass several milestones at once."""

    def value(trial, iteration):
        return {"training_iteration": 10 * iteration, "score": curve(trial, iteration)}

    for slots in (1, 4):
        sweep = simulate(make(name), value, num_trials=20, slots=slots, length=4).run()
        assert all(trial.is_finished() for trial in sweep.get_trials())


@each
def test_a_limit_on_unfinished_trials_stalls_nothing(name):
    if name.startswith("pb"):
        pytest.skip("a population is refused such a limit, see the tests of PBT")
    for limit in (1, 2, 5):
        for known in (True, False):
            config = lambda i: {"lr": 0.1, "index": i}  # noqa: E731
            search = Search(20, config, limit=limit, known=known)
            sweep = simulate(make(name), num_trials=20, slots=3, search=search).run()
            assert len(sweep.trials) == 20


@each
def test_min_mirrors_max(name):
    up = simulate(make(name)).run()
    down = simulate(make(name, mode="min"), lambda trial, iteration: -curve(trial, iteration)).run()
    assert up.log == down.log
    assert len(up.log) > 30


@each
def test_the_same_sweep_twice_is_the_same(name):
    assert simulate(make(name)).run().log == simulate(make(name)).run().log


@each
@pytest.mark.parametrize("events", [1, 40, 150])
def test_restored_in_the_middle_it_goes_on_identically(name, events, tmp_path):
    whole = simulate(make(name)).run()
    sweep = simulate(make(name)).run(max_events=events)
    sweep.scheduler.save(tmp_path / "state")
    sweep.scheduler = make(name)
    sweep.scheduler.restore(tmp_path / "state")
    assert sweep.run().log == whole.log
    assert state(sweep.scheduler) == state(whole.scheduler)


@each
@pytest.mark.parametrize("slots", [1, 4])
def test_replayed_events_give_the_same_state(name, slots):
    def value(trial, iteration):
        if trial.index % 7 == 3 and iteration == 6:
            raise ArithmeticError
        return curve(trial, iteration)

    sweep = simulate(make(name), value, slots=slots).run(max_events=200)
    replayed = make(name)
    inert = Inert(sweep)
    inert.replay(replayed, sweep.events)
    assert state(replayed) == state(sweep.scheduler)


@each
def test_restored_and_replayed_it_goes_on_identically(name, tmp_path):
    """A snapshot, events after it, a crash: the snapshot and a replay of the events are the state at the crash."""
    sweep = simulate(make(name))
    sweep.run(max_events=60)
    sweep.scheduler.save(tmp_path / "state")
    seen = len(sweep.events)
    sweep.run(max_events=90)
    restored, inert = make(name), Inert(sweep)
    inert.replay(make(name), sweep.events[:seen])  # brings the trials to where they were
    restored.restore(tmp_path / "state")
    inert.replay(restored, sweep.events[seen:])
    assert state(restored) == state(sweep.scheduler)


@each
def test_state_after_the_sweep_is_bounded(name):
    """What is kept of ended trials is scores, not trials."""
    sweep = simulate(make(name), num_trials=20 if name != "pb2" else 6).run()
    if name.startswith("median"):
        return  # their curves go on to count
    assert "sim_0" not in repr(state(sweep.scheduler)).replace("_base_trial_resources", "")


@each
def test_a_result_without_the_metric_names_all_that_helps(name):
    sweep = simulate(make(name), lambda trial, iteration: {"scores": 1.0, "loss": 2.0})
    with pytest.raises(MissingMetricError, match=r"curve_sim_00000 .*'score'.*scores, loss.*Did you mean 'scores'"):
        sweep.run()


@each
def test_a_result_without_the_time_names_it(name):
    scheduler = make(name)
    inner = getattr(scheduler, "_base_scheduler", scheduler)
    inner._time_attr = "epoch"
    with pytest.raises(MissingMetricError, match=r"'epoch', the `time_attr` of .*training_iteration"):
        simulate(scheduler).run()


@each
@pytest.mark.parametrize("value", ["high", None, [1.0]])
def test_a_metric_that_is_no_number_is_an_error(name, value):
    with pytest.raises(TuneError, match=r"'score' \(`metric`\) of trial curve_sim_00000 is"):
        simulate(make(name), lambda trial, iteration: {"score": value}).run()


@each
def test_nested_metrics_are_found(name):
    sweep = simulate(make(name, metric="eval/score"), lambda t, i: {"eval": {"score": curve(t, i)}}, num_trials=8).run()
    assert all(trial.is_finished() for trial in sweep.get_trials())


@each
def test_metric_and_mode_come_from_the_sweep(name):
    scheduler = make(name, metric=None, mode=None)
    with pytest.raises(ValueError, match="has no `metric` and `mode` to compare trials by"):
        scheduler.on_trial_add(Inert(simulate(FIFOScheduler())), Trial("a", "curve", {}))
    assert scheduler.set_search_properties("score", "max")
    assert not scheduler.set_search_properties("other", "max")
    assert scheduler.metric == "score"


@each
def test_mode_alone_stands_for_the_bare_number(name):
    scheduler = make(name, metric=None, mode=None)
    scheduler.set_search_properties(None, "max")
    assert scheduler.metric == "_metric"


@each
def test_a_wrong_mode_is_an_error(name):
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max', got 'maximum'"):
        make(name, mode="maximum")


@each
def test_debug_string_names_the_scheduler(name):
    sweep = simulate(make(name), num_trials=5).run()
    assert sweep.scheduler.debug_string()


@pytest.mark.parametrize("name", ["asha", "asha-promote", "hyperband", "median", "median-soft", "pbt", "pbt-synch"])
def test_time_per_result_stays_flat(name):
    def seconds_per_result(num_trials):
        sweep = simulate(make(name), num_trials=num_trials, slots=8, record=False, length=11)
        start = time.process_time()
        sweep.run()
        return (time.process_time() - start) / sweep.steps

    # Quadratic work would make it eight times as much; the machine may be busy.
    few = min(seconds_per_result(80) for _ in range(3))
    assert any(seconds_per_result(640) < 4 * few for _ in range(3))

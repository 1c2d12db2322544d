"""The median stopping rule: cases worked by hand."""

from __future__ import annotations

import math
import random

import pytest
from tune.simulator import Simulator

from mltoolkit.tune.experiment import Trial
from mltoolkit.tune.schedulers import MedianStoppingRule


class Nobody:
    search_alg = None

    def get_live_trials(self):
        return []


def rule(**options):
    options.setdefault("grace_period", 0)
    return MedianStoppingRule("step", "score", "max", **options)


def report(scheduler, name, *scores, start=1):
    trial = Trial(name, "t", {})
    return [
        scheduler.on_trial_result(Nobody(), trial, {"step": start + i, "score": score})
        for i, score in enumerate(scores)
    ]


def test_worked_by_hand():
    scheduler = rule(min_samples_required=3)
    for name, scores in (("a", (1, 3)), ("b", (2, 2)), ("c", (5, 7))):
        assert report(scheduler, name, *scores) == ["CONTINUE", "CONTINUE"]
    # Means of the others up to step 1: 1, 2, 5; up to step 2: 2, 2, 6. The median is 2 both times.
    assert report(scheduler, "as good", 2, 0) == ["CONTINUE", "CONTINUE"]  # the best of its scores counts
    assert report(scheduler, "worse", 1.9) == ["STOP"]


def test_an_even_number_of_means():
    scheduler = rule(min_samples_required=2)
    report(scheduler, "a", 1)
    report(scheduler, "b", 2)
    assert report(scheduler, "c", 1.5) == ["CONTINUE"]
    scheduler = rule(min_samples_required=2)
    report(scheduler, "a", 1)
    report(scheduler, "b", 2)
    assert report(scheduler, "c", 1.4) == ["STOP"]


def test_results_before_the_grace_period_are_left_out_of_the_means():
    scheduler = rule(grace_period=2, min_samples_required=1)
    assert report(scheduler, "a", 100, 1) == ["CONTINUE", "CONTINUE"]
    assert report(scheduler, "b", 0, 1) == ["CONTINUE", "CONTINUE"]


def test_trials_that_have_not_got_as_far_are_left_out():
    scheduler = rule(min_samples_required=1)
    report(scheduler, "a", 10)
    assert report(scheduler, "b", 20, 0, 0) == ["CONTINUE"] * 3


def test_seconds_and_steps_give_the_same_decisions():
    """The bookkeeping for integer times against the plain rule, which other times get."""
    for seed in range(10):
        rng = random.Random(seed)
        decisions = []
        for shift in (0, 0.5):
            scheduler, order = rule(grace_period=3), random.Random(seed)
            times = dict.fromkeys("abcdefghijkl", 0)
            stopped, made = set(), []
            values = random.Random(rng.random() if shift == 0 else 0)
            values.seed(seed)
            for _ in range(400):
                name = order.choice(sorted(times))
                times[name] += order.choice([1, 1, 2])
                if name not in stopped:
                    result = {"step": times[name] + shift, "score": values.gauss(ord(name), 5)}
                    made.append(scheduler.on_trial_result(Nobody(), Trial(name, "t", {}), result))
                    if made[-1] == "STOP":
                        stopped.add(name)
            decisions.append(made)
        assert decisions[0] == decisions[1]
        assert "STOP" in decisions[0]


def test_constant_curves_stop_nobody():
    """A sum of ten times 0.1 is less than 1: a rounding error is no reason to stop."""
    scheduler = rule(min_samples_required=1)
    for name in "abcd":
        assert set(report(scheduler, name, *[0.1] * 50)) == {"CONTINUE"}


def test_nan_is_stopped_and_moves_no_median():
    scheduler = rule(min_samples_required=1)
    report(scheduler, "a", 1, 1)
    assert report(scheduler, "b", math.nan) == ["STOP"]
    assert report(scheduler, "c", 1, math.nan) == ["CONTINUE", "CONTINUE"]


def test_soft_stopped_trials_go_on_when_no_other_is_left():
    scheduler = MedianStoppingRule(
        "training_iteration", "score", "max", grace_period=1, min_samples_required=2, hard_stop=False
    )
    sweep = Simulator(scheduler, lambda trial, iteration: -trial.index, 8, 1, length=5).run()
    assert set(sweep.results_of.values()) == {5}
    ends = [trial_id for what, trial_id, _ in sweep.log if what == "end"]
    first_resume = next(i for i, entry in enumerate(sweep.log) if entry[0] == "resume" and entry[1] == "sim_00003")
    last_start = next(i for i, entry in enumerate(sweep.log) if entry[:2] == ("start", "sim_00007"))
    assert last_start < first_resume
    assert len(ends) == 8


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"grace_period": -1}, "`grace_period` .* must be a number >= 0, got -1"),
        ({"min_time_slice": "1"}, "`min_time_slice` .* must be a number >= 0, got '1'"),
        ({"min_samples_required": 0}, "`min_samples_required` .* must be an integer >= 1, got 0"),
    ],
)
def test_options_out_of_range(options, text):
    with pytest.raises(ValueError, match=text):
        MedianStoppingRule(**options)

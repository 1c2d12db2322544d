"""Asynchronous successive halving: cases worked by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from tune.simulator import Search, Simulator

from mltoolkit.tune.experiment import Trial
from mltoolkit.tune.schedulers import ASHAScheduler, AsyncHyperBandScheduler
from mltoolkit.tune.schedulers._rungs import PromotionBracket, _StoppingRung, rung_milestones


class Nobody:
    """A controller without trials."""

    search_alg = None

    def get_trial(self, trial_id):
        return None


def decide(scheduler, results):
    """Decisions on (trial, time, score), trials being added when they are first named."""
    decisions = []
    for name, time, score in results:
        if name not in scheduler._bracket_of:
            scheduler.on_trial_add(Nobody(), Trial(name, "t", {}))
        result = {"training_iteration": time, "score": score}
        decisions.append(scheduler.on_trial_result(Nobody(), Trial(name, "t", {}), result))
    return decisions


@pytest.mark.parametrize("eta", range(2, 11))
@pytest.mark.parametrize("grace", [1, 2, 5])
def test_no_rung_is_lost_to_rounding(eta, grace):
    for power in range(1, 12):
        milestones = rung_milestones(grace, grace * eta**power, eta)
        assert milestones == [grace * eta**k for k in range(power + 1)]
        assert rung_milestones(grace, grace * eta**power - 1, eta) == milestones[:-1]


def test_the_logarithm_that_loses_a_rung():
    assert int(math.log(243) / math.log(3)) == 4
    assert AsyncHyperBandScheduler(max_t=243, reduction_factor=3).milestones() == [[1, 3, 9, 27, 81, 243]]


def test_brackets_begin_later_and_may_be_empty():
    scheduler = ASHAScheduler(max_t=16, reduction_factor=4, brackets=4)
    assert scheduler.milestones() == [[1, 4, 16], [4, 16], [16], []]


@pytest.mark.parametrize("eta", [2, 3, 4, 2.5, 1.7])
def test_cutoffs_are_numpys_percentiles_to_the_last_bit(eta):
    rng = random.Random(eta)
    rung = _StoppingRung(1)
    for n in range(1, 200):
        rung.scores = sorted(round(rng.gauss(0, 1), rng.choice([1, 3, 15])) for _ in range(n))
        assert rung.cutoff(eta) == np.nanpercentile(rung.scores, (1 - 1 / eta) * 100)


def test_stopping_worked_by_hand():
    # eta 2: the cutoff is the median of those that came before.
    scheduler = ASHAScheduler(metric="score", mode="max", max_t=8, reduction_factor=2)
    decisions = decide(
        scheduler, [("a", 1, 0.5), ("b", 1, 0.4), ("c", 1, 0.45), ("d", 1, 0.449), ("c", 2, 0.1), ("a", 8, 0.1)]
    )
    # a is the first; b < 0.5; c = median(0.4, 0.5); d < median(0.4, 0.45, 0.5); c is the first at 2; a has ended.
    assert decisions == ["CONTINUE", "STOP", "CONTINUE", "STOP", "CONTINUE", "STOP"]


def test_nan_is_stopped_and_moves_no_cutoff():
    scheduler = ASHAScheduler(metric="score", mode="min", max_t=8, reduction_factor=2)
    nan = math.nan
    assert decide(scheduler, [("a", 1, nan), ("b", 1, 0.5), ("c", 1, nan), ("d", 1, 0.5)]) == [
        "CONTINUE",
        "CONTINUE",
        "STOP",
        "CONTINUE",
    ]


def test_the_rung_at_max_t_counts_where_trials_go_on():
    scheduler = ASHAScheduler(metric="score", mode="max", max_t=243, reduction_factor=3, stop_last_trials=False)
    assert decide(scheduler, [("a", 243, 0.5), ("b", 243, 0.4), ("c", 300, 0.6)]) == ["CONTINUE", "STOP", "CONTINUE"]


def test_brackets_are_drawn_by_softmax_of_their_rungs():
    scheduler = ASHAScheduler(metric="score", mode="max", max_t=16, reduction_factor=4, brackets=2, seed=1)
    counts = [0, 0]
    for _ in range(20000):
        counts[scheduler._draw_bracket()] += 1
    assert counts[1] / sum(counts) == pytest.approx(1 / (1 + math.e), abs=0.02)


def test_the_global_generators_are_left_alone():
    def draws(seed):
        scheduler = ASHAScheduler(metric="score", mode="max", brackets=3, seed=seed)
        return [scheduler._draw_bracket() for _ in range(50)]

    before = random.getstate(), np.random.get_state()[1].tolist()
    assert draws(1) == draws(1) != draws(2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_the_sweeps_seed_is_taken_unless_there_is_one():
    ours, sweeps = ASHAScheduler(brackets=3, seed=4), ASHAScheduler(brackets=3)
    for scheduler in (ours, sweeps):
        scheduler.set_search_properties("score", "max", seed=5)
    reference = {seed: ASHAScheduler(brackets=3, seed=seed) for seed in (4, 5)}
    draws = lambda s: [s._draw_bracket() for _ in range(40)]  # noqa: E731
    assert draws(ours) == draws(reference[4])
    assert draws(sweeps) == draws(reference[5])


# Promotion


def test_promotion_rungs_worked_by_hand():
    """Rungs of eta = 3: one of the first three is promoted, one more for each three that follow."""
    bracket = PromotionBracket([1, 3], 3)
    promoted = []
    for i, score in enumerate([0.1, 0.5, 0.3, 0.4, 0.2, 0.9]):
        assert not bracket.report(f"t{i}", 1, score)
        while (trial_id := bracket.promote()) is not None:
            promoted.append((i, trial_id))
    # After three: best of 0.1, 0.5, 0.3. After six: two may be among the promoted, t5 is the best of those left.
    assert promoted == [(2, "t1"), (5, "t5")]
    # Lower arrivals do not undo a promotion, and the third one falls due with the ninth arrival.
    for i in (6, 7):
        bracket.report(f"t{i}", 1, 0.0)
        assert bracket.promote() is None
    bracket.report("t8", 1, 0.0)
    assert bracket.promote() == "t3"
    assert bracket.paused() == ["t8", "t7", "t6", "t0", "t4", "t2"]


def test_the_highest_rung_is_promoted_from_first():
    bracket = PromotionBracket([1, 2, 4], 2)
    for trial_id, score in (("a", 4), ("b", 3), ("c", 2), ("d", 1)):
        bracket.report(trial_id, 1, score)
    assert [bracket.promote(), bracket.promote(), bracket.promote()] == ["a", "b", None]
    bracket.report("a", 2, 4)
    bracket.report("b", 2, 5)
    bracket.report("e", 1, 9)
    assert bracket.promote() == "b"


def one_slot(num_trials, slots=1, scores=None, **options):
    scheduler = ASHAScheduler(max_t=9, reduction_factor=3, variant="promote", metric="score", mode="max")
    value = lambda trial, iteration: scores[trial.index] if scores else trial.index  # noqa: E731
    return Simulator(scheduler, value, num_trials, slots, **options).run()


@pytest.mark.parametrize("ahead", [0, 1, 9])
def test_nine_trials_on_one_slot_fill_the_rungs_of_the_paper(ahead):
    """r = 1, R = 9, eta = 3: nine trials at 1, three at 3, one at 9 (Li et al. 2018, Figure 1)."""
    sweep = one_slot(9, scores=[9, 1, 2, 8, 3, 4, 7, 5, 6], ahead=ahead)
    assert sorted(sweep.results_of.values()) == [1] * 6 + [3] * 2 + [9]
    order = [trial_id[-1] + str(iteration) for what, trial_id, iteration in sweep.log if what in ("PAUSE", "STOP")]
    # The third, sixth and ninth arrival bring about a promotion each, and that of the third the one to the top.
    assert order == ["01", "11", "21", "03", "31", "41", "51", "33", "61", "71", "81", "63", "09"]


def test_a_promoted_trial_comes_before_new_ones():
    sweep = one_slot(9, scores=[9, 1, 2, 3, 4, 5, 6, 7, 8])
    starts = [trial_id[-1] for what, trial_id, _ in sweep.log if what == "start"]
    assert starts[:5] == ["0", "1", "2", "0", "3"]


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_all_slots_are_busy_while_there_are_trials_to_start(slots):
    sweep = one_slot(27, slots)
    started = [trial for trial in sweep.get_trials() if trial.start_time is not None]
    assert len(started) == 27
    last_start = max(trial.start_time for trial in started)
    assert sweep.steps >= last_start * slots


def test_the_best_third_of_each_rung_is_promoted_whatever_the_order():
    for seed in range(20):
        scores = random.Random(seed).sample(range(81), 81)
        sweep = one_slot(81, slots=4, scores=scores)
        by_score = sorted(range(81), key=lambda index: -scores[index])
        count = {index: sweep.results_of[f"sim_{index:05d}"] for index in by_score}
        assert all(count[index] >= 3 for index in by_score[:27])
        second = [index for index in by_score if count[index] >= 3]
        assert all(count[index] == 9 for index in second[: len(second) // 3])
        assert len(second) < 40


def test_nan_is_never_promoted():
    sweep = one_slot(12, scores=[math.nan] * 9 + [1, 2, 3])
    assert max(sweep.results_of[f"sim_{i:05d}"] for i in range(9)) == 1
    sweep = one_slot(9, scores=[math.nan] * 9)
    assert set(sweep.results_of.values()) == {1}


def test_a_limit_on_unfinished_trials_lets_in_new_ones():
    search = Search(9, lambda i: {}, limit=2)
    scheduler = ASHAScheduler(max_t=9, reduction_factor=3, variant="promote", metric="score", mode="max")
    sweep = Simulator(scheduler, lambda trial, iteration: trial.index, 9, 1, search=search).run()
    assert len(sweep.trials) == 9
    assert max(sweep.results_of.values()) == 9


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_t": 0}, "`max_t` of AsyncHyperBandScheduler must be a number > 0, got 0"),
        ({"grace_period": -1}, "`grace_period` .* must be a number > 0, got -1"),
        ({"grace_period": 9, "max_t": 8}, "`grace_period` must be <= `max_t`, got 9 > 8"),
        ({"reduction_factor": 1}, "`reduction_factor` .* must be a number > 1, got 1"),
        ({"brackets": 0}, "`brackets` .* must be an integer >= 1, got 0"),
        ({"variant": "pause"}, "`variant` must be 'stop' or 'promote', got 'pause'"),
    ],
)
def test_options_out_of_range(options, text):
    with pytest.raises(ValueError, match=text):
        ASHAScheduler(**options)

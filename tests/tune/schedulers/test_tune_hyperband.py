"""HyperBand: the table of the paper, and brackets under bad luck."""

from __future__ import annotations

from collections import Counter

import pytest
from tune.simulator import Simulator

from mltoolkit.tune.schedulers import HyperBandScheduler
from mltoolkit.tune.schedulers._hyperband_bracket import Bracket


def sweep_of(num_trials, slots=2, value=lambda trial, iteration: trial.index, **options):
    scheduler = HyperBandScheduler(metric="score", mode="max", max_t=options.pop("max_t", 9))
    return Simulator(scheduler, value, num_trials, slots, **options).run()


def test_the_papers_table_for_r_81_and_eta_3():
    """Table 1 of Li et al., but ceil where they floor: (n, r) of each round."""
    rounds = []
    for s, (n, r) in enumerate(HyperBandScheduler(max_t=81, reduction_factor=3).brackets()):
        bracket = Bracket(n, r, 81, 3, s, stop_last_trials=True)
        rows = [(bracket.size, bracket.milestone)]
        while bracket.can_halve():
            bracket.halve()
            rows.append((bracket.size, bracket.milestone))
        rounds.append(rows)
    assert rounds == [
        [(5, 81)],
        [(8, 27), (3, 81)],
        [(15, 9), (5, 27), (2, 81)],
        [(34, 3), (12, 9), (4, 27), (2, 81)],
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    ]


def test_first_milestones_are_exact_where_floats_fall_short():
    for eta in range(2, 12):
        for power in range(1, 8):
            milestones = [r for _, r in HyperBandScheduler(max_t=eta**power, reduction_factor=eta).brackets()]
            assert milestones == [eta ** (power - s) for s in range(power + 1)]


def test_brackets_without_time_are_left_out():
    assert HyperBandScheduler(max_t=50, reduction_factor=3).brackets()[-1] == (34, 1)
    assert HyperBandScheduler(max_t=2, reduction_factor=9).brackets() == [(1, 2)]


@pytest.mark.parametrize("slots", [1, 2, 5, 100])
@pytest.mark.parametrize("ahead", [0, 4, 1000])
def test_rounds_do_not_depend_on_how_many_trials_run_at_once(slots, ahead):
    """s = 0: three trials to 9. s = 1: five to 3, two of them to 9. s = 2: nine to 1, three to 3, one to 9."""
    sweep = sweep_of(17, slots, ahead=ahead)
    results = [sweep.results_of[trial.trial_id] for trial in sweep.get_trials()]
    assert results == [9, 9, 9, 3, 3, 3, 9, 9, 1, 1, 1, 1, 1, 1, 3, 3, 9]
    assert sweep.scheduler.state() == {"num_brackets": 3, "num_stopped": 17}


def test_a_failed_trial_is_replaced_before_the_first_halving():
    def value(trial, iteration):
        if trial.index == 4:
            raise ArithmeticError
        return trial.index

    sweep = sweep_of(9, value=value)
    # Trials 3, 5, 6, 7 and 8 make up the bracket of five.
    assert sweep.scheduler.state()["num_brackets"] == 2


@pytest.mark.parametrize("failing", range(9))
@pytest.mark.parametrize("at", [1, 2, 3, 5, 9])
def test_a_bracket_does_not_wait_for_a_trial_that_failed(failing, at):
    def value(trial, iteration):
        if trial.index == 8 + failing and iteration == at:
            raise ArithmeticError
        return trial.index

    for slots in (1, 3):
        sweep = sweep_of(17, slots, value)
        assert Counter(trial.status for trial in sweep.get_trials())["TERMINATED"] >= 16


def test_a_bracket_that_is_not_full_is_halved_when_no_more_come():
    sweep = sweep_of(11)  # three, five, and three of nine
    results = [sweep.results_of[trial.trial_id] for trial in sweep.get_trials()]
    assert results[8:] == [3, 3, 9]


def test_trials_that_have_passed_several_milestones_are_halved_again():
    sweep = sweep_of(17, value=lambda trial, iteration: {"training_iteration": 4 * iteration, "score": trial.index})
    assert [sweep.results_of[f"sim_{i:05d}"] for i in range(8, 17)] == [1] * 8 + [3]


def test_ended_brackets_are_forgotten():
    sweep = sweep_of(170)
    assert sum(map(len, sweep.scheduler._bands)) <= 1
    assert "total_brackets=30" in sweep.scheduler.debug_string()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_t": 0}, "`max_t` .* must be a number > 0, got 0"),
        ({"max_t": 0.5}, "`max_t` .* must be >= 1"),
        ({"reduction_factor": 1}, "`reduction_factor` .* must be a number > 1, got 1"),
    ],
)
def test_options_out_of_range(options, text):
    with pytest.raises(ValueError, match=text):
        HyperBandScheduler(**options)

from __future__ import annotations

import pytest

from mltoolkit.rllib.utils.schedules import PiecewiseSchedule, Scheduler


def test_a_schedule_runs_linearly_and_stays_after_its_last_point():
    schedule = PiecewiseSchedule([(0, 1.0), (10, 2.0), (30, 0.0)])
    assert [schedule.value(t) for t in (-5, 0, 5, 10, 20, 30, 99)] == [1.0, 1.0, 1.5, 2.0, 1.0, 0.0, 0.0]
    assert PiecewiseSchedule([(0, 1.0)], outside_value=7.0).value(3) == 7.0


def test_a_scheduler_starts_at_its_first_value_and_its_state_continues():
    scheduler = Scheduler([[0, 1.0], [100, 0.0]])
    assert scheduler.get_current_value() == 1.0
    assert scheduler.update(25) == scheduler.get_current_value() == 0.75
    other = Scheduler([[0, 1.0], [100, 0.0]])
    other.set_state(scheduler.get_state())
    assert other.get_current_value() == 0.75
    assert Scheduler(0.5).update(1000) == 0.5


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ([[5, 1.0], [10, 0.0]], "must be at step 0"),
        ([[0, 1.0], [0, 0.5]], "rising steps"),
        ([[0, 1.0, 2.0]], "must be a number or a schedule"),
        ("fast", "must be a number or a schedule"),
        (True, "must be a number or a schedule"),
        (None, "got None"),
    ],
)
def test_settings_that_are_no_schedule_are_errors(setting, words):
    with pytest.raises(ValueError, match=f"`lr`.*{words}|{words}"):
        Scheduler(setting, setting_name="lr")

from __future__ import annotations

import math

import numpy as np
import pytest

from mltoolkit.rllib.utils.metrics.metrics_logger import MetricsLogger


@pytest.mark.parametrize(
    ("reduce", "window", "expected"),
    [
        ("mean", None, 2.0),
        ("mean", 2, 2.5),
        ("sum", None, 6.0),
        ("lifetime_sum", None, 6.0),
        ("min", None, 1.0),
        ("max", None, 3.0),
        ("max", 1, 3.0),
        ("item", None, 3.0),
        ("item_series", None, [1.0, 2.0, 3.0]),
        ("ema", 3, 2.0),
    ],
)
def test_reductions(reduce: str, window: int | None, expected: float) -> None:
    logger = MetricsLogger()
    for value in (1.0, 2.0, 3.0):
        logger.log_value("x", value, reduce=reduce, window=window)
    assert logger.peek("x") == expected


def test_the_default_is_an_exponential_average() -> None:
    logger = MetricsLogger()
    logger.log_value("x", 10.0, ema_coeff=0.1)
    logger.log_value("x", 20.0)
    assert logger.peek("x") == pytest.approx(11.0)


def test_a_result_clears_sums_but_not_averages_windows_and_lifetime_sums() -> None:
    logger = MetricsLogger()
    for key, options in {
        "sum": {"reduce": "sum"},
        "life": {"reduce": "lifetime_sum"},
        "window": {"reduce": "mean", "window": 5},
        "ema": {},
    }.items():
        logger.log_value(key, 4.0, **options)
    assert logger.reduce() == {"sum": 4.0, "life": 4.0, "window": 4.0, "ema": 4.0}
    assert logger.reduce() == {"life": 4.0, "window": 4.0, "ema": 4.0}
    logger.log_value("life", 1.0)
    assert logger.peek("life") == 5.0


def test_keys_nest_by_tuples_and_slashes() -> None:
    logger = MetricsLogger()
    logger.log_value("a/b", 1.0, reduce="item")
    logger.log_value(("a", "c"), 2.0, reduce="item")
    logger.log_dict({"d": 3.0, "e": {"f": 4.0}}, key="a", reduce="item")
    assert logger.peek() == {"a": {"b": 1.0, "c": 2.0, "d": 3.0, "e": {"f": 4.0}}}
    assert "a/b" in logger
    assert logger.peek("a/x", default=7) == 7
    logger.delete("a/b")
    assert "a/b" not in logger


def test_what_a_runner_recorded_is_logged_in_order_elsewhere() -> None:
    runner, driver = MetricsLogger(record=True), MetricsLogger()
    runner.log_value("x", np.float32(1.5), reduce="max")
    runner.log_value("x", np.array([4]), reduce="max")
    driver.replay(runner.pop_calls(), prefix="runners")
    assert driver.reduce() == {"runners": {"x": 4}}
    assert runner.pop_calls() == []


def test_state_goes_on_where_it_was() -> None:
    first, second = MetricsLogger(), MetricsLogger()
    for value in (1.0, 5.0):
        first.log_value("m", value, reduce="mean", window=3)
        first.log_value("s", value, reduce="lifetime_sum")
    second.set_state(first.get_state())
    for logger in (first, second):
        logger.log_value("m", 6.0, reduce="mean", window=3)
        logger.log_value("s", 6.0, reduce="lifetime_sum")
    assert first.peek() == second.peek() == {"m": 4.0, "s": 12.0}


def test_times_are_logged() -> None:
    logger = MetricsLogger()
    with logger.log_time("seconds", reduce="sum"):
        pass
    assert 0 <= logger.peek("seconds") < 1


def test_misspelt_reductions_name_the_nearest() -> None:
    for logger in (MetricsLogger(), MetricsLogger(record=True)):
        with pytest.raises(ValueError, match="Did you mean 'lifetime_sum'"):
            logger.log_value("x", 1.0, reduce="lifetime_sums")
        with pytest.raises(ValueError, match="`window`"):
            logger.log_value("x", 1.0, window=0)


def test_an_empty_key_is_not_in_the_result() -> None:
    logger = MetricsLogger()
    logger.log_value("x", 1.0, reduce="sum")
    logger.reduce()
    assert logger.reduce() == {}
    assert math.isnan(logger.peek("x"))

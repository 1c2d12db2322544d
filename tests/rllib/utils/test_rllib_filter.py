"""Running statistics against two passes over all the data."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from mltoolkit.rllib.utils import filter as filter_module
from mltoolkit.rllib.utils.filter import RunningStat, SharedStat


def two_pass(data):
    return data.mean(0), ((data - data.mean(0)) ** 2).sum(0)


def agrees(stat: RunningStat, data, rtol=1e-12):
    mean, m2 = two_pass(data)
    scale = np.abs(data).max() + 1
    assert stat.n == len(data)
    np.testing.assert_allclose(stat.mean, mean, rtol=rtol, atol=rtol * scale)
    np.testing.assert_allclose(stat.m2, m2, rtol=1e-9, atol=rtol * scale * scale)


def test_examples():
    assert doctest.testmod(filter_module).failed == 0


@pytest.mark.parametrize("seed", range(20))
def test_any_split_gives_what_one_pass_over_everything_gives(seed):
    rng = np.random.default_rng(seed)
    shape = [(), (3,), (2, 2)][seed % 3]
    data = rng.normal(rng.normal(0, 100), rng.exponential(10), size=(int(rng.integers(1, 400)), *shape))
    cuts = np.sort(rng.integers(0, len(data) + 1, size=int(rng.integers(0, 12))))
    stat = RunningStat(shape)
    for part in np.split(data, cuts):
        stat.push_batch(part)
    agrees(stat, data)
    one_by_one = RunningStat(shape)
    for row in data:
        one_by_one.push(row)
    agrees(one_by_one, data)


@pytest.mark.parametrize("seed", range(20))
def test_runners_merged_equal_one_that_saw_everything(seed):
    rng = np.random.default_rng(seed)
    runners = [SharedStat((2,)) for _ in range(int(rng.integers(1, 6)))]
    driver = SharedStat((2,))
    seen = []
    for _round in range(4):
        for runner in runners:
            for _ in range(int(rng.integers(0, 5))):
                batch = rng.normal(5, 3, size=(int(rng.integers(1, 9)), 2))
                runner.push_batch(batch)
                seen.append(batch)
        driver.merge_deltas([runner.pop_delta() for runner in runners])
        for runner in runners:
            runner.set_state(driver.get_state())
            assert runner.total().n == driver.total().n
    if seen:
        agrees(driver.total(), np.concatenate(seen))


def test_merging_in_the_same_order_gives_the_same_bits():
    rng = np.random.default_rng(0)
    deltas = []
    for _ in range(5):
        stat = SharedStat((4,))
        stat.push_batch(rng.normal(size=(7, 4)))
        deltas.append(stat.pop_delta())
    first, second = SharedStat((4,)), SharedStat((4,))
    first.merge_deltas(deltas)
    second.merge_deltas(deltas[:2])
    second.merge_deltas(deltas[2:])
    assert (first.total().mean == second.total().mean).all()
    assert (first.total().m2 == second.total().m2).all()


def test_no_digits_are_lost_where_the_mean_is_large():
    data = 1e9 + np.random.default_rng(1).normal(size=(1000, 1))
    stat = RunningStat((1,))
    for part in np.split(data, 100):
        stat.push_batch(part)
    np.testing.assert_allclose(stat.var, data.var(0, ddof=1), rtol=1e-6)


def test_what_was_taken_out_still_counts_until_it_comes_back():
    stat = SharedStat()
    stat.push_batch(np.array([1.0, 3.0]))
    delta = stat.pop_delta()
    assert stat.total().n == 2
    stat.merge_deltas([delta])
    assert stat.total().n == 2
    assert stat.pop_delta()["n"] == 0


def test_state_is_data_and_a_copy():
    stat = RunningStat((2,))
    stat.push_batch(np.ones((3, 2)))
    state = stat.get_state()
    state["mean"][0] = 99.0
    assert stat.mean[0] == 1.0
    with pytest.raises(ValueError, match=r"shape \(2,\), but these have the shape \(3,\)"):
        RunningStat((3,)).set_state(state)
    with pytest.raises(ValueError, match=r"must have the shape \(2,\), got \(\)"):
        stat.push(1.0)


def test_variance_before_the_second_element_is_zero():
    stat = RunningStat()
    assert stat.std == 0
    stat.push(3.0)
    assert stat.var == 0 and stat.mean == 3

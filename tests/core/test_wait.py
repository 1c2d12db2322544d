"""`wait`, and `get` with a timeout."""

from __future__ import annotations

import time

import pytest

import mltoolkit as ray

pytestmark = pytest.mark.usefixtures("runtime")


# -- wait -------------------------------------------------------------------------------------------------------------


def test_wait_gives_exactly_num_returns_even_if_more_are_ready():
    refs = [ray.put(i) for i in range(5)]
    ready, rest = ray.wait(refs, num_returns=2)
    assert len(ready) == 2
    assert ready == [r for r in refs if r in ready]
    assert rest == [r for r in refs if r not in ready]
    assert ray.wait(refs, num_returns=5) == (refs, [])


def test_wait_keeps_both_lists_in_input_order(gate):
    go = gate("go")

    @ray.remote
    def wait(i):
        go.wait()
        return i

    slow = [wait.remote(i) for i in range(2)]
    fast = [ray.put(i) for i in range(3)]
    mixed = [fast[2], slow[0], fast[0], slow[1], fast[1]]
    assert ray.wait(mixed, num_returns=3, timeout=10) == ([fast[2], fast[0], fast[1]], slow)
    assert ray.wait(mixed, num_returns=5, timeout=0.1) == ([fast[2], fast[0], fast[1]], slow)
    go.open()
    assert ray.wait(mixed, num_returns=5, timeout=20) == (mixed, [])


def test_wait_of_nothing():
    assert ray.wait([]) == ([], [])


def test_wait_rejects_repeats():
    ref = ray.put(1)
    with pytest.raises(ValueError):
        ray.wait([ref, ref])


@pytest.mark.parametrize("num_returns", [0, -1, 3])
def test_wait_rejects_impossible_num_returns(num_returns):
    with pytest.raises(ValueError, match=r"num_returns|number of objects"):
        ray.wait([ray.put(1), ray.put(2)], num_returns=num_returns)


def test_wait_rejects_a_negative_timeout():
    with pytest.raises(ValueError, match="timeout"):
        ray.wait([ray.put(1)], timeout=-1)


def test_wait_rejects_a_bare_ref_and_foreign_items():
    with pytest.raises(TypeError):
        ray.wait(ray.put(1))
    with pytest.raises(TypeError):
        ray.wait([ray.put(1), 2])


def test_wait_counts_a_failed_task_as_ready():
    @ray.remote
    def fail():
        raise ValueError

    ref = fail.remote()
    assert ray.wait([ref], timeout=20) == ([ref], [])


def test_wait_polls_and_keeps_its_timeout(gate):
    go = gate("go")

    @ray.remote
    def wait():
        return go.wait()

    ref = wait.remote()
    started = time.monotonic()
    assert ray.wait([ref], timeout=0) == ([], [ref])
    assert time.monotonic() - started < 0.1
    started = time.monotonic()
    assert ray.wait([ref], timeout=0.1) == ([], [ref])
    assert 0.09 < time.monotonic() - started < 0.3
    go.open()
    assert ray.wait([ref], timeout=20) == ([ref], [])


# -- get with a timeout -----------------------------------------------------------------------------------------------


def test_get_timeout_is_a_timeout_error_and_the_task_goes_on(gate):
    go = gate("go")

    @ray.remote
    def wait():
        go.wait()
        return "done"

    ref = wait.remote()
    for timeout in (0, 0.1):
        started = time.monotonic()
        with pytest.raises(ray.exceptions.GetTimeoutError) as caught:
            ray.get(ref, timeout=timeout)
        assert time.monotonic() - started < timeout + 0.2
        assert isinstance(caught.value, TimeoutError)
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get([ray.put(1), ref], timeout=0.1)
    go.open()
    assert ray.get(ref, timeout=20) == "done"


def test_get_with_timeout_zero_gives_what_is_there():
    assert ray.get(ray.put(3), timeout=0) == 3

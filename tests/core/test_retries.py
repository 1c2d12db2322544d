"""Which failures are retried, and how often."""

from __future__ import annotations

import os

import pytest

import mltoolkit as ray

pytestmark = pytest.mark.usefixtures("runtime")


def test_exceptions_of_user_code_are_not_retried_by_default(tally):
    runs = tally()

    @ray.remote(max_retries=5)
    def fail():
        runs.add()
        raise ValueError("user")

    with pytest.raises(ValueError, match="user"):
        ray.get(fail.remote())
    assert runs.count() == 1


def test_retry_exceptions_true_retries_up_to_max_retries(tally):
    runs, recovers = tally("runs"), tally("recovers")

    @ray.remote(max_retries=2, retry_exceptions=True)
    def fail():
        runs.add()
        raise ValueError("user")

    @ray.remote(max_retries=2, retry_exceptions=True)
    def recover():
        if recovers.add() < 3:
            raise ValueError("user")
        return "done"

    with pytest.raises(ValueError, match="user"):
        ray.get(fail.remote())
    assert runs.count() == 3
    assert ray.get(recover.remote()) == "done"


def test_retry_exceptions_takes_types(tally):
    runs, others = tally("runs"), tally("others")

    @ray.remote(max_retries=2, retry_exceptions=[OSError])
    def flaky():
        if runs.add() < 3:
            raise ConnectionError("a subclass of OSError")
        return "done"

    @ray.remote(max_retries=2, retry_exceptions=[OSError])
    def other():
        others.add()
        raise KeyError("not in the list")

    assert ray.get(flaky.remote()) == "done"
    with pytest.raises(KeyError):
        ray.get(other.remote())
    assert others.count() == 1


def test_retries_without_end(tally):
    runs = tally()

    @ray.remote(max_retries=-1, retry_exceptions=True)
    def flaky():
        if runs.add() < 8:
            raise ValueError
        return "done"

    assert ray.get(flaky.remote()) == "done"


def test_default_covers_three_crashes(tally):
    runs = tally()

    @ray.remote
    def crash():
        if runs.add() < 4:
            os._exit(1)
        return "done"

    assert ray.get(crash.remote()) == "done"
    assert runs.count() == 4


def test_max_retries_zero_runs_once(tally):
    runs = tally()

    @ray.remote(max_retries=0)
    def crash():
        runs.add()
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crash.remote())
    assert runs.count() == 1


def test_max_retries_by_options(tally):
    runs = tally()

    @ray.remote
    def crash():
        runs.add()
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crash.options(max_retries=1).remote())
    assert runs.count() == 2


@pytest.mark.parametrize("bad", [-2, 1.5, "three"])
def test_impossible_max_retries_is_refused(bad):
    with pytest.raises((ValueError, TypeError), match="max_retries"):
        ray.remote(max_retries=bad)(lambda: 1)


def test_retried_call_gets_its_arguments_again(tally):
    runs = tally()

    @ray.remote(max_retries=2, retry_exceptions=True)
    def flaky(items, ref):
        items.append(1)
        if runs.add() < 3:
            raise ValueError
        return items, ref

    assert ray.get(flaky.remote([0], ray.put("value"))) == ([0, 1], "value")

"""ActorPool: order, timeouts that lose nothing, dead actors, pushing and popping."""

from __future__ import annotations

import os

import pytest

import mltoolkit as ray
from mltoolkit.util import ActorPool


@pytest.fixture(autouse=True)
def _runtime(runtime):
    """Every test here needs the runtime."""


@ray.remote(num_cpus=0)
class Worker:
    def double(self, x):
        return 2 * x

    def pair(self, x):
        return x, -x

    def fail(self, x):
        raise ValueError(f"no {x}")

    def die(self, x):
        os._exit(1)

    def wait_for(self, gate, x):
        gate.wait()
        return x


def double(actor, x):
    return actor.double.remote(x)


def make_pool(size):
    return ActorPool([Worker.remote() for _ in range(size)])


def gated(gates):
    """A function for `submit` that lets each value wait for its gate, if there is one."""
    return lambda actor, x: actor.wait_for.remote(gates[x], x) if x in gates else actor.double.remote(x)


def test_map_keeps_the_order_of_the_values():
    assert list(make_pool(3).map(double, range(10))) == [2 * i for i in range(10)]


def test_map_gives_results_in_order_even_if_the_first_is_last(gate):
    gates = {0: gate("first")}
    results = make_pool(2).map(gated(gates), [0, 1])
    gates[0].open()
    assert list(results) == [0, 2]


def test_map_unordered_gives_what_is_ready(gate):
    gates = {0: gate("slow")}
    results = make_pool(2).map_unordered(gated(gates), [0, 1, 2, 3])
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    gates[0].open()
    assert list(results) == [0]


def test_map_starts_before_it_is_consumed(tally):
    started = tally("started")

    @ray.remote(num_cpus=0)
    class Marker:
        def mark(self, x):
            return started.add(x)

    pool = ActorPool([Marker.remote()])
    results = pool.map(lambda a, x: a.mark.remote(x), [7])
    assert pool.get_next() == 1
    assert started.words() == ["7"]
    assert list(results) == []


def test_map_drops_results_that_were_not_taken():
    pool = make_pool(1)
    pool.map(double, [1, 2, 3])
    assert list(pool.map(double, [4, 5])) == [8, 10]


def test_submit_more_than_there_are_actors():
    pool = make_pool(2)
    for i in range(5):
        pool.submit(double, i)
    results = []
    while pool.has_next():
        results.append(pool.get_next())
    assert results == [0, 2, 4, 6, 8]


def test_get_next_without_submissions_is_stop_iteration():
    pool = make_pool(1)
    assert not pool.has_next()
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


@pytest.mark.parametrize("method", ["get_next", "get_next_unordered"])
def test_a_timeout_loses_nothing(gate, method):
    slow = gate("slow")
    pool = make_pool(1)
    pool.submit(gated({5: slow}), 5)
    with pytest.raises(TimeoutError):
        getattr(pool, method)(timeout=0.05)
    assert pool.has_next()
    slow.open()
    assert getattr(pool, method)(timeout=30) == 5
    assert not pool.has_next()


@pytest.mark.parametrize("method", ["get_next", "get_next_unordered"])
def test_a_call_can_be_given_up(gate, method):
    slow = gate("slow")
    pool = make_pool(1)
    pool.submit(gated({5: slow}), 5)
    pool.submit(double, 6)
    with pytest.raises(TimeoutError):
        getattr(pool, method)(timeout=0.05, ignore_if_timedout=True)
    slow.open()
    assert getattr(pool, method)() == 12
    assert not pool.has_next()


def test_ordered_after_unordered_still_gives_every_result(gate):
    gates = {0: gate("first")}
    pool = make_pool(3)
    for i in range(3):
        pool.submit(gated(gates), i)
    assert pool.get_next_unordered() in (2, 4)
    gates[0].open()
    rest = {pool.get_next(), pool.get_next()}
    assert 0 in rest
    assert not pool.has_next()


def test_methods_with_several_results():
    pool = make_pool(2)

    def pair(actor, x):
        return actor.pair.options(num_returns=2).remote(x)

    assert list(pool.map(pair, [1, 2, 3])) == [[1, -1], [2, -2], [3, -3]]
    assert sorted(pool.map_unordered(pair, [1, 2, 3])) == [[1, -1], [2, -2], [3, -3]]
    pool.submit(pair, 4)
    assert pool.get_next(timeout=30) == [4, -4]


def test_an_exception_surfaces_and_the_actor_goes_on():
    pool = make_pool(1)
    pool.submit(lambda a, x: a.fail.remote(x), 1)
    pool.submit(double, 2)
    with pytest.raises(ValueError, match="no 1"):
        pool.get_next()
    assert pool.get_next() == 4
    assert pool.has_free()


def test_an_exception_of_the_submitted_function_keeps_the_actor():
    pool = make_pool(1)

    def broken(actor, x):
        raise RuntimeError("never submitted")

    with pytest.raises(RuntimeError, match="never submitted"):
        pool.submit(broken, 1)
    assert pool.has_free()
    pool.submit(double, 1)
    pool.submit(broken, 2)
    pool.submit(double, 3)
    assert pool.get_next() == 2
    with pytest.raises(RuntimeError, match="never submitted"):
        pool.get_next()
    assert pool.get_next() == 6


def test_a_dead_actor_leaves_the_pool():
    pool = make_pool(2)
    pool.submit(lambda a, x: a.die.remote(x), 0)
    for i in range(1, 4):
        pool.submit(double, i)
    with pytest.raises(ray.exceptions.ActorDiedError):
        pool.get_next()
    assert [pool.get_next() for _ in range(3)] == [2, 4, 6]
    assert pool.pop_idle() is not None
    assert pool.pop_idle() is None


def test_work_without_living_actors_is_an_error_not_a_silent_loss():
    pool = make_pool(1)
    results = pool.map(lambda a, x: a.die.remote(x), [0, 1])
    with pytest.raises(ray.exceptions.ActorDiedError):
        next(results)
    assert pool.has_next()
    with pytest.raises(RuntimeError, match="push"):
        pool.get_next()
    pool.push(Worker.remote())
    with pytest.raises(ray.exceptions.ActorDiedError):
        pool.get_next()


def test_push_and_pop_idle():
    first, second = Worker.remote(), Worker.remote()
    pool = ActorPool([first])
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(first)
    pool.submit(double, 1)
    assert not pool.has_free()
    assert pool.pop_idle() is None
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(first)
    pool.push(second)
    assert pool.has_free()
    assert pool.pop_idle() == second
    assert pool.get_next() == 2
    assert pool.pop_idle() == first
    assert not pool.has_free()


def test_push_starts_waiting_work():
    pool = ActorPool([])
    pool.submit(double, 3)
    assert not pool.has_free()
    pool.push(Worker.remote())
    assert pool.get_next() == 6


def test_no_actor_gets_a_second_call_while_it_has_one(gate):
    gates = {0: gate("slow")}
    pool = make_pool(2)
    results = pool.map_unordered(gated(gates), range(8))
    assert [next(results) for _ in range(7)] == [2 * i for i in range(1, 8)]
    gates[0].open()
    assert next(results) == 0

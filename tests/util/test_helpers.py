"""as_completed and map_unordered: batches, backpressure, options."""

from __future__ import annotations

import itertools

import pytest

import mltoolkit as ray
from mltoolkit.util import as_completed, map_unordered


@pytest.fixture(autouse=True)
def _runtime(runtime):
    """Every test here needs the runtime."""


@ray.remote
def square(x):
    return x * x


@ray.remote
def after(gate, x):
    gate.wait()
    return x


def test_as_completed_gives_every_result():
    assert sorted(as_completed([square.remote(i) for i in range(25)])) == [i * i for i in range(25)]
    assert list(as_completed([])) == []


def test_as_completed_does_not_wait_for_the_slow(gate):
    slow = gate("slow")
    refs = [after.remote(slow, "slow"), square.remote(2), square.remote(3)]
    results = as_completed(refs, chunk_size=1)
    assert {next(results), next(results)} == {4, 9}
    slow.open()
    assert list(results) == ["slow"]


def test_as_completed_takes_batches(gate):
    slow = gate("slow")
    refs = [after.remote(slow, "slow"), square.remote(2), square.remote(3)]
    results = as_completed(refs, chunk_size=2)
    assert [next(results), next(results)] == [4, 9]
    slow.open()
    assert next(results) == "slow"


def test_refs_instead_of_values():
    refs = [square.remote(i) for i in range(3)]
    assert set(as_completed(refs, yield_obj_refs=True)) == set(refs)
    assert sorted(ray.get(list(map_unordered(square, range(3), yield_obj_refs=True)))) == [0, 1, 4]


def test_an_exception_surfaces():
    @ray.remote
    def fail():
        raise KeyError("missing")

    with pytest.raises(KeyError, match="missing"):
        list(as_completed([fail.remote()]))


def test_map_unordered_gives_every_result():
    assert sorted(map_unordered(square, range(250))) == [i * i for i in range(250)]
    assert list(map_unordered(square, [])) == []


def test_map_unordered_without_a_limit():
    assert sorted(map_unordered(square, range(20), backpressure_size=None)) == [i * i for i in range(20)]


def test_backpressure_limits_what_is_drawn():
    drawn = []

    def items():
        for i in itertools.count():
            drawn.append(i)
            yield i

    results = map_unordered(square, items(), backpressure_size=3, chunk_size=1)
    assert drawn == []
    next(results)
    assert len(drawn) == 3
    next(results)
    assert len(drawn) == 4


def test_a_limit_below_the_chunk_size_works():
    assert sorted(map_unordered(square, range(7), backpressure_size=2, chunk_size=5)) == [i * i for i in range(7)]


def test_options_of_wait_are_passed_on(gate):
    slow = gate("slow")
    results = as_completed([after.remote(slow, 1)], chunk_size=1, timeout=0.05)
    slow.open()
    assert next(results) == 1


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_the_chunk_size_is_checked(chunk_size):
    with pytest.raises(ValueError, match="chunk_size"):
        list(as_completed([square.remote(1)], chunk_size=chunk_size))
    with pytest.raises(ValueError, match="chunk_size"):
        list(map_unordered(square, [1], chunk_size=chunk_size))


def test_the_limit_is_checked():
    with pytest.raises(ValueError, match="backpressure_size"):
        list(map_unordered(square, [1], backpressure_size=0))


def test_num_returns_is_no_option():
    with pytest.raises(ValueError, match="chunk_size"):
        list(as_completed([square.remote(1)], num_returns=1))
    with pytest.raises(ValueError, match="chunk_size"):
        list(map_unordered(square, [1], num_returns=1))

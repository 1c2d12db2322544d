"""`init(local_mode=True)`: everything inline, in the driver's own process, with the same semantics."""

from __future__ import annotations

import os

import numpy as np
import pytest
from helpers import family

import mltoolkit as ray
from mltoolkit.exceptions import ActorDiedError, RayTaskError


@pytest.fixture
def local(fresh):
    ray.init(num_cpus=2, local_mode=True)
    return ray


@ray.remote
def double(x):
    return 2 * x


@ray.remote
class Counter:
    def __init__(self, n=0):
        self.n = n

    def add(self, x=1):
        self.n += x
        return self.n

    def pid(self):
        return os.getpid()


def test_everything_runs_in_the_driver(local):
    before = {p.pid for p in family()}

    @ray.remote
    def pid():
        return os.getpid()

    assert ray.get([pid.remote(), Counter.remote().pid.remote()]) == [os.getpid()] * 2
    assert not [p for p in family() if p.pid not in before]


def test_values_and_refs(local):
    @ray.remote
    def look(direct, nested):
        return direct, isinstance(nested[0], ray.ObjectRef), ray.get(nested[0])

    ref = double.remote(2)
    assert isinstance(ref, ray.ObjectRef)
    assert ray.get(look.remote(ref, [ref])) == (4, True, 4)
    assert ray.get([ray.put(1), double.remote(double.remote(1))]) == [1, 4]
    assert ray.wait([ref], timeout=0) == ([ref], [])
    with pytest.raises(TypeError):
        ray.put(ref)


def test_arguments_are_copies_here_too(local):
    @ray.remote
    def grow(items):
        items.append(1)
        return len(items)

    items = [0]
    assert ray.get(grow.remote(items)) == 2
    assert items == [0]
    array = np.ones(1 << 17)
    ref = ray.put(array)
    array[:] = 2
    assert ray.get(ref)[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        ray.get(ref)[0] = 3


def test_errors_are_the_same(local):
    @ray.remote
    def fail():
        return 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        ray.get(fail.remote())
    assert isinstance(caught.value, RayTaskError)
    with pytest.raises(ZeroDivisionError):
        ray.get(double.remote(fail.remote()))
    with pytest.raises(TypeError):
        double(1)
    with pytest.raises(TypeError):
        double.remote()


def test_actors(local):
    @ray.remote
    class Broken:
        def __init__(self):
            raise ValueError("constructor")

        def ping(self):
            return 1

    counter = Counter.options(name="local").remote(5)
    assert ray.get([counter.add.remote() for _ in range(3)]) == [6, 7, 8]
    assert ray.get(ray.get_actor("local").add.remote()) == 9
    with pytest.raises(ActorDiedError, match="constructor"):
        ray.get(Broken.remote().ping.remote())
    ray.kill(counter)
    with pytest.raises(ActorDiedError):
        ray.get(counter.add.remote())
    with pytest.raises(ValueError):
        ray.get_actor("local")


def test_async_actors_generators_and_several_returns(local):
    @ray.remote
    class A:
        async def work(self, x):
            return await double.remote(x)

    @ray.remote
    def items(n):
        yield from range(n)

    @ray.remote(num_returns=2)
    def pair():
        return 1, 2

    assert ray.get(A.remote().work.remote(4)) == 8
    assert [ray.get(r) for r in items.remote(3)] == [0, 1, 2]
    assert ray.get(pair.remote()) == [1, 2]


def test_nested_tasks_and_context(local):
    @ray.remote
    def outer():
        counter = Counter.remote()
        return ray.get(double.remote(ray.get(counter.add.remote(5))))

    assert ray.get(outer.remote()) == 10
    assert ray.cluster_resources()["CPU"] == 2
    assert ray.get_runtime_context().get_node_id()


def test_debugger_sees_the_frames_of_the_driver(local):
    import sys

    @ray.remote
    def look():
        names, frame = [], sys._getframe()
        while frame:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return names

    assert "test_debugger_sees_the_frames_of_the_driver" in ray.get(look.remote())

"""Concurrency groups: limits, threads and order of their own."""

from __future__ import annotations

import asyncio
import threading

import pytest
from helpers import wait_until

import mltoolkit as ray

pytestmark = pytest.mark.usefixtures("runtime")


@ray.remote(concurrency_groups={"io": 2, "compute": 1})
class Threaded:
    def __init__(self):
        self.local = threading.local()

    @ray.method(concurrency_group="io")
    def io(self, running=None, go=None):
        if running:
            running.add()
            go.wait()
        return threading.get_ident()

    @ray.method(concurrency_group="compute")
    def compute(self, running=None, go=None):
        if running:
            running.add()
            go.wait()
        return threading.get_ident()

    def default(self, running=None, go=None):
        if running:
            running.add()
            go.wait()
        return threading.get_ident()

    @ray.method(concurrency_group="compute")
    def remember(self, value=None):
        if value is not None:
            self.local.value = value
        return getattr(self.local, "value", None)


@ray.remote(concurrency_groups={"io": 2, "compute": 4})
class Looped:
    @ray.method(concurrency_group="io")
    async def io(self, running=None, go=None):
        if running:
            running.add()
            await go.wait_async()
        return "io"

    @ray.method(concurrency_group="compute")
    async def compute(self):
        return "compute"

    async def default(self):
        return "default"


@pytest.mark.parametrize("kind", [Threaded, Looped], ids=["threads", "loops"])
def test_blocked_group_blocks_no_other_and_keeps_its_limit(kind, gate, tally):
    go, running = gate("go"), tally()
    actor = kind.remote()
    held = [actor.io.remote(running, go) for _ in range(3)]
    wait_until(lambda: running.count() == 2)
    ray.get([actor.compute.remote(), actor.default.remote()], timeout=20)
    assert ray.wait(held, timeout=0.2)[0] == []
    assert running.count() == 2
    go.open()
    ray.get(held, timeout=20)
    assert running.count() == 3


def test_blocked_default_group_blocks_no_other(gate, tally):
    go, running = gate("go"), tally()
    actor = Threaded.remote()
    held = [actor.default.remote(running, go) for _ in range(2)]
    wait_until(running.count)
    ray.get([actor.io.remote(), actor.compute.remote()], timeout=20)
    assert running.count() == 1, "the default group runs one call at a time"
    go.open()
    ray.get(held, timeout=20)


def test_group_by_options(gate, tally):
    go, running = gate("go"), tally()
    actor = Threaded.remote()
    held = actor.compute.remote(running, go)
    wait_until(running.count)
    ray.get(actor.compute.options(concurrency_group="io").remote(), timeout=20)
    queued = actor.default.options(concurrency_group="compute").remote()
    assert ray.wait([queued], timeout=0.2)[0] == []
    go.open()
    ray.get([held, queued], timeout=20)


def test_threads_of_a_group_are_its_own_and_persist():
    actor = Threaded.remote()
    compute = set(ray.get([actor.compute.remote() for _ in range(10)], timeout=20))
    io = set(ray.get([actor.io.remote() for _ in range(10)], timeout=20))
    assert len(compute) == 1
    assert len(io) <= 2
    assert not compute & io
    ray.get(actor.remember.remote("kept"), timeout=20)
    ray.get([actor.io.remote() for _ in range(5)], timeout=20)
    assert ray.get(actor.remember.remote(), timeout=20) == "kept"


def test_order_holds_within_a_group_of_one():
    @ray.remote(concurrency_groups={"one": 1})
    class A:
        def __init__(self):
            self.items = []

        @ray.method(concurrency_group="one")
        def add(self, x):
            self.items.append(x)
            return len(self.items)

    a = A.remote()
    assert ray.get([a.add.remote(i) for i in range(100)], timeout=20) == list(range(1, 101))


def test_unknown_group_is_an_error():
    actor = Threaded.remote()
    with pytest.raises((ValueError, ray.exceptions.RayError), match="unknown"):
        ray.get(actor.default.options(concurrency_group="unknown").remote(), timeout=20)


def test_async_groups_share_state_safely():
    @ray.remote(concurrency_groups={"a": 10, "b": 10})
    class A:
        def __init__(self):
            self.seen = set()

        @ray.method(concurrency_group="a")
        async def one(self):
            await asyncio.sleep(0)
            self.seen.add("a")

        @ray.method(concurrency_group="b")
        async def two(self):
            await asyncio.sleep(0)
            self.seen.add("b")

        async def read(self):
            return sorted(self.seen)

    a = A.remote()
    ray.get([a.one.remote(), a.two.remote()], timeout=20)
    assert ray.get(a.read.remote(), timeout=20) == ["a", "b"]

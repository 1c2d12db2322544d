"""Async actors: one loop, one thread, many calls at a time."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from helpers import wait_until

import mltoolkit as ray

pytestmark = pytest.mark.usefixtures("runtime")


@ray.remote
class Signal:
    """An event shared through an actor, the usual way to hold up tasks."""

    def __init__(self):
        self.event = asyncio.Event()
        self.waiting = 0
        self.most = 0

    async def wait(self):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.event.wait()
        self.waiting -= 1
        return threading.get_ident()

    def send(self):
        self.event.set()

    async def counts(self):
        return self.waiting, self.most

    def threads(self):
        return threading.active_count()

    async def ident(self):
        return threading.get_ident()

    def sync_ident(self):
        return threading.get_ident()


def test_coroutines_run_side_by_side_on_one_thread():
    signal = Signal.remote()
    refs = [signal.wait.remote() for _ in range(100)]
    wait_until(lambda: ray.get(signal.counts.remote()) == (100, 100), 20)
    signal.send.remote()
    idents = ray.get([*refs, signal.ident.remote(), signal.sync_ident.remote()], timeout=20)
    assert len(set(idents)) == 1


@pytest.mark.slow
def test_two_thousand_calls_without_two_thousand_threads():
    signal = Signal.options(max_concurrency=3000).remote()
    ray.get(signal.counts.remote())
    refs = [signal.wait.remote() for _ in range(2000)]
    wait_until(lambda: ray.get(signal.counts.remote())[0] == 2000, 60)
    assert ray.get(signal.threads.remote()) < 100
    signal.send.remote()
    assert len(set(ray.get(refs, timeout=60))) == 1


def test_default_max_concurrency_is_a_thousand():
    signal = Signal.remote()
    refs = [signal.wait.remote() for _ in range(999)]
    wait_until(lambda: ray.get(signal.counts.remote(), timeout=30)[0] == 999, 60)
    signal.send.remote()
    ray.get(refs, timeout=60)


def test_max_concurrency_limits_coroutines(tally, gate):
    go, running = gate("go"), tally()

    @ray.remote(max_concurrency=2)
    class A:
        async def work(self):
            running.add()
            return await go.wait_async()

    a = A.remote()
    refs = [a.work.remote() for _ in range(4)]
    wait_until(lambda: running.count() == 2)
    assert ray.wait(refs, timeout=0.2)[0] == []
    assert running.count() == 2
    go.open()
    assert all(ray.get(refs, timeout=20))


def test_refs_are_awaited_inside():
    @ray.remote
    def double(x):
        return 2 * x

    @ray.remote
    def fail():
        raise KeyError("inside")

    @ray.remote
    class A:
        async def total(self, refs):
            return sum(await asyncio.gather(*refs)) + await double.remote(1)

        async def catch(self):
            try:
                await fail.remote()
            except KeyError:
                return "caught"

    a = A.remote()
    assert ray.get(a.total.remote([double.remote(i) for i in range(5)]), timeout=30) == 22
    assert ray.get(a.catch.remote(), timeout=30) == "caught"


def test_async_actor_calls_other_actors_and_itself():
    @ray.remote
    class Ping:
        def __init__(self, other=None):
            self.other = other

        async def ask(self, depth):
            if depth == 0:
                return 0
            me = ray.get_runtime_context().current_actor
            target = self.other or me
            return 1 + await target.ask.remote(depth - 1)

    assert ray.get(Ping.remote(Ping.remote()).ask.remote(5), timeout=30) == 5


def test_sync_methods_of_async_actors_run_one_at_a_time(tally):
    @ray.remote
    class A:
        def __init__(self):
            self.inside = 0
            self.most = 0

        async def none(self):
            return None

        def work(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            os.sched_yield()
            self.inside -= 1
            return self.most

    a = A.remote()
    assert set(ray.get([a.work.remote() for _ in range(50)])) == {1}


def test_exceptions_of_coroutines_arrive_and_the_actor_lives():
    @ray.remote
    class A:
        async def fail(self):
            await asyncio.sleep(0)
            raise ValueError("async")

        async def ping(self):
            return "up"

    a = A.remote()
    with pytest.raises(ValueError, match="async") as caught:
        ray.get(a.fail.remote(), timeout=20)
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert ray.get(a.ping.remote(), timeout=20) == "up"


def test_constructor_may_use_the_loop():
    @ray.remote
    class A:
        def __init__(self):
            self.lock = asyncio.Lock()
            self.queue = asyncio.Queue()

        async def put(self, x):
            async with self.lock:
                await self.queue.put(x)

        async def take(self):
            return await self.queue.get()

    a = A.remote()
    taken = a.take.remote()
    a.put.remote("item")
    assert ray.get(taken, timeout=20) == "item"


def test_background_tasks_of_an_actor_go_on_between_calls():
    @ray.remote
    class Ticker:
        def __init__(self):
            self.ticks = 0

        async def start(self):
            self.task = asyncio.get_running_loop().create_task(self.tick())

        async def tick(self):
            while True:
                self.ticks += 1
                await asyncio.sleep(0.001)

        async def read(self):
            return self.ticks

    ticker = Ticker.remote()
    ray.get(ticker.start.remote())
    wait_until(lambda: ray.get(ticker.read.remote()) > 5)


def test_blocking_get_inside_warns(tmp_path):
    @ray.remote
    def one():
        return 1

    @ray.remote
    class A:
        async def block(self):
            import logging
            import warnings

            records = []

            class Keep(logging.Handler):
                def emit(self, record):
                    records.append(record.getMessage())

            names = [n for n in ("mltoolkit", "ray") if n in logging.root.manager.loggerDict] + [None]
            handler = Keep()
            for name in names:
                logging.getLogger(name).addHandler(handler)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                value = ray.get(one.remote())
            return value, " ".join(records + [str(w.message) for w in caught])

    value, text = ray.get(A.remote().block.remote(), timeout=30)
    assert value == 1
    assert "get" in text
    assert "await" in text or "async" in text


def test_sync_and_async_callers_share_an_actor():
    @ray.remote
    class Counter:
        def __init__(self):
            self.n = 0

        async def add(self):
            self.n += 1
            return self.n

    counter = Counter.remote()

    async def main():
        return await asyncio.gather(*[counter.add.remote() for _ in range(50)])

    assert sorted(asyncio.run(main())) == list(range(1, 51))
    assert ray.get(counter.add.remote()) == 51

"""Generators: refs stream to the caller while the task still runs."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
import pytest
from helpers import wait_until

import mltoolkit as ray

pytestmark = pytest.mark.usefixtures("runtime")


@ray.remote(num_returns="streaming")
def count(n):
    yield from range(n)


def test_generator_gives_refs_in_order():
    stream = count.remote(5)
    assert isinstance(stream, ray.ObjectRefGenerator)
    refs = list(stream)
    assert all(isinstance(r, ray.ObjectRef) for r in refs)
    assert ray.get(refs) == list(range(5))
    with pytest.raises(StopIteration):
        next(stream)


def test_generator_functions_stream_by_default():
    @ray.remote
    def items():
        yield "a"
        yield "b"

    assert [ray.get(r) for r in items.remote()] == ["a", "b"]


def test_empty_generator():
    assert list(count.remote(0)) == []


def test_item_is_usable_before_the_task_ends(gate):
    go = gate("go")

    @ray.remote
    def items():
        yield 1
        go.wait()
        yield 2

    stream = items.remote()
    assert ray.get(next(stream), timeout=20) == 1
    assert not go.is_open()
    go.open()
    assert ray.get(next(stream), timeout=20) == 2


def test_exception_in_the_middle_surfaces_at_its_element():
    @ray.remote(max_retries=0)
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    refs = list(items.remote())
    assert len(refs) == 3
    assert ray.get(refs[:2]) == [1, 2]
    with pytest.raises(ValueError, match="third"):
        ray.get(refs[2])


def test_crash_in_the_middle_keeps_the_items_before_it(gate):
    import os

    go = gate("go")

    @ray.remote(max_retries=0)
    def items():
        yield "kept"
        go.wait()
        os._exit(3)
        yield "never"

    stream = items.remote()
    first = next(stream)
    assert ray.get(first, timeout=20) == "kept"
    go.open()
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        for ref in stream:
            ray.get(ref, timeout=20)
    assert ray.get(first) == "kept"


def test_items_can_be_arguments_of_other_tasks():
    @ray.remote
    def total(array):
        return float(array.sum())

    @ray.remote
    def arrays():
        for i in range(4):
            yield np.full(200_000, i)

    assert ray.get([total.remote(r) for r in arrays.remote()]) == [0, 2e5, 4e5, 6e5]


def test_async_iteration():
    async def main():
        return [await ref async for ref in count.remote(4)]

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_two_generators_in_one_event_loop(gate):
    go = gate("go")

    @ray.remote
    def held():
        go.wait()
        yield "late"

    async def take(stream):
        return [await ref async for ref in stream]

    async def main():
        late = asyncio.ensure_future(take(held.remote()))
        early = await asyncio.wait_for(take(count.remote(3)), 20)
        go.open()
        return early, await asyncio.wait_for(late, 20)

    assert asyncio.run(main()) == ([0, 1, 2], ["late"])


def test_wait_takes_generators():
    stream = count.remote(2)
    ready, rest = ray.wait([stream], timeout=20)
    assert ready == [stream]
    assert rest == []
    assert ray.get(next(stream)) == 0


def test_actor_methods_stream():
    @ray.remote
    class A:
        def sync_items(self, n):
            yield from range(n)

        @ray.method(num_returns="streaming")
        def marked(self):
            yield "marked"

        def plain(self):
            return "plain"

    a = A.remote()
    assert [ray.get(r) for r in a.sync_items.remote(3)] == [0, 1, 2]
    assert [ray.get(r) for r in a.sync_items.options(num_returns="streaming").remote(2)] == [0, 1]
    assert [ray.get(r) for r in a.marked.remote()] == ["marked"]
    assert ray.get(a.plain.remote()) == "plain"


def test_async_generators_of_actors_stream():
    @ray.remote
    class A:
        async def items(self, n):
            for i in range(n):
                await asyncio.sleep(0)
                yield i

        async def fail(self):
            yield 1
            raise KeyError("second")

    a = A.remote()
    assert [ray.get(r) for r in a.items.remote(3)] == [0, 1, 2]
    refs = list(a.fail.remote())
    assert ray.get(refs[0]) == 1
    with pytest.raises(KeyError):
        ray.get(refs[1])


def test_backpressure_holds_the_producer(tally):
    made = tally()

    @ray.remote(_generator_backpressure_num_objects=2)
    def items():
        for i in range(10):
            made.add(i)
            yield i

    stream = items.remote()
    got = [ray.get(next(stream))]
    wait_until(lambda: made.count() >= 2)
    assert ray.wait([count.remote(1)], timeout=20)[0], "a second task gives the producer time to run ahead"
    assert made.count() <= 1 + 2 + 1
    got += [ray.get(r) for r in stream]
    assert got == list(range(10))


def test_dropping_the_generator_cancels_the_task(tally):
    state = tally("state")

    @ray.remote(_generator_backpressure_num_objects=1)
    def items():
        try:
            for i in range(1000):
                state.add(i)
                yield i
        finally:
            state.add("ended")

    stream = items.remote()
    assert ray.get(next(stream)) == 0
    del stream
    gc.collect()
    wait_until(lambda: "ended" in state.words() or ray.available_resources().get("CPU") == 4, 20)
    assert state.count() < 100


def test_cancel_of_a_generator(gate):
    go = gate("go")

    @ray.remote(max_retries=0)
    def items():
        yield 1
        go.wait()
        yield 2

    stream = items.remote()
    assert ray.get(next(stream), timeout=20) == 1
    ray.cancel(stream)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        for ref in stream:
            ray.get(ref, timeout=20)


def test_streaming_of_something_that_is_no_generator_is_an_error_at_remote():
    @ray.remote
    def plain():
        return [1, 2]

    with pytest.raises((ValueError, TypeError), match="generator"):
        plain.options(num_returns="streaming").remote()


def test_dynamic_generator_is_a_ref_to_a_generator_of_refs():
    @ray.remote(num_returns="dynamic")
    def items(n):
        for i in range(n):
            yield np.full(100, i)

    @ray.remote
    def total(generator):
        return sum(float(ray.get(ref).sum()) for ref in generator)

    ref = items.remote(3)
    assert isinstance(ref, ray.ObjectRef)
    assert [int(ray.get(r)[0]) for r in ray.get(ref)] == [0, 1, 2]
    assert ray.get(total.remote(ref)) == 300


def test_generator_is_consumed_inside_a_task():
    @ray.remote
    def consume(n):
        return [ray.get(r) for r in count.remote(n)]

    assert ray.get(consume.remote(4)) == [0, 1, 2, 3]


def test_yielded_refs_stay_readable_after_the_generator_is_gone():
    stream = count.remote(3)
    refs = list(stream)
    del stream
    gc.collect()
    assert ray.get(refs) == [0, 1, 2]


def test_completed_is_a_ref_that_tells_the_end():
    stream = count.remote(3)
    ray.get(stream.completed(), timeout=20)
    assert len(list(stream)) == 3

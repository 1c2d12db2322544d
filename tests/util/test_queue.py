"""Queue: the semantics of queue.Queue across processes, batches, coroutines, ending."""

from __future__ import annotations

import asyncio
import pickle
import queue
import time

import helpers
import pytest

import mltoolkit as ray
from mltoolkit.util.queue import Empty, Full, Queue


@pytest.fixture(autouse=True)
def _runtime(runtime):
    """Every test here needs the runtime."""


@ray.remote(num_cpus=0.1)
def take(q, count, **kwargs):
    return [q.get(**kwargs) for _ in range(count)]


@ray.remote(num_cpus=0.1)
def give(q, items, **kwargs):
    for item in items:
        q.put(item, **kwargs)


def test_first_in_first_out():
    q = Queue()
    for i in range(5):
        q.put(i)
    assert q.size() == q.qsize() == len(q) == 5
    assert [q.get() for _ in range(5)] == list(range(5))
    assert q.empty()


def test_errors_are_those_of_the_standard_library():
    assert issubclass(Empty, queue.Empty)
    assert issubclass(Full, queue.Full)
    q = Queue(maxsize=1)
    with pytest.raises(queue.Empty):
        q.get_nowait()
    q.put_nowait(1)
    with pytest.raises(queue.Full):
        q.put_nowait(2)


@pytest.mark.parametrize("kwargs", [{"block": False}, {"timeout": 0}, {"timeout": 0.05}])
def test_empty_and_full(kwargs):
    q = Queue(maxsize=1)
    with pytest.raises(Empty):
        q.get(**kwargs)
    q.put("x", **kwargs)
    assert q.full()
    with pytest.raises(Full):
        q.put("y", **kwargs)
    assert q.get(**kwargs) == "x"


def test_a_timeout_is_kept():
    q = Queue()
    q.size()
    start = time.monotonic()
    with pytest.raises(Empty):
        q.get(timeout=0.2)
    assert 0.2 <= time.monotonic() - start < 5


@pytest.mark.parametrize("method", ["get", "put"])
def test_a_negative_timeout_is_refused(method):
    q = Queue()
    with pytest.raises(ValueError, match="timeout"):
        getattr(q, method)(*([1] if method == "put" else []), timeout=-1)


def test_no_limit():
    q = Queue(maxsize=0)
    q.put_nowait_batch(range(10_000))
    assert not q.full()
    assert q.size() == 10_000


def test_get_blocks_until_a_task_puts():
    q = Queue()
    taken = take.remote(q, 2)
    assert ray.wait([taken], timeout=0.2)[0] == []
    q.put("a")
    q.put("b")
    assert ray.get(taken) == ["a", "b"]


def test_put_blocks_until_there_is_room():
    q = Queue(maxsize=1)
    given = give.remote(q, ["a", "b"])
    assert ray.wait([given], timeout=0.5)[0] == []
    assert q.get() == "a"
    ray.get(given)
    assert q.get() == "b"


def test_many_producers_and_consumers_lose_nothing():
    q = Queue(maxsize=5)
    givers = [give.remote(q, range(100 * i, 100 * i + 50)) for i in range(4)]
    takers = [take.remote(q, 100) for _ in range(2)]
    ray.get(givers)
    taken = [x for items in ray.get(takers) for x in items]
    assert sorted(taken) == [x for i in range(4) for x in range(100 * i, 100 * i + 50)]
    assert q.empty()


def test_many_waiting_consumers_do_not_keep_producers_out():
    q = Queue()
    waiting = [q.actor.get.remote(60) for _ in range(1100)]
    q.put_nowait_batch(range(1100))
    assert sorted(ray.get(waiting)) == list(range(1100))


def test_batches_are_all_or_nothing():
    q = Queue(maxsize=5)
    q.put_nowait_batch(i for i in range(3))
    with pytest.raises(Full, match="3 items do not fit"):
        q.put_nowait_batch([3, 4, 5])
    assert q.size() == 3
    with pytest.raises(Empty, match="4 items"):
        q.get_nowait_batch(4)
    assert q.get_nowait_batch(2) == [0, 1]
    assert q.get_nowait_batch(0) == []
    assert q.get_nowait_batch(1) == [2]


def test_batch_arguments_are_checked():
    q = Queue()
    with pytest.raises(TypeError, match="iterable"):
        q.put_nowait_batch(1)
    with pytest.raises(TypeError, match="int"):
        q.get_nowait_batch("2")
    with pytest.raises(ValueError, match=">= 0"):
        q.get_nowait_batch(-1)


def test_coroutines():
    async def main():
        q = Queue(maxsize=1)
        getting = asyncio.ensure_future(q.get_async())
        await q.put_async(1)
        assert await getting == 1
        with pytest.raises(Empty):
            await q.get_async(block=False)
        with pytest.raises(Empty):
            await q.get_async(timeout=0.01)
        await q.put_async(2, block=False)
        with pytest.raises(Full):
            await q.put_async(3, block=False)
        with pytest.raises(Full):
            await q.put_async(3, timeout=0.01)
        with pytest.raises(ValueError, match="timeout"):
            await q.put_async(3, timeout=-1)
        with pytest.raises(ValueError, match="timeout"):
            await q.get_async(timeout=-1)
        return await q.get_async()

    assert asyncio.run(main()) == 2


def test_a_cancelled_coroutine_takes_no_item():
    async def main():
        q = Queue()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(q.get_async(), 0.2)
        return q

    q = asyncio.run(main())

    # Cancelling reaches the actor a moment later.
    def survives():
        q.put("item")
        try:
            return q.get(timeout=0.2) == "item"
        except Empty:
            return False

    helpers.wait_until(survives, 10, "the abandoned call ends")


def test_it_passes_through_tasks_and_actors():
    @ray.remote(num_cpus=0)
    class Consumer:
        def __init__(self, q):
            self.q = q

        def next(self):
            return self.q.get(timeout=30)

    q = Queue()
    consumer = Consumer.remote(q)
    ray.get(give.remote(q, [{"a": 1}]))
    assert ray.get(consumer.next.remote()) == {"a": 1}


def test_refs_inside_items_stay_refs():
    q = Queue()
    ref = ray.put("value")
    q.put([ref])
    del ref
    [inside] = q.get()
    assert ray.get(inside) == "value"


def test_an_item_that_cannot_be_pickled_is_an_error_and_harmless():
    import threading

    q = Queue()
    with pytest.raises(TypeError, match="pickle"):
        q.put(threading.Lock())
    q.put(1)
    assert q.get() == 1


def test_actor_options():
    name = "a-queue-with-a-name"
    q = Queue(actor_options={"name": name, "num_cpus": 0})
    q.put(1)
    assert ray.get(ray.get_actor(name).qsize.remote()) == 1


@pytest.mark.parametrize("force", [False, True])
def test_shutdown_ends_the_actor(force):
    q = Queue()
    q.put(1)
    actor = q.actor
    q.shutdown(force=force)
    assert q.actor is None
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.qsize.remote())
    with pytest.raises(RuntimeError, match="shut down"):
        q.get(timeout=1)
    q.shutdown()


def test_a_waiting_consumer_learns_of_the_end():
    q = Queue()
    taken = take.remote(q, 1)
    assert ray.wait([taken], timeout=0.5)[0] == []
    q.shutdown(force=True)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(taken, timeout=30)


def test_a_copy_keeps_the_actor():
    q = Queue()
    q.put(1)
    copy = pickle.loads(ray.cloudpickle.dumps(q)) if hasattr(ray, "cloudpickle") else pickle.loads(pickle.dumps(q))
    del q
    assert copy.get(timeout=10) == 1

"""The measurements of core.py for plain Dask and for loky, as far as they have the same thing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from _harness import SEED, Recorder
from _runtimes import DaskRuntime, LokyRuntime, cpu_count, noop

if TYPE_CHECKING:
    from core import Sizes


class DaskCounter:
    """The same as core.Counter; Dask keeps it on a worker, beside tasks."""

    def __init__(self) -> None:
        self.calls = 0

    def add(self) -> int:
        """Count one call and return how many there were."""
        self.calls += 1
        return self.calls


def last_item_of(array: np.ndarray, index: int) -> float:
    """Touch an array; `index` keeps Dask from merging calls that look alike."""
    return float(array[-1])


def new_array(items: int) -> np.ndarray:
    """Return a new array of this many float64."""
    return np.full(items, 1.5)


def _latencies(call: Callable[[], Any], count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def measure_dask(sizes: Sizes, record: Recorder) -> None:
    """Measure a local cluster with one process per CPU."""
    runtime = DaskRuntime()
    runtime.load()
    runtime.init()
    try:
        _dask_tasks(runtime.client, sizes, record)
        _dask_actors(runtime.client, sizes, record)
        _dask_objects(runtime.client, sizes, record)
    finally:
        runtime.close()


def _dask_tasks(client: Any, sizes: Sizes, record: Recorder) -> None:
    client.gather([client.submit(noop, pure=False) for _ in range(10 * cpu_count())])
    sync = _latencies(lambda: client.submit(noop, pure=False).result(), min(sizes.sync_calls, 300))
    record.add_latencies("task_sync", sync)
    for _ in range(sizes.repeats):
        with record.rate("task_burst_2000", sizes.burst):
            client.gather([client.submit(noop, pure=False) for _ in range(sizes.burst)])
    with record.rate("task_burst_10000", sizes.large_burst):
        client.gather([client.submit(noop, pure=False) for _ in range(sizes.large_burst)])


def _dask_actors(client: Any, sizes: Sizes, record: Recorder) -> None:
    for _ in range(sizes.single_actors):
        with record.duration("actor_create", scale=1e3):
            counter = client.submit(DaskCounter, actor=True, pure=False).result()
            counter.add().result()
    with record.duration("actor_create_50", scale=1e3 / sizes.actors_at_once):
        futures = [client.submit(DaskCounter, actor=True, pure=False) for _ in range(sizes.actors_at_once)]
        actors = [future.result() for future in futures]
        for call in [actor.add() for actor in actors]:
            call.result()
    record.add_latencies("actor_sync", _latencies(lambda: counter.add().result(), min(sizes.actor_calls, 500)))
    with record.rate("actor_async_5000", sizes.actor_burst):
        for call in [counter.add() for _ in range(sizes.actor_burst)]:
            call.result()


def _dask_objects(client: Any, sizes: Sizes, record: Recorder) -> None:
    count = min(sizes.small_objects, 100)  # some 10 ms each
    values = [{"index": number, "name": "small"} for number in range(count)]
    with record.rate("put_small", count):
        # A list keeps the dictionary whole: a bare one would be scattered item by item.
        futures = [client.scatter([value], hash=False)[0] for value in values]
    with record.rate("get_small", count):
        for future in futures:
            future.result()
    array = np.random.default_rng(SEED).random(sizes.array_items)
    for number in range(sizes.array_rounds):
        with record.duration("put_50mb" if number else "put_50mb_first", scale=1e3):
            future = client.scatter(array, hash=False)
        if number:
            with record.duration("get_50mb", scale=1e3):
                future.result()
        del future
        with record.duration("return_50mb", scale=1e3):
            client.submit(new_array, sizes.array_items, pure=False).result()
    for _ in range(sizes.repeats):
        future = client.scatter(array, hash=False)
        with record.duration("pass_50mb_50_tasks", scale=1e3):
            tasks = [client.submit(last_item_of, future, index, pure=False) for index in range(sizes.array_tasks)]
            client.gather(tasks)
        del future


def measure_loky(sizes: Sizes, record: Recorder) -> None:
    """Measure joblib's executor, which has tasks alone."""
    runtime = LokyRuntime()
    runtime.load()
    runtime.init()
    try:
        runtime.two_workers()
        executor = runtime.executor
        record.add_latencies("task_sync", _latencies(lambda: executor.submit(noop).result(), sizes.sync_calls))
        bursts = [("task_burst_2000", sizes.burst)] * sizes.repeats
        bursts.append(("task_burst_10000", sizes.large_burst))
        for name, count in bursts:
            with record.rate(name, count):
                for future in [executor.submit(noop) for _ in range(count)]:
                    future.result()
        for _ in range(sizes.array_rounds):
            with record.duration("return_50mb", scale=1e3):
                executor.submit(new_array, sizes.array_items).result()
    finally:
        runtime.close()

"""What do a task, an actor, an actor call and an object cost, and how does the cost behave in bursts?

One program text for mltoolkit and Ray, whose facades have the same names; `_core_peers.py` has the same measurements
for plain Dask and loky, as far as they can do the same thing. Everything runs in one session, after a warm-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from _core_peers import measure_dask, measure_loky
from _harness import SEED, Recorder, parser, seed_everything
from _runtimes import cpu_count, init_facade, load_facade, noop

RUNTIMES = ("mltoolkit", "ray", "dask", "loky")


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    sync_calls: int = 1000
    burst: int = 2000
    large_burst: int = 10_000
    actor_calls: int = 2000
    actor_burst: int = 5000
    single_actors: int = 5
    actors_at_once: int = 50
    small_objects: int = 1000
    array_items: int = 6_250_000  # 50 MB of float64
    array_rounds: int = 8
    array_tasks: int = 50
    repeats: int = 3


SMOKE = Sizes(
    sync_calls=10,
    burst=20,
    large_burst=40,
    actor_calls=10,
    actor_burst=20,
    single_actors=1,
    actors_at_once=3,
    small_objects=10,
    array_items=62_500,
    array_rounds=2,
    array_tasks=4,
    repeats=1,
)


class Counter:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def add(self) -> int:
        """Count one call and return how many there were."""
        self.calls += 1
        return self.calls


def last_item(array: np.ndarray) -> float:
    """Touch an array without reading all of it."""
    return float(array[-1])


def make_array(items: int) -> np.ndarray:
    """Return a new array of this many float64."""
    return np.full(items, 1.5)


def call_latencies(call: Callable[[], Any], count: int) -> list[float]:
    """Call `count` times, one after the other; return the seconds that each took."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def measure_tasks(ray: Any, sizes: Sizes, record: Recorder) -> None:
    """No-op tasks: one after the other, and in bursts."""
    task = ray.remote(noop)
    ray.get([task.remote() for _ in range(10 * cpu_count())])
    record.add_latencies("task_sync", call_latencies(lambda: ray.get(task.remote()), sizes.sync_calls))
    for _ in range(sizes.repeats):
        with record.rate("task_burst_2000", sizes.burst):
            results = ray.get([task.remote() for _ in range(sizes.burst)])
        check(results == [1] * sizes.burst, "a burst of tasks returned something else")
    with record.rate("task_burst_10000", sizes.large_burst):
        results = ray.get([task.remote() for _ in range(sizes.large_burst)])
    check(results == [1] * sizes.large_burst, "a burst of tasks returned something else")


def measure_actor_calls(ray: Any, sizes: Sizes, record: Recorder) -> None:
    """Calls of one actor: one after the other, and in a burst."""
    counter = ray.remote(Counter).remote()
    ray.get([counter.add.remote() for _ in range(20)])
    record.add_latencies("actor_sync", call_latencies(lambda: ray.get(counter.add.remote()), sizes.actor_calls))
    for _ in range(sizes.repeats):
        before = ray.get(counter.add.remote())
        with record.rate("actor_async_5000", sizes.actor_burst):
            results = ray.get([counter.add.remote() for _ in range(sizes.actor_burst)])
        check(results == list(range(before + 1, before + 1 + sizes.actor_burst)), "actor calls ran out of order")


def measure_actor_creation(ray: Any, sizes: Sizes, record: Recorder) -> None:
    """From `.remote()` to the first answer of a new actor."""
    actor_class = ray.remote(Counter)
    first = actor_class.remote()
    ray.get(first.add.remote())
    ray.kill(first)
    for _ in range(sizes.single_actors):
        with record.duration("actor_create", scale=1e3):
            actor = actor_class.remote()
            ray.get(actor.add.remote())
        ray.kill(actor)
    with record.duration("actor_create_50", scale=1e3 / sizes.actors_at_once):
        actors = [actor_class.remote() for _ in range(sizes.actors_at_once)]
        ray.get([actor.add.remote() for actor in actors])
    for actor in actors:
        ray.kill(actor)


def measure_small_objects(ray: Any, sizes: Sizes, record: Recorder) -> None:
    """Small dictionaries into the store, and each of them out again, one call an object."""
    ray.get([ray.put(number) for number in range(20)])
    for _ in range(sizes.repeats):
        values = [{"index": number, "name": "small"} for number in range(sizes.small_objects)]
        with record.rate("put_small", sizes.small_objects):
            refs = [ray.put(value) for value in values]
        with record.rate("get_small", sizes.small_objects):
            results = [ray.get(ref) for ref in refs]
        check(results == values, "small objects came back changed")
        del refs


def measure_arrays(ray: Any, sizes: Sizes, record: Recorder) -> None:
    """50 MB arrays: in, out, back from a task, and shared by many tasks."""
    array = np.random.default_rng(SEED).random(sizes.array_items)
    use, make = ray.remote(last_item), ray.remote(make_array)
    with record.duration("put_50mb_first", scale=1e3):
        ref = ray.put(array)
    del ref
    for _ in range(sizes.array_rounds):
        with record.duration("put_50mb", scale=1e3):
            ref = ray.put(array)
        with record.duration("get_50mb", scale=1e3):
            out = ray.get(ref)
        check(out.shape == array.shape and out[-1] == array[-1], "an array came back changed")
        del out, ref
    for _ in range(sizes.array_rounds):
        with record.duration("return_50mb", scale=1e3):
            out = ray.get(make.remote(sizes.array_items))
        del out
        ref = make.remote(sizes.array_items)
        ray.wait([ref])
        with record.duration("get_50mb_result", scale=1e3):
            out = ray.get(ref)
        check(out[-1] == 1.5, "a task's array came back changed")
        del out, ref
    for _ in range(sizes.repeats):
        ref = ray.put(array)
        with record.duration("pass_50mb_50_tasks", scale=1e3):
            results = ray.get([use.remote(ref) for _ in range(sizes.array_tasks)])
        check(results == [array[-1]] * sizes.array_tasks, "a task saw another array")
        del ref


def check(holds: bool, otherwise: str) -> None:
    """Refuse to report the time of a wrong result."""
    if not holds:
        raise RuntimeError(otherwise)


def measure_facade(runtime: str, sizes: Sizes, record: Recorder) -> None:
    """Measure mltoolkit or Ray."""
    ray = load_facade(runtime)
    init_facade(ray)
    try:
        for measure in (
            measure_tasks,
            measure_actor_calls,
            measure_actor_creation,
            measure_small_objects,
            measure_arrays,
        ):
            measure(ray, sizes, record)
    finally:
        ray.shutdown()


def main() -> None:
    """Run the program."""
    options = parser(__doc__, RUNTIMES).parse_args()
    seed_everything()
    record = Recorder(options.runtime)
    sizes = SMOKE if options.smoke else Sizes()
    if options.runtime == "dask":
        measure_dask(sizes, record)
    elif options.runtime == "loky":
        measure_loky(sizes, record)
    else:
        measure_facade(options.runtime, sizes, record)
    record.finish(options.out, (options.runtime, "distributed", "numpy", "joblib"))


if __name__ == "__main__":
    main()

"""Many of everything: sessions, tasks, actors, bytes; and nothing leaks."""

from __future__ import annotations

import gc
import os
import shutil
import threading

import numpy as np
import pytest
from helpers import family, run_script, segment_folder, stored_bytes, wait_until

import mltoolkit as ray

pytestmark = pytest.mark.hostile

needs_mltoolkit = pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray takes minutes")


# A program of its own: each session's fork server imports what the driver has, and a test run has imported a lot.
CYCLES = """
import gc, os, threading
import numpy as np
import psutil
import mltoolkit as ray

@ray.remote
def work(array):
    return float(array.sum())

@ray.remote
class A:
    def ping(self):
        return 1

def cycle():
    ray.init(num_cpus=1)
    ref = ray.put(np.ones(1 << 16))
    a = A.remote()
    assert ray.get([work.remote(ref), a.ping.remote()]) == [1 << 16, 1]
    ray.shutdown()

def held():
    gc.collect()
    me = psutil.Process()
    folders = [os.environ["MLTOOLKIT_TMPDIR"], os.environ["MLTOOLKIT_SHM_DIR"]]
    files = sum(len(names) for top in folders for _, _, names in os.walk(top))
    return me.num_fds(), threading.active_count(), len(me.children(recursive=True)), files, me.memory_info().rss

for _ in range(10):
    cycle()
before = held()
for _ in range(50):
    cycle()
after = held()
assert after[0] <= before[0] + 2, ("descriptors", before, after)
assert after[1] <= before[1], ("threads", before, after)
assert after[2:4] == (0, 0), ("processes, files", before, after)
assert after[4] - before[4] < 20 << 20, ("memory", before, after)
"""


@needs_mltoolkit
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_fifty_sessions_leak_nothing(tmp_path):
    (tmp_path / "t").mkdir()
    shm = segment_folder() / f"cycles-{os.getpid()}"
    shm.mkdir()
    try:
        env = {"MLTOOLKIT_TMPDIR": str(tmp_path / "t"), "MLTOOLKIT_SHM_DIR": str(shm)}
        run_script(CYCLES, tmp_path, env=env, timeout=180)
    finally:
        shutil.rmtree(shm)


@pytest.mark.slow
def test_ten_thousand_tasks(runtime):
    @ray.remote
    def inc(x):
        return x + 1

    refs = [inc.remote(i) for i in range(10_000)]
    assert ray.get(refs) == list(range(1, 10_001))


@pytest.mark.slow
def test_ten_thousand_calls_of_an_actor_in_order(runtime):
    @ray.remote
    class Counter:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    counter = Counter.remote()
    assert ray.get([counter.add.remote() for _ in range(10_000)]) == list(range(1, 10_001))


@pytest.mark.slow
def test_one_task_depends_on_a_thousand(runtime):
    @ray.remote
    def item(i):
        return i

    @ray.remote
    def total(*items):
        return sum(items)

    assert ray.get(total.remote(*[item.remote(i) for i in range(1000)])) == 499_500


@pytest.mark.slow
def test_wait_drains_a_thousand_tasks_one_by_one(runtime):
    @ray.remote
    def item(i):
        return i

    pending, seen = [item.remote(i) for i in range(1000)], set()
    while pending:
        ready, pending = ray.wait(pending)
        seen.add(ray.get(ready[0]))
    assert seen == set(range(1000))


@needs_mltoolkit
@pytest.mark.slow
def test_hundreds_of_actors_created_and_ended(runtime):
    @ray.remote
    class A:
        def __init__(self, i):
            self.i = i

        def read(self):
            return self.i, os.getpid()

    children = len(family())
    pids = set()
    for start in range(0, 300, 20):
        actors = [A.remote(start + i) for i in range(20)]
        for i, (value, pid) in enumerate(ray.get([a.read.remote() for a in actors], timeout=60)):
            assert value == start + i
            pids.add(pid)
        if start % 40:
            for actor in actors:
                ray.kill(actor)
        actors = actor = None
    assert len(pids) >= 270, "processes of dead actors were used again"
    wait_until(lambda: len(family()) <= children + 8, 20, "their processes end")


def test_fifty_actors_at_once_on_two_cpus(fresh):
    ray.init(num_cpus=2)

    @ray.remote
    class A:
        def __init__(self, i):
            self.i = i

        def add(self, x):
            self.i += x
            return self.i, os.getpid()

    actors = [A.remote(i) for i in range(50)]
    first = ray.get([a.add.remote(0) for a in actors], timeout=100)
    assert [i for i, _ in first] == list(range(50))
    assert len({pid for _, pid in first}) == 50
    for x in range(1, 4):
        ray.get([a.add.remote(x) for a in actors])
    assert [i for i, _ in ray.get([a.add.remote(0) for a in actors])] == [i + 6 for i in range(50)]


@pytest.mark.slow
def test_a_gigabyte_through_put_a_task_and_back(fresh):
    ray.init(num_cpus=2, object_store_memory=4 << 30)
    size = 1 << 30

    @ray.remote
    def negate(array):
        return ~array

    before = stored_bytes()
    array = np.zeros(size, dtype=np.uint8)
    array[-1] = 7
    ref = ray.put(array)
    back = ray.get(negate.remote(ref))
    assert back.nbytes == size
    assert (back[0], back[-1]) == (255, 248)
    del ref, back
    gc.collect()
    if ray.__name__ == "mltoolkit":
        wait_until(lambda: stored_bytes() <= before + (64 << 20), 10, "the gigabytes are given back")


@pytest.mark.parametrize("cpus", [1, 2])
def test_recursive_fibonacci(fresh, cpus):
    ray.init(num_cpus=cpus)

    @ray.remote
    def fib(n):
        if n < 2:
            return n
        return sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    n = 8 if ray.__name__ == "mltoolkit" else 4
    assert ray.get(fib.remote(n), timeout=100) == {8: 21, 4: 3}[n]


def test_big_arguments_and_closures_do_not_warn(tmp_path):
    done = run_script(
        """
        import numpy as np
        import mltoolkit as ray

        ray.init(num_cpus=2)
        big = np.ones(1 << 21)

        @ray.remote
        def closed():
            return float(big.sum())

        @ray.remote
        def taken(array):
            return float(array.sum())

        print(ray.get([closed.remote(), taken.remote(big), taken.remote(big)]))
        """,
        tmp_path,
    )
    assert done.stdout.split("\n")[-2] == str([float(1 << 21)] * 3)
    if ray.__name__ == "mltoolkit":
        assert done.stderr == ""


@needs_mltoolkit
def test_many_threads_of_the_driver_submit_at_once(runtime):
    @ray.remote
    def double(x):
        return 2 * x

    @ray.remote
    class Counter:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    counter, results, errors = Counter.remote(), [], []

    def work(k):
        try:
            refs = [double.remote(i) for i in range(50)] + [counter.add.remote() for _ in range(20)]
            values = ray.get(refs, timeout=60)
            assert values[:50] == [2 * i for i in range(50)]
            assert values[50:] == sorted(values[50:]), "calls of one thread ran out of order"
            results.append(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(90)
    assert errors == []
    assert sorted(results) == list(range(16))
    assert ray.get(counter.add.remote()) == 16 * 20 + 1

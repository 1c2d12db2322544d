"""CPUs, GPUs and custom resources: defaults, fractions, what is free, and requests that can never be met."""

from __future__ import annotations

import os
import time

import pytest
from helpers import wait_until

import mltoolkit as ray


def free(name="CPU"):
    return ray.available_resources().get(name, 0)


def test_task_takes_one_cpu_by_default_and_gives_it_back(fresh, gate):
    ray.init(num_cpus=2)
    go, started = gate("go"), gate("started")

    @ray.remote
    def wait():
        started.open()
        return go.wait()

    ref = wait.remote()
    started.wait()
    wait_until(lambda: free() == 1)
    go.open()
    assert ray.get(ref)
    wait_until(lambda: free() == 2)


def test_blocked_parent_gives_its_cpu_back(fresh, tally):
    ray.init(num_cpus=1)

    @ray.remote
    def nest(depth):
        if depth == 0:
            return 0
        return 1 + ray.get(nest.remote(depth - 1))

    @ray.remote
    def nest_wait(depth):
        if depth == 0:
            return 0
        ref = nest_wait.remote(depth - 1)
        ready, _ = ray.wait([ref])
        return 1 + ray.get(ready[0])

    assert ray.get([nest.remote(5), nest_wait.remote(5)], timeout=60) == [5, 5]
    wait_until(lambda: free() == 1)


def test_only_as_many_tasks_as_cpus_run_at_once(fresh, gate, tally):
    ray.init(num_cpus=2)
    go, running = gate("go"), tally("running")

    @ray.remote
    def wait(i):
        running.add(i)
        return go.wait()

    refs = [wait.remote(i) for i in range(6)]
    wait_until(lambda: running.count() == 2)
    assert ray.wait(refs, timeout=0.3) == ([], refs)
    assert running.count() == 2
    go.open()
    assert all(ray.get(refs))


def test_fractions_share_one_cpu(fresh, gate, tally):
    ray.init(num_cpus=1)
    go, running = gate("go"), tally("running")

    @ray.remote(num_cpus=0.5)
    def wait():
        running.add()
        return go.wait()

    refs = [wait.remote() for _ in range(3)]
    wait_until(lambda: running.count() == 2)
    assert ray.wait(refs, timeout=0.3)[0] == []
    assert running.count() == 2
    go.open()
    assert all(ray.get(refs))


def test_tasks_without_cpus_are_not_held_up(fresh, gate, tally):
    ray.init(num_cpus=1)
    go, running = gate("go"), tally("running")

    @ray.remote(num_cpus=0)
    def wait():
        running.add()
        return go.wait()

    refs = [wait.remote() for _ in range(4)]
    wait_until(lambda: running.count() == 4)
    go.open()
    assert all(ray.get(refs))


def test_actor_needs_one_cpu_to_be_placed_and_holds_none(fresh):
    ray.init(num_cpus=1)

    @ray.remote
    class A:
        def pid(self):
            return os.getpid()

    actors = [A.remote() for _ in range(4)]
    assert len(set(ray.get([a.pid.remote() for a in actors]))) == 4
    wait_until(lambda: free() == 1)

    @ray.remote
    def task():
        return "ran"

    assert ray.get(task.remote()) == "ran"


def test_actor_with_explicit_cpus_holds_them(fresh):
    ray.init(num_cpus=2)

    @ray.remote(num_cpus=2)
    class A:
        def ping(self):
            return 1

    @ray.remote
    def task():
        return "ran"

    a = A.remote()
    assert ray.get(a.ping.remote()) == 1
    wait_until(lambda: free() == 0)
    ref = task.remote()
    assert ray.wait([ref], timeout=0.3) == ([], [ref])
    ray.kill(a)
    assert ray.get(ref, timeout=20) == "ran"


def test_custom_resources_and_memory(fresh, gate, tally):
    ray.init(num_cpus=4, resources={"license": 2})
    go, running = gate("go"), tally("running")

    @ray.remote(resources={"license": 1})
    def wait():
        running.add()
        return go.wait()

    refs = [wait.remote() for _ in range(3)]
    wait_until(lambda: running.count() == 2)
    wait_until(lambda: free("license") == 0)
    assert ray.wait(refs, timeout=0.3)[0] == []
    assert running.count() == 2
    go.open()
    assert all(ray.get(refs))
    assert ray.cluster_resources()["license"] == 2


def test_gpus_are_handed_out_one_by_one(fresh, gate):
    ray.init(num_cpus=4, num_gpus=3)
    go = gate("go")

    @ray.remote(num_gpus=1)
    class Holder:
        def look(self):
            return ray.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"]

    @ray.remote(num_gpus=2)
    def pair():
        return sorted(int(i) for i in ray.get_gpu_ids()), os.environ["CUDA_VISIBLE_DEVICES"]

    @ray.remote
    def none():
        return ray.get_gpu_ids()

    holder = Holder.remote()
    ids, visible = ray.get(holder.look.remote())
    assert visible == ",".join(str(i) for i in ids)
    other, visible = ray.get(pair.remote())
    assert len(set(other) | {int(i) for i in ids}) == 3
    assert sorted(visible.split(",")) == [str(i) for i in other]
    assert ray.get(none.remote()) == []
    go.open()


def test_fractions_of_a_gpu_share_it(fresh, gate, tally):
    ray.init(num_cpus=4, num_gpus=1)
    go, running = gate("go"), tally("running")

    @ray.remote(num_gpus=0.5)
    def wait():
        running.add(os.environ["CUDA_VISIBLE_DEVICES"])
        return go.wait()

    refs = [wait.remote() for _ in range(3)]
    wait_until(lambda: running.count() == 2)
    go.open()
    assert all(ray.get(refs))
    assert set(running.words()) == {"0"}


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray waits for ever")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_cpus": 64}, "64"),
        ({"num_gpus": 1}, "GPU"),
        ({"resources": {"rare": 1}}, "rare"),
        ({"memory": 2**60}, "memory"),
    ],
    ids=lambda v: str(v),
)
def test_request_larger_than_any_node_is_an_error_within_seconds(fresh, options, named):
    ray.init(num_cpus=2)

    @ray.remote
    def task():
        return 1

    @ray.remote
    class A:
        def ping(self):
            return 1

    started = time.monotonic()
    with pytest.raises(ray.exceptions.RayError, match=named):
        ray.get(task.options(**options).remote(), timeout=30)
    with pytest.raises(ray.exceptions.RayError, match=named):
        ray.get(A.options(**options).remote().ping.remote(), timeout=30)
    assert time.monotonic() - started < 10


def test_executors_get_blas_threads_for_their_cpus(fresh, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    ray.init(num_cpus=4)

    @ray.remote
    def threads():
        return os.environ.get("OMP_NUM_THREADS")

    @ray.remote(num_cpus=3)
    class A:
        def threads(self):
            return os.environ.get("OMP_NUM_THREADS")

    assert ray.get([threads.remote(), threads.options(num_cpus=2).remote(), A.remote().threads.remote()]) == [
        "1",
        "2",
        "3",
    ]


def test_threads_of_loaded_libraries_follow_the_cpus(fresh):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    import numpy as np

    np.dot(np.ones((64, 64)), np.ones((64, 64)))
    assert threadpoolctl.threadpool_info(), "numpy's BLAS is not seen"
    ray.init(num_cpus=4)

    @ray.remote
    def threads():
        import numpy as np

        np.dot(np.ones((64, 64)), np.ones((64, 64)))
        return {i["num_threads"] for i in threadpoolctl.threadpool_info()}

    assert ray.get(threads.remote()) == {1}


def test_threads_the_user_has_set_are_left_alone(fresh, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    ray.init(num_cpus=4)

    @ray.remote
    def threads():
        return os.environ.get("OMP_NUM_THREADS")

    assert ray.get(threads.remote()) == "7"

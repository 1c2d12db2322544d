"""Attached mode: drivers and Dask workers that die or retire."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from dask_cluster import Cluster
from helpers import end_family, family, leftovers, segment_folder, start_script, wait_until

import mltoolkit as ray
from mltoolkit.util.scheduling_strategies import NodeAffinitySchedulingStrategy

pytestmark = [
    pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray has no Dask beneath it"),
    pytest.mark.hostile,
]

distributed = pytest.importorskip("distributed")
attached = pytest.importorskip("mltoolkit.core.attached")


@pytest.fixture
def cluster(tmp_path, fresh):
    made = Cluster(tmp_path)
    yield made
    ray.shutdown()
    made.close()


@ray.remote
def double(x):
    return 2 * x


@ray.remote
class Counter:
    def __init__(self):
        self.n = 0

    def add(self, x=1):
        self.n += x
        return self.n

    def node(self):
        return ray.get_runtime_context().get_node_id()


def test_killed_driver_leaves_nothing_on_the_nodes(cluster, tmp_path):
    driver = start_script(
        f"""
        import signal
        import numpy as np
        import mltoolkit as ray

        ray.init(address={cluster.address!r})

        @ray.remote
        class A:
            def ping(self):
                return 1

        a, ref = A.remote(), ray.put(np.ones(1 << 18))
        ray.get(a.ping.remote())
        print("READY", flush=True)
        signal.pause()
        """,
        tmp_path,
    )
    try:
        assert driver.stdout.readline() == "READY\n", driver.communicate(timeout=10)
        driver.send_signal(signal.SIGKILL)
        driver.wait(10)
        for worker in cluster.workers:
            wait_until(lambda w=worker: not family(w.pid), 15, "executors of a dead driver end")
        wait_until(lambda: not leftovers(segment_folder()), 15, "segments of a dead driver are removed")
    finally:
        end_family(driver.pid)
        driver.stdout.close()
        driver.stderr.close()
    ray.init(address=cluster.address)
    assert ray.get(double.remote(4), timeout=60) == 8


def node_of(worker):
    """NodeID of a worker process."""
    (node,) = (n for n in ray.nodes() if worker.address in map(str, n.values()))
    return node["NodeID"]


def test_worker_killed_with_refs_outstanding(cluster, tally):
    ray.init(address=cluster.address)
    doomed = node_of(cluster.workers[0])
    there = NodeAffinitySchedulingStrategy(doomed, soft=True)

    @ray.remote
    def make(i):
        return np.full(300_000, i)

    @ray.remote
    class Doomed:
        def put(self):
            return [ray.put(np.full(300_000, 9))]

        def ping(self):
            return 1

    made = [make.options(scheduling_strategy=there).remote(i) for i in range(4)]
    ray.wait(made, num_returns=4, timeout=60)
    actor = Doomed.options(scheduling_strategy=there).remote()
    (stored,) = ray.get(actor.put.remote(), timeout=60)
    end_family(cluster.workers[0].pid)
    before = time.monotonic()
    for i, ref in enumerate(made):
        try:
            assert ray.get(ref, timeout=60)[0] == i, "recomputed, but wrong"
        except ray.exceptions.ObjectLostError:
            pass
    try:
        assert ray.get(stored, timeout=60)[0] == 9
    except ray.exceptions.ObjectLostError:
        pass
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.ping.remote(), timeout=60)
    assert time.monotonic() - before < 50
    assert ray.get([double.remote(i) for i in range(4)], timeout=60) == [0, 2, 4, 6]


def test_actor_of_a_killed_worker_restarts_elsewhere(cluster):
    ray.init(address=cluster.address)
    there = NodeAffinitySchedulingStrategy(node_of(cluster.workers[0]), soft=True)
    counter = Counter.options(max_restarts=1, max_task_retries=3, scheduling_strategy=there).remote()
    assert ray.get([counter.add.remote() for _ in range(3)], timeout=60)[-1] == 3
    end_family(cluster.workers[0].pid)
    assert ray.get(counter.add.remote(), timeout=60) == 1
    assert ray.get(counter.node.remote(), timeout=60) == node_of(cluster.workers[1])


def test_objects_of_a_retiring_worker_are_moved_not_recomputed(cluster, tally):
    runs = tally()
    ray.init(address=cluster.address)
    there = NodeAffinitySchedulingStrategy(node_of(cluster.workers[0]), soft=False)

    @ray.remote
    def make(i):
        runs.add(i)
        return np.full(300_000, i)

    refs = [make.options(scheduling_strategy=there).remote(i) for i in range(4)]
    ray.wait(refs, num_returns=4, timeout=60)
    with distributed.Client(cluster.address) as client:
        client.retire_workers([cluster.workers[0].address])
    cluster.workers[0].wait(30)
    assert [int(a[0]) for a in ray.get(refs, timeout=60)] == list(range(4))
    assert runs.count() == 4


def test_scheduler_that_dies_is_an_error_and_no_hang(cluster, gate, monkeypatch):
    # For so long Dask's client seeks the scheduler again.
    assert attached._CONNECT_TIMEOUT_S <= 10
    monkeypatch.setattr(attached, "_CONNECT_TIMEOUT_S", 4.0)
    ray.init(address=cluster.address)
    never, started = gate("never"), gate("started")

    @ray.remote
    def wait():
        started.open()
        return never.wait()

    ref = wait.remote()
    started.wait()
    end_family(cluster.scheduler.pid)
    before = time.monotonic()
    with pytest.raises((ray.exceptions.RayError, ConnectionError)):
        ray.get([ref, double.remote(1)], timeout=50)
    assert time.monotonic() - before < 30
    ray.shutdown()
    assert not ray.is_initialized()

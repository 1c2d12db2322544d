"""Attached mode: on a Dask cluster that others use as well."""

from __future__ import annotations

import os
import re
import sys
import time

import numpy as np
import pytest
from dask_cluster import Cluster
from helpers import end_family, family, leftovers, run_script, script_env, segment_folder, wait_until

import mltoolkit as ray

pytestmark = pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray has no Dask beneath it")

distributed = pytest.importorskip("distributed")
attached = pytest.importorskip("mltoolkit.core.attached")


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("dask"))
    yield made
    made.close()


@pytest.fixture
def cluster(shared_cluster, fresh):
    return shared_cluster


@pytest.fixture
def local_cluster(fresh):
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as made:
        yield made
        ray.shutdown()


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


def exercise():
    """A bit of everything; the values it must give."""

    @ray.remote
    def nested(n):
        return sum(ray.get([double.remote(i) for i in range(n)]))

    @ray.remote
    def make(i):
        return np.full(200_000, i)

    @ray.remote
    def total(*arrays):
        return float(sum(a.sum() for a in arrays))

    @ray.remote
    def fail():
        raise KeyError("remote")

    @ray.remote
    def items():
        yield from range(3)

    counters = [Counter.remote() for _ in range(4)]
    assert ray.get([c.add.remote(i) for i, c in enumerate(counters)], timeout=60) == [0, 1, 2, 3]
    assert ray.get(nested.remote(5), timeout=60) == 20
    assert ray.get(total.remote(*[make.remote(i) for i in range(6)]), timeout=60) == 15 * 200_000
    assert ray.get(ray.put(np.arange(300_000)), timeout=60)[-1] == 299_999
    assert [ray.get(r, timeout=60) for r in items.remote()] == [0, 1, 2]
    with pytest.raises(KeyError):
        ray.get(fail.remote(), timeout=60)


def test_address_of_a_scheduler(cluster):
    ray.init(address=cluster.address)
    assert len(ray.nodes()) == 2
    assert ray.cluster_resources()["CPU"] == 4
    exercise()


def test_cluster_object_and_client(local_cluster):
    ray.init(cluster=local_cluster)
    exercise()
    ray.shutdown()
    with distributed.Client(local_cluster) as client:
        ray.init(client=client)
        exercise()
        ray.shutdown()
        assert client.submit(lambda x: x + 1, 1, pure=False).result(timeout=20) == 2, "the user's client was closed"


def test_work_uses_all_nodes(cluster):
    ray.init(address=cluster.address)
    counters = [Counter.remote() for _ in range(8)]
    assert len(set(ray.get([c.node.remote() for c in counters], timeout=60))) == 2

    @ray.remote(scheduling_strategy="SPREAD")
    def node():
        return ray.get_runtime_context().get_node_id()

    assert len(set(ray.get([node.remote() for _ in range(16)], timeout=60))) == 2


def test_objects_move_between_nodes(cluster):
    from mltoolkit.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address=cluster.address)

    @ray.remote
    def make():
        return np.arange(500_000)

    @ray.remote
    def total(array):
        return int(array.sum()), array.flags.writeable

    nodes = [n["NodeID"] for n in ray.nodes()]
    here, there = (NodeAffinitySchedulingStrategy(n, soft=False) for n in nodes)
    ref = make.options(scheduling_strategy=here).remote()
    assert ray.get(total.options(scheduling_strategy=there).remote(ref), timeout=60) == (124_999_750_000, False)
    assert ray.get(ref, timeout=60)[-1] == 499_999


def test_dask_work_of_others_is_undisturbed(cluster):
    # Inside the test, so that they travel by value: the scheduler cannot import this module.
    def resources_of(dask_scheduler):
        return {address: dict(worker.resources) for address, worker in dask_scheduler.workers.items()}

    def keys_of(dask_scheduler):
        return {str(key) for key in dask_scheduler.tasks}

    with distributed.Client(cluster.address) as other:
        before = other.submit(lambda: "before", pure=False)
        assert before.result(timeout=30) == "before"
        resources, keys = other.run_on_scheduler(resources_of), other.run_on_scheduler(keys_of)
        ray.init(address=cluster.address)
        running = other.map(lambda x: x + 1, range(50), pure=False)
        refs = [double.remote(i) for i in range(50)]
        assert other.gather(running) == list(range(1, 51))
        assert ray.get(refs, timeout=60) == [2 * i for i in range(50)]
        del running
        ray.shutdown()
        assert before.result(timeout=30) == "before"
        assert other.submit(lambda: "after", pure=False).result(timeout=30) == "after"
        wait_until(lambda: other.run_on_scheduler(resources_of) == resources, 10, "our resources are taken back")
        wait_until(lambda: other.run_on_scheduler(keys_of) == keys, 10, "our tasks are forgotten")


def test_user_client_stays_the_default_one(cluster):
    with distributed.Client(cluster.address) as client:
        ray.init(address=cluster.address)
        assert distributed.default_client() is client
        assert ray.get(double.remote(2), timeout=60) == 4
        ray.shutdown()
        assert distributed.default_client() is client


def test_dask_futures_and_collections(cluster):
    import dask

    from mltoolkit.util.dask import from_dask, get_client, to_dask

    with distributed.Client(cluster.address) as client:
        ray.init(client=client)
        future = client.submit(lambda: 21, pure=False)
        assert ray.get(double.remote(from_dask(future)), timeout=60) == 42
        assert ray.get(future, timeout=60) == 21
        assert client.submit(lambda x: x + 1, to_dask(double.remote(4)), pure=False).result(timeout=60) == 9
        lazy = dask.delayed(lambda x: x + 1)(1)
        assert ray.get(lazy, timeout=60) == 2
        assert ray.get(double.remote(ray.put(lazy)), timeout=60) == 4
        assert get_client().scheduler.address == client.scheduler.address


@pytest.mark.parametrize("owner", ["the session's client", "another client"])
def test_values_of_dask_stay_on_the_node_that_holds_them(cluster, owner, monkeypatch):
    from mltoolkit.core import dask_interop
    from mltoolkit.util.dask import from_dask

    def gathered(*_):
        raise AssertionError("the value came to the driver")

    with distributed.Client(cluster.address) as client:
        ray.init(client=client) if owner == "the session's client" else ray.init(address=cluster.address)
        futures = [
            client.submit(np.ones, 1 << 18, workers=[worker.address], pure=False)
            for worker in cluster.workers
            for _ in "ab"
        ]
        failing = client.submit(lambda: 1 / 0, pure=False)
        distributed.wait([*futures, failing])
        with monkeypatch.context() as patch:
            patch.setattr(dask_interop.serialization, "serialize", gathered)
            refs = [from_dask(future) for future in futures]
            assert len(ray.wait(refs, num_returns=len(refs), timeout=60)[0]) == len(refs)
        del futures
        assert ray.get([double.remote(ref) for ref in refs], timeout=60)[3].sum() == 2 << 18
        assert ray.get(refs[0]).sum() == 1 << 18
        with pytest.raises(ZeroDivisionError):
            ray.get(from_dask(failing), timeout=60)


def test_executors_of_nodes_begin_with_what_was_asked_for(cluster):
    from mltoolkit.util import preload_modules

    @ray.remote
    def look():
        return "xmlrpc.client" in sys.modules

    preload_modules("xmlrpc.client", "no_such_module_anywhere")
    ray.init(address=cluster.address)
    assert ray.get([look.options(scheduling_strategy="SPREAD").remote() for _ in range(4)], timeout=60) == [True] * 4


def test_nothing_stays_on_the_nodes_after_shutdown(cluster):
    ray.init(address=cluster.address)
    exercise()
    kept = [ray.put(np.ones(1 << 18)), Counter.remote()]
    ray.get(kept[1].add.remote(), timeout=60)
    assert family(cluster.workers[0].pid) or family(cluster.workers[1].pid)
    ray.shutdown()
    for worker in cluster.workers:
        wait_until(lambda w=worker: not family(w.pid), 10, "executors and fork server of the node end")
        assert worker.poll() is None
    wait_until(lambda: not leftovers(segment_folder()), 10, "segments on the nodes are removed")


def test_worker_that_joins_later_is_used(cluster):
    ray.init(address=cluster.address)
    assert ray.cluster_resources()["CPU"] == 4
    joined = cluster.add_worker()
    try:
        wait_until(lambda: ray.cluster_resources()["CPU"] == 6, 30)
        counters = [Counter.options(num_cpus=1).remote() for _ in range(6)]
        assert len(set(ray.get([c.node.remote() for c in counters], timeout=60))) == 3
    finally:
        end_family(joined.pid)
        joined.wait(20)
    wait_until(lambda: ray.cluster_resources()["CPU"] == 4, 30, "a node that left is still counted")


def test_named_actors_are_found_on_every_node(cluster):
    ray.init(address=cluster.address)
    counter = Counter.options(name="shared").remote()
    ray.get(counter.add.remote(), timeout=60)

    @ray.remote(scheduling_strategy="SPREAD")
    def add():
        return ray.get(ray.get_actor("shared").add.remote())

    assert sorted(ray.get([add.remote() for _ in range(8)], timeout=60)) == list(range(2, 10))


def test_strict_spread_and_strict_pack(cluster):
    from mltoolkit.util.placement_group import placement_group, remove_placement_group
    from mltoolkit.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    ray.init(address=cluster.address)
    for strategy, nodes in (("STRICT_SPREAD", 2), ("STRICT_PACK", 1)):
        group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy=strategy)
        ray.get(group.ready(), timeout=60)
        places = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in (0, 1)]
        counters = [Counter.options(num_cpus=1, scheduling_strategy=p).remote() for p in places]
        assert len(set(ray.get([c.node.remote() for c in counters], timeout=60))) == nodes
        remove_placement_group(group)


def test_scheduler_needs_neither_numpy_nor_the_users_module(tmp_path, fresh):
    """The scheduler refuses to import either; what crosses it must be opaque."""
    block = tmp_path / "block"
    block.mkdir()
    for name in ("numpy", "users_module"):
        (block / f"{name}.py").write_text(f"raise ImportError('{name} is not on the scheduler')\n")
    user = tmp_path / "user"
    user.mkdir()
    (user / "users_module.py").write_text(
        "import numpy as np\n\n\nclass Thing:\n    def __init__(self, x):\n        self.x = np.full(3, x)\n"
    )
    cluster = Cluster(tmp_path, workers=1, scheduler_path=block)
    try:
        done = run_script(
            f"""
            import sys
            import mltoolkit as ray
            from users_module import Thing

            ray.init(address={cluster.address!r})

            @ray.remote
            def make(x):
                return Thing(x)

            @ray.remote
            class Keeper:
                def __init__(self, thing):
                    self.thing = thing

                def read(self, other):
                    return self.thing.x.sum() + other.x.sum()

            keeper = Keeper.remote(make.remote(1))
            print(int(ray.get(keeper.read.remote(Thing(2)), timeout=60)))
            """,
            tmp_path,
            env={"PYTHONPATH": os.pathsep.join([str(user), script_env()["PYTHONPATH"]])},
        )
        assert done.stdout.split() == ["9"]
        assert cluster.scheduler.poll() is None
        assert "is not on the scheduler" not in cluster.text(cluster.scheduler)
    finally:
        cluster.close()


def test_script_without_main_guard_runs_once(cluster, tmp_path):
    done = run_script(
        f"""
        import mltoolkit as ray

        with open("runs", "a") as file:
            file.write("x")
        ray.init(address={cluster.address!r})

        class Point:
            x = 4

        @ray.remote
        def read(point):
            return point.x

        print(ray.get(read.remote(Point())), open("runs").read())
        """,
        tmp_path,
    )
    assert done.stdout.split() == ["4", "x"]


def test_output_of_nodes_arrives_on_the_driver(cluster, tmp_path):
    done = run_script(
        f"""
        import mltoolkit as ray

        ray.init(address={cluster.address!r})

        @ray.remote
        def speak():
            print("from a node")

        ray.get(speak.remote())
        ray.shutdown()
        """,
        tmp_path,
    )
    assert re.search(r"\(speak pid=\d+.*\) from a node", re.sub(r"\x1b\[[0-9;]*m", "", done.stdout))


def test_address_where_nobody_listens_is_an_error_within_seconds(fresh, monkeypatch):
    assert attached._CONNECT_TIMEOUT_S <= 10
    monkeypatch.setattr(attached, "_CONNECT_TIMEOUT_S", 1.0)
    before = time.monotonic()
    with pytest.raises((ConnectionError, OSError, TimeoutError), match=r"127\.0\.0\.1"):
        ray.init(address="tcp://127.0.0.1:9")
    assert time.monotonic() - before < 10
    assert not ray.is_initialized()


def test_address_and_cluster_exclude_each_other(fresh):
    with pytest.raises((ValueError, TypeError)):
        ray.init(address="tcp://127.0.0.1:9", cluster=object())
    with pytest.raises((ValueError, TypeError)):
        ray.init(address="tcp://127.0.0.1:9", num_cpus=3)
    assert not ray.is_initialized()

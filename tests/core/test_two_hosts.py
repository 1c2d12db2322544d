"""Objects between hosts: nodes that believe to be on different ones copy segments over Dask's connections."""

from __future__ import annotations

import numpy as np
import pytest
from distributed import Client, Nanny, Scheduler, SpecCluster

import mltoolkit as ray

pytestmark = pytest.mark.slow


@ray.remote
def make(n, value):
    return np.full(n, value)


@ray.remote
def total(*arrays):
    return float(sum(array.sum() for array in arrays)), all(not array.flags.writeable for array in arrays)


@pytest.fixture(scope="module")
def two_hosts():
    ray.shutdown()  # the session that other modules share
    workers = {
        name: {"cls": Nanny, "options": {"nthreads": 1, "env": {"MLTOOLKIT_HOST_ID": name}, "dashboard": False}}
        for name in ("first", "second")
    }
    with (
        SpecCluster(
            scheduler={"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"}},
            workers=workers,
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        ray.init(client=client)
        try:
            yield [node["NodeID"] for node in ray.nodes()]
        finally:
            ray.shutdown()


def on(node_id):
    from mltoolkit.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id)


def test_from_the_driver_to_nodes(two_hosts):
    ref = ray.put(np.ones(300_000))
    for node_id in two_hosts:
        value, read_only = ray.get(total.options(scheduling_strategy=on(node_id)).remote(ref), timeout=60)
        assert (value, read_only) == (300_000.0, True)


def test_from_a_node_to_the_driver(two_hosts):
    array = ray.get(make.options(scheduling_strategy=on(two_hosts[0])).remote(200_000, 3.0), timeout=60)
    assert array.sum() == 600_000.0


def test_from_node_to_node(two_hosts):
    first, second = two_hosts
    ref = make.options(scheduling_strategy=on(first)).remote(200_000, 2.0)
    there = total.options(scheduling_strategy=on(second))
    assert ray.get([there.remote(ref, ref) for _ in range(3)], timeout=60) == [(800_000.0, True)] * 3


def test_lost_source_is_an_error_and_no_hang(two_hosts):
    with pytest.raises(ray.exceptions.RayError):
        ray.get(total.options(scheduling_strategy=on("no-such-node")).remote(ray.put(np.ones(200_000))), timeout=60)


def test_detached_actors_are_refused_because_they_would_end_with_the_driver(two_hosts):
    @ray.remote
    class Lasting:
        pass

    with pytest.raises(NotImplementedError, match="outlives the driver"):
        Lasting.options(name="lasting", lifetime="detached").remote()

"""Placement groups and scheduling strategies."""

from __future__ import annotations

import os
import time

import pytest
from helpers import wait_until

import mltoolkit as ray
from mltoolkit.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from mltoolkit.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy


@pytest.fixture
def four(fresh):
    ray.init(num_cpus=4, resources={"slot": 2})
    return ray


def free(name="CPU"):
    return ray.available_resources().get(name, 0)


@ray.remote
def cpu_task():
    return "ran"


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK"])
def test_bundles_are_reserved_and_given_back(four, strategy):
    group = placement_group([{"CPU": 1}, {"CPU": 2}], strategy=strategy)
    assert group.wait(timeout_seconds=20)
    assert group.bundle_count == 2
    assert group.bundle_specs == [{"CPU": 1}, {"CPU": 2}]
    wait_until(lambda: free() == 1)
    remove_placement_group(group)
    wait_until(lambda: free() == 4)


def test_ready_is_a_ref(four):
    group = placement_group([{"CPU": 1}])
    ref = group.ready()
    assert isinstance(ref, ray.ObjectRef)
    assert ray.wait([ref], timeout=20) == ([ref], [])
    ray.get(ref, timeout=20)


def test_all_bundles_or_none(four):
    first = placement_group([{"CPU": 3}])
    assert first.wait(20)
    second = placement_group([{"CPU": 1}, {"CPU": 1}])
    assert second.wait(0.3) is False
    assert ray.get(cpu_task.remote(), timeout=20) == "ran", "a waiting group holds resources"
    remove_placement_group(first)
    assert second.wait(20)


def test_strict_spread_needs_as_many_nodes(four):
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    assert not group.wait(0.5)
    single = placement_group([{"CPU": 1}], strategy="STRICT_SPREAD")
    assert single.wait(20)


@pytest.mark.parametrize(
    "bad",
    [{"bundles": []}, {"bundles": [{}]}, {"bundles": [{"CPU": 1}], "strategy": "CLUSTERED"}, {"bundles": {"CPU": 1}}],
)
def test_impossible_requests_are_refused(four, bad):
    with pytest.raises((ValueError, TypeError)):
        placement_group(**bad)


def test_tasks_and_actors_use_only_the_bundle(four, gate, tally):
    go, running = gate("go"), tally()

    @ray.remote(num_cpus=1)
    def work():
        running.add()
        return go.wait()

    group = placement_group([{"CPU": 1}, {"CPU": 1, "slot": 1}])
    ray.get(group.ready(), timeout=20)
    into = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=0)
    refs = [work.options(scheduling_strategy=into).remote() for _ in range(3)]
    wait_until(running.count)
    assert ray.wait(refs, timeout=0.3)[0] == []
    assert running.count() == 1
    assert free() == 2, "work in a bundle took resources of the node"

    @ray.remote(num_cpus=1, resources={"slot": 1})
    class A:
        def ping(self):
            return "up"

    into = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=1)
    actor = A.options(scheduling_strategy=into).remote()
    assert ray.get(actor.ping.remote(), timeout=20) == "up"
    assert free("slot") == 1
    go.open()
    assert all(ray.get(refs, timeout=20))


def test_any_bundle_by_default(four, gate, tally):
    go, running = gate("go"), tally()

    @ray.remote(num_cpus=1)
    def work():
        running.add()
        return go.wait()

    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    ray.get(group.ready(), timeout=20)
    into = PlacementGroupSchedulingStrategy(placement_group=group)
    refs = [work.options(scheduling_strategy=into).remote() for _ in range(3)]
    wait_until(lambda: running.count() == 2)
    assert ray.wait(refs, timeout=0.3)[0] == []
    assert running.count() == 2
    go.open()
    assert all(ray.get(refs, timeout=20))


def test_work_that_fits_no_bundle_is_an_error(four):
    group = placement_group([{"CPU": 1}])
    ray.get(group.ready(), timeout=20)
    into = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=0)
    with pytest.raises((ValueError, ray.exceptions.RayError)):
        ray.get(cpu_task.options(num_cpus=2, scheduling_strategy=into).remote(), timeout=30)
    outside = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=5)
    with pytest.raises((ValueError, ray.exceptions.RayError)):
        ray.get(cpu_task.options(scheduling_strategy=outside).remote(), timeout=30)


def test_children_inherit_the_group_on_request(four):
    @ray.remote(num_cpus=0)
    def current():
        group = get_current_placement_group()
        return group and group.id

    @ray.remote(num_cpus=1)
    def parent():
        return ray.get(current.remote())

    group = placement_group([{"CPU": 2}])
    ray.get(group.ready(), timeout=20)
    captured = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    plain = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=False)
    assert ray.get(parent.options(scheduling_strategy=captured).remote(), timeout=20) == group.id
    assert ray.get(parent.options(scheduling_strategy=plain).remote(), timeout=20) is None
    assert get_current_placement_group() is None


def test_removal_kills_what_runs_in_it(four, gate):
    started, never = gate("started"), gate("never")

    @ray.remote(num_cpus=1, max_retries=0)
    def work():
        started.open()
        return never.wait()

    @ray.remote(num_cpus=1)
    class A:
        def pid(self):
            return os.getpid()

    group = placement_group([{"CPU": 2}])
    ray.get(group.ready(), timeout=20)
    into = PlacementGroupSchedulingStrategy(placement_group=group)
    actor = A.options(scheduling_strategy=into).remote()
    ray.get(actor.pid.remote(), timeout=20)
    ref = work.options(scheduling_strategy=into).remote()
    started.wait()
    remove_placement_group(group)
    with pytest.raises(ray.exceptions.RayError):
        ray.get(ref, timeout=20)

    def dead():
        try:
            ray.get(actor.pid.remote(), timeout=20)
        except ray.exceptions.RayError:
            return True

    wait_until(dead, 20)
    wait_until(lambda: free() == 4)


def test_removed_group_takes_no_more_work(four):
    group = placement_group([{"CPU": 1}])
    ray.get(group.ready(), timeout=20)
    remove_placement_group(group)
    wait_until(lambda: free() == 4)
    into = PlacementGroupSchedulingStrategy(placement_group=group)
    with pytest.raises((ValueError, ray.exceptions.RayError)):
        ray.get(cpu_task.options(scheduling_strategy=into).remote(), timeout=20)


def test_named_group_and_table(four):
    group = placement_group([{"CPU": 1}], name="named", strategy="PACK")
    ray.get(group.ready(), timeout=20)
    assert get_placement_group("named").id == group.id
    with pytest.raises(ValueError):
        get_placement_group("unknown")
    entry = placement_group_table(group)
    assert entry["name"] == "named"
    assert entry["strategy"] == "PACK"
    assert entry["state"] == "CREATED"
    assert {"CPU": 1.0} in entry["bundles"].values()
    remove_placement_group(group)
    wait_until(lambda: placement_group_table(group)["state"] == "REMOVED")


def test_group_travels_to_tasks(four):
    @ray.remote(num_cpus=0)
    def submit(group):
        into = PlacementGroupSchedulingStrategy(placement_group=group)
        return ray.get(cpu_task.options(scheduling_strategy=into).remote()), group.bundle_count

    group = placement_group([{"CPU": 1}])
    ray.get(group.ready(), timeout=20)
    assert ray.get(submit.remote(group), timeout=20) == ("ran", 1)


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray waits for ever")
def test_bundle_larger_than_any_node_is_told_within_seconds(four):
    before = time.monotonic()
    with pytest.raises((ValueError, ray.exceptions.RayError), match="64"):
        ray.get(placement_group([{"CPU": 64}]).ready(), timeout=30)
    assert time.monotonic() - before < 10


def test_scheduling_strategies(four):
    @ray.remote
    def node():
        return ray.get_runtime_context().get_node_id()

    here = ray.nodes()[0]["NodeID"]
    affinity = NodeAffinitySchedulingStrategy(node_id=here, soft=False)
    strategies = ["DEFAULT", "SPREAD", affinity]
    assert ray.get([node.options(scheduling_strategy=s).remote() for s in strategies], timeout=20) == [here] * 3
    with pytest.raises((ValueError, TypeError)):
        node.options(scheduling_strategy="NOWHERE").remote()


def test_affinity_to_an_unknown_node(four):
    unknown = "f" * len(ray.nodes()[0]["NodeID"])
    soft = NodeAffinitySchedulingStrategy(node_id=unknown, soft=True)
    assert ray.get(cpu_task.options(scheduling_strategy=soft).remote(), timeout=20) == "ran"
    hard = NodeAffinitySchedulingStrategy(node_id=unknown, soft=False)
    with pytest.raises((ValueError, ray.exceptions.RayError)):
        ray.get(cpu_task.options(scheduling_strategy=hard).remote(), timeout=30)


def test_maker_lends_its_cpu_to_the_group_it_waits_for(fresh):
    ray.init(num_cpus=1)

    @ray.remote
    def make_and_wait():
        group = placement_group([{"CPU": 1}])
        return ray.get(group.ready(), timeout=20) == group

    assert ray.get(make_and_wait.remote(), timeout=40)

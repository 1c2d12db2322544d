"""Resources that change while trials run."""

from __future__ import annotations

import pytest
from tune.simulator import Simulator

from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.experiment import Trial
from mltoolkit.tune.schedulers import ASHAScheduler, ResourceChangingScheduler
from mltoolkit.tune.schedulers.resource_changing_scheduler import (
    DistributeResources,
    DistributeResourcesToTopJob,
    evenly_distribute_cpus_gpus,
)

ONE = PlacementGroupFactory([{"CPU": 1}])


class Cluster:
    """Trials that hold resources, in a cluster."""

    search_alg = None

    def __init__(self, held, total, scores=None):
        self.trials = [
            Trial(str(i), "t", {}, index=i, placement_group_factory=factory) for i, factory in enumerate(held)
        ]
        for trial, score in zip(self.trials, scores or [], strict=False):
            trial.last_result = {} if score is None else {"score": score}
        self.total = total
        self.resets = []

    def get_live_trials(self):
        return self.trials

    def get_trial(self, trial_id):
        return self.trials[int(trial_id)]

    def total_resources(self):
        return self.total

    def save_trial(self, trial):
        return "saved"

    def reset_trial(self, trial, config, checkpoint=None, tag=None, resources=None):
        assert checkpoint == "saved"
        trial.placement_group_factory = resources


def cpus(*amounts):
    return [PlacementGroupFactory([{"CPU": amount}]) for amount in amounts]


def turns(distribute, cluster, rounds=3, base=ONE):
    """What each trial holds after so many results of each."""
    scheduler = ResourceChangingScheduler(ASHAScheduler(metric="score", mode="max"), distribute)
    scheduler._base_trial_resources = base
    for trial in cluster.trials:
        scheduler._base_scheduler.on_trial_add(cluster, trial)
    for _ in range(rounds):
        for trial in cluster.trials:
            result = {"training_iteration": 0.5, "score": 1.0}
            scheduler.on_trial_result(cluster, trial, result)
    return [trial.placement_group_factory.required_resources for trial in cluster.trials]


def test_free_cpus_are_shared_out_equally():
    assert turns(DistributeResources(), Cluster(cpus(1, 1, 1, 1), {"CPU": 8})) == [{"CPU": 2}] * 4
    assert turns(evenly_distribute_cpus_gpus, Cluster(cpus(1, 1), {"CPU": 6})) == [{"CPU": 3}] * 2
    # What is left over goes to whoever reports first.
    assert turns(DistributeResources(), Cluster(cpus(1, 1, 1), {"CPU": 8})) == [{"CPU": 3}, {"CPU": 3}, {"CPU": 2}]


def test_the_last_trial_gets_everything_and_gives_it_back():
    cluster = Cluster(cpus(2, 2), {"CPU": 8})
    ended = cluster.trials.pop()
    assert turns(DistributeResources(), cluster) == [{"CPU": 8}]
    ended.placement_group_factory = ONE
    cluster.trials.append(ended)
    assert turns(DistributeResources(), cluster, rounds=1)[0] == {"CPU": 7}


def test_reserve_and_limit():
    options = {"reserve_resources": {"CPU": 2}, "increase_by": {"CPU": 2}, "increase_by_times": 2}
    assert turns(DistributeResources(**options), Cluster(cpus(1), {"CPU": 16})) == [{"CPU": 5}]
    assert turns(DistributeResources(**options), Cluster(cpus(1), {"CPU": 5})) == [{"CPU": 3}]


def test_gpus_and_bundles():
    base = PlacementGroupFactory([{"CPU": 1, "GPU": 1}])
    assert turns(DistributeResources(), Cluster([base], {"CPU": 8, "GPU": 4}), base=base) == [{"CPU": 1, "GPU": 4}]
    base = PlacementGroupFactory([{"CPU": 1}, {"CPU": 2, "memory": 5}], strategy="SPREAD")
    cluster = Cluster([base, base], {"CPU": 12, "memory": 100})
    turns(DistributeResources(add_bundles=True), cluster, base=base)
    grown = PlacementGroupFactory([{"CPU": 1}, {"CPU": 2, "memory": 5}, {"CPU": 2}], strategy="SPREAD")
    assert [trial.placement_group_factory for trial in cluster.trials][1] == grown
    with pytest.raises(ValueError, match=r"trials have 2 bundles. Use add_bundles=True"):
        turns(DistributeResources(), Cluster([base], {"CPU": 12}), base=base)


def test_the_best_trial_gets_all_then_the_next():
    cluster = Cluster(cpus(1, 1, 1), {"CPU": 9}, scores=[1, 3, None])
    assert turns(DistributeResourcesToTopJob(), cluster) == [{"CPU": 1}, {"CPU": 7}, {"CPU": 1}]
    cluster = Cluster(cpus(1, 1, 1), {"CPU": 9}, scores=[1, 3, float("nan")])
    limited = DistributeResourcesToTopJob(increase_by={"CPU": 1}, increase_by_times=4)
    assert turns(limited, cluster) == [{"CPU": 3}, {"CPU": 5}, {"CPU": 1}]
    cluster = Cluster(cpus(1, 1), {"CPU": 4}, scores=[1, 3])
    assert turns(DistributeResourcesToTopJob(metric="score", mode="min"), cluster) == [{"CPU": 3}, {"CPU": 1}]


def test_a_sweep_keeps_within_the_cluster():
    scheduler = ResourceChangingScheduler(ASHAScheduler(max_t=9, reduction_factor=3))
    sweep = Simulator(scheduler, lambda trial, i: trial.index % 5, 12, 3, factory=ONE, resources={"CPU": 8.0})
    most = 0.0
    for _ in range(200):
        sweep.run(max_events=1)
        held = [
            t.placement_group_factory.required_resources["CPU"] for t in sweep.live.values() if t.status == "RUNNING"
        ]
        most = max(most, sum(held))
        assert sum(held) <= 8
    assert most >= 7
    assert sweep.scheduler.debug_string().startswith("(ResourceChangingScheduler) Using AsyncHyperBand")


def test_more_than_the_cluster_has_is_an_error():
    too_much = lambda controller, trial, result, scheduler: PlacementGroupFactory([{"CPU": 99}])  # noqa: E731
    with pytest.raises(ValueError, match="asks for CPU=99 for trial .* but the cluster has 4"):
        turns(too_much, Cluster(cpus(1), {"CPU": 4}))


def test_no_function_changes_nothing():
    assert turns(None, Cluster(cpus(1), {"CPU": 4})) == [{"CPU": 1}]


def test_trials_begin_equal():
    scheduler = ResourceChangingScheduler()
    first, second = Cluster(cpus(1, 2), {"CPU": 4}).trials
    scheduler.on_trial_add(Cluster([], {}), first)
    with pytest.raises(ValueError, match="needs trials that begin with equal resources"):
        scheduler.on_trial_add(Cluster([], {}), second)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: DistributeResources(increase_by={}), ValueError, "is empty"),
        (lambda: DistributeResources(increase_by={"TPU": 1}), ValueError, "may have 'CPU' and 'GPU', got 'TPU'"),
        (lambda: DistributeResources(increase_by={"CPU": 0}), ValueError, "must be a number > 0, got 0"),
        (lambda: DistributeResourcesToTopJob(mode="best"), ValueError, "must be 'min' or 'max', got 'best'"),
        (lambda: ResourceChangingScheduler("asha"), TypeError, "must be a TrialScheduler, got 'asha'"),
        (lambda: ResourceChangingScheduler(None, 3), TypeError, "must be a function of controller"),
    ],
)
def test_wrong_options(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_top_job_without_a_metric():
    scheduler = ResourceChangingScheduler(None, DistributeResourcesToTopJob())
    cluster = Cluster(cpus(1), {"CPU": 4})
    scheduler.on_trial_add(cluster, cluster.trials[0])
    with pytest.raises(ValueError, match="needs a metric and a mode"):
        scheduler.on_trial_result(cluster, cluster.trials[0], {"training_iteration": 1})

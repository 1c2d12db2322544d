"""What a sweep decides, with those who decide replaced by ones that write down what they are told."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from mltoolkit.tune.error import MissingMetricError
from mltoolkit.tune.execution._settings import SweepSettings
from mltoolkit.tune.execution._sweep import DONE, Sweep
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.schedulers.trial_scheduler import FIFOScheduler, TrialScheduler


class Script(TrialScheduler):
    """Decides as it was told, and keeps a log."""

    def __init__(self, log, decision=TrialScheduler.CONTINUE, metric=None):
        self.log, self.decision, self._metric = log, decision, metric

    def on_trial_add(self, controller, trial):
        self.log.append(("add", trial.trial_id))

    def on_trial_result(self, controller, trial, result):
        self.log.append(("scheduler", trial.trial_id, result.get("deep/y", result.get("y"))))
        return self.decision

    def on_trial_complete(self, controller, trial, result):
        self.log.append(("scheduler complete", trial.trial_id))

    def on_trial_remove(self, controller, trial):
        self.log.append(("scheduler remove", trial.trial_id))

    def on_trial_error(self, controller, trial):
        self.log.append(("scheduler error", trial.trial_id))


class Search:
    metric = None

    def __init__(self, log):
        self.log = log

    def on_trial_result(self, trial_id, result):
        self.log.append(("search", trial_id))

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.log.append(("search complete", trial_id, result and result["y"], error))


class Stop:
    def __init__(self, log, at=None):
        self.log, self.at = log, at

    def __call__(self, trial_id, result):
        self.log.append(("stopper", trial_id))
        return result["y"] == self.at


def make(decision="CONTINUE", metric=None, at=None, scheduler=None):
    log = []
    settings = SweepSettings(
        name="exp",
        experiment_path=Path("/exp"),
        trainable=None,
        trainable_name="f",
        search_alg=Search(log),
        scheduler=scheduler or Script(log, decision, metric),
        stopper=Stop(log, at),
    )
    sweep = Sweep(settings)
    trial = Trial("a", "f", {})
    sweep.add(trial, None)
    log.clear()
    return sweep, trial, log


@pytest.mark.parametrize("decision", ["CONTINUE", "PAUSE", "STOP", "NOOP"])
def test_the_scheduler_decides_and_the_searcher_learns_of_what_goes_on(decision):
    sweep, trial, log = make(decision)
    assert sweep.judge(trial, {"y": 1}, None) == decision
    heard = [("stopper", "a"), ("scheduler", "a", 1), ("search", "a")]
    assert log == (heard[:2] if decision == "STOP" else heard)


def test_a_stopping_criterion_or_done_goes_before_the_scheduler():
    sweep, trial, log = make("CONTINUE", at=1)
    assert sweep.judge(trial, {"y": 1}, None) == DONE
    assert sweep.judge(trial, {"y": 0, "done": True}, None) == DONE
    assert log == [("stopper", "a"), ("stopper", "a")]


ENDS = {
    "done": [("scheduler complete", "a"), ("search complete", "a", 1, False)],
    "stopped": [("search complete", "a", 1, False)],
    "removed": [("scheduler remove", "a"), ("search complete", "a", 1, False)],
    "error": [("scheduler error", "a"), ("search complete", "a", None, True)],
    "sweep": [],
}


@pytest.mark.parametrize("reason", ENDS)
def test_who_learns_of_an_end(reason):
    sweep, trial, log = make()
    trial.update_last_result({"y": 1})
    sweep.end(trial, reason, None)
    assert log == ENDS[reason]
    assert not sweep.live
    assert list(sweep.trials) == ["a"]


def test_a_revived_trial_is_news_to_the_scheduler_only():
    sweep, trial, log = make()
    sweep.end(trial, "error", None)
    log.clear()
    sweep.revive(trial, None)
    assert "a" in sweep.live
    sweep.judge(trial, {"y": 1}, None)
    trial.update_last_result({"y": 1})
    sweep.end(trial, "done", None)
    assert log == [("add", "a"), ("stopper", "a"), ("scheduler", "a", 1), ("scheduler complete", "a")]


def test_a_missing_metric_names_metric_trial_scheduler_and_what_was_reported():
    sweep, trial, _ = make(metric="accuracy")
    with pytest.raises(MissingMetricError, match=r"f_a.*'accuracy'.*Script.*reported: deep/acc, y\b"):
        sweep.judge(trial, {"y": 1, "deep": {"acc": 2}, "training_iteration": 1, "config": {"z": 1}}, None)
    assert sweep.misnamed_metric
    sweep.judge(trial, {"y": 1, "accuracy": 0.5}, None)
    assert not sweep.misnamed_metric  # one trial forgot it; its name is right
    with pytest.raises(MissingMetricError, match="'accuracy'"):
        sweep.judge(trial, {"y": 1}, None)


@pytest.mark.parametrize("value", ["0.5", None, True, [1.0], {"a": 1}])
def test_a_metric_that_is_no_number(value):
    sweep, trial, _ = make(metric="y")
    with pytest.raises(MissingMetricError, match="'?y'?"):
        sweep.judge(trial, {"y": value}, None)


def test_nested_metrics_are_decided_by_their_path():
    sweep, trial, log = make(metric="deep/y")
    assert sweep.judge(trial, {"y": 1, "deep": {"y": 5}}, None) == "CONTINUE"
    assert ("scheduler", "a", 5) in log


def test_nothing_is_required_where_nothing_is_decided():
    sweep, trial, _ = make(scheduler=FIFOScheduler())
    assert sweep.judge(trial, {"y": "text"}, None) == "CONTINUE"
    sweep.check_final(trial)


def test_a_trial_that_never_reported_what_is_decided_by():
    sweep, trial, _ = make(metric="loss")
    with pytest.raises(MissingMetricError, match=r"f_a.*without reporting.*Script.*'loss'"):
        sweep.check_final(trial)
    trial.update_last_result({"loss": 1})
    sweep.check_final(trial)


def test_trials_stay_in_order_and_live_ones_are_those_that_have_not_ended():
    sweep, first, _ = make()
    others = [Trial(str(i), "f", {}) for i in range(5)]
    for trial in others:
        sweep.add(trial, None)
    for trial, reason in zip(others, itertools.cycle(["done", "error"]), strict=False):
        if int(trial.trial_id) % 2:
            sweep.end(trial, reason, None)
    assert sweep.in_order == [first, *others]
    assert list(sweep.live) == ["a", "0", "2", "4"]

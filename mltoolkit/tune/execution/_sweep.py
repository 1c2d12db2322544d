"""What a sweep decides, without doing any of it.

Events go in (a trial was created, reported, ended), decisions come out. The controller carries them out; a restored
sweep is shown the same events once more and its decisions are dropped, since the journal tells what became of them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mltoolkit.tune.error import MissingMetricError
from mltoolkit.tune.execution._settings import SweepSettings
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.result import AUTO_RESULT_KEYS
from mltoolkit.tune.schedulers.trial_scheduler import Controller, FIFOScheduler, TrialScheduler
from mltoolkit.tune.search._nested import flatten

__all__ = ["DONE", "REASONS", "Action", "Sweep"]

DONE = "DONE"
"""Decision beside the scheduler's own: the trial has reached its end or its stopping criterion."""

REASONS = ("done", "stopped", "removed", "error", "sweep")
"""Why a trial ends: by itself, by the scheduler, by the scheduler while it waited, by failing, with the whole sweep."""


@dataclass(frozen=True)
class Action:
    """What a scheduler asked the controller to do: the name of its method, and what it is given."""

    name: str
    trial: Trial
    options: dict[str, Any] = field(default_factory=dict)


class Sweep:
    """Trials, and those who decide about them.

    Parameters
    ----------
    settings : SweepSettings
    """

    def __init__(self, settings: SweepSettings) -> None:
        self.settings = settings
        self.trials: dict[str, Trial] = {}
        self.in_order: list[Trial] = []
        """All trials in the order of their creation: one list for the whole sweep, not to be changed by others."""
        self.live: dict[str, Trial] = {}
        self._required = _required_metrics(settings)
        self._named = _named_metrics(settings)
        self._ever_reported: set[str] = set()  # as numbers
        self._ever_named: set[str] = set()
        self._revived: set[str] = set()
        self.owed: list[tuple[Trial, str]] = []
        """Trials whose end was decided but not yet written down when the driver died, and why they end."""
        self.owed_actions: list[Action] = []
        """What the scheduler had asked for and the driver did not come to do."""
        self.pending_revivals: list[Trial] = []
        """Trials of a restored sweep that had ended and run again."""

    def add(self, trial: Trial, controller: Controller) -> None:
        """A trial was created."""
        self.admit(trial)
        self.settings.scheduler.on_trial_add(controller, trial)

    def admit(self, trial: Trial) -> None:
        """Count a trial in, without asking anybody."""
        self.trials[trial.trial_id] = trial
        self.in_order.append(trial)
        self.live[trial.trial_id] = trial

    def revive(self, trial: Trial, controller: Controller) -> None:
        """A trial that had failed runs again: the scheduler meets it anew, the searcher has its result already."""
        self.mark_revived(trial)
        self.settings.scheduler.on_trial_add(controller, trial)

    def mark_revived(self, trial: Trial) -> None:
        """A trial that had failed is alive again, and the scheduler knows."""
        self._revived.add(trial.trial_id)
        self.live[trial.trial_id] = trial

    def judge(self, trial: Trial, result: dict[str, Any], controller: Controller) -> str:
        """Decide how a trial goes on after a result: a scheduler's decision, or ``DONE``.

        Raises
        ------
        MissingMetricError
            If the result lacks a metric that scheduler or search algorithm decide by, or it is no number.
        """
        flat = _flat(result)
        self._check(trial, flat)
        settings = self.settings
        # Both are asked always: a stopper counts what it sees.
        if settings.stopper(trial.trial_id, result) or result.get("done"):
            return DONE
        decision = settings.scheduler.on_trial_result(controller, trial, flat)
        if decision != TrialScheduler.STOP and trial.trial_id not in self._revived:
            settings.search_alg.on_trial_result(trial.trial_id, flat)
        return decision

    def end(self, trial: Trial, reason: str, controller: Controller) -> None:
        """A trial ends: tell search algorithm and scheduler, and count it as no longer alive."""
        search, scheduler = self.settings.search_alg, self.settings.scheduler
        flat = _flat(trial.last_result)
        if reason == "done":
            scheduler.on_trial_complete(controller, trial, flat)
        elif reason == "removed":
            scheduler.on_trial_remove(controller, trial)
        elif reason == "error":
            scheduler.on_trial_error(controller, trial)
        if trial.trial_id in self._revived:
            pass
        elif reason == "error":
            search.on_trial_complete(trial.trial_id, error=True)
        elif reason != "sweep":
            search.on_trial_complete(trial.trial_id, flat or None)
        self.live.pop(trial.trial_id, None)

    def check_final(self, trial: Trial) -> None:
        """Refuse that a trial ends without ever having reported what is decided by."""
        needed = self._required or self._named
        if not trial.last_result and needed:
            raise MissingMetricError(
                f"Trial {trial} ended without reporting anything, but {self._who()} needs {_listed(needed)}. "
                f"Call `tune.report({{{needed[0]!r}: value}})` or return the value."
            )

    @property
    def misnamed_metric(self) -> bool:
        """Whether no trial has ever reported a metric that is needed: its name is wrong, not one trial."""
        return not (self._ever_reported.issuperset(self._required) and self._ever_named.issuperset(self._named))

    def _check(self, trial: Trial, flat: dict[str, Any]) -> None:
        for name in self._named:
            if name in flat:
                self._ever_named.add(name)
            elif name not in self._ever_named and name not in self._required:
                raise MissingMetricError(
                    f"Trial {trial} reported no {name!r}, the `metric` of the sweep. It reported: {_own_names(flat)}. "
                    "Report it in the first result, correct the name, or set TUNE_DISABLE_STRICT_METRIC_CHECKING=1."
                )
        for name in self._required:
            if name not in flat:
                raise MissingMetricError(
                    f"Trial {trial} reported no metric {name!r}, which {self._who()} decides by. It reported: "
                    f"{_own_names(flat)}. Report {name!r} in each result, or change `metric`."
                )
            value = flat[name]
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise MissingMetricError(
                    f"Trial {trial} reported {name}={value!r:.100}, a {type(value).__name__}, but {self._who()} "
                    "decides by that metric: it must be a number."
                )
            self._ever_reported.add(name)

    def _who(self) -> str:
        scheduler = self.settings.scheduler
        if type(scheduler) is not FIFOScheduler:
            return type(scheduler).__name__
        searcher = getattr(self.settings.search_alg, "searcher", self.settings.search_alg)
        return type(searcher).__name__


def _required_metrics(settings: SweepSettings) -> list[str]:
    metrics: list[str | Sequence[str] | None] = [getattr(settings.search_alg, "metric", None)]
    if type(settings.scheduler) is not FIFOScheduler:
        metrics.append(settings.scheduler.metric)
    lists = [[metric] if isinstance(metric, str) else list(metric) for metric in metrics if metric]
    return list(dict.fromkeys(itertools.chain.from_iterable(lists)))


def _named_metrics(settings: SweepSettings) -> list[str]:
    """Metrics that the user named, which no trial reporting them is a slip of the pen."""
    if os.environ.get("TUNE_DISABLE_STRICT_METRIC_CHECKING") == "1" or not settings.metric:
        return []
    return [settings.metric] if isinstance(settings.metric, str) else list(settings.metric)


def _own_names(flat: dict[str, Any]) -> str:
    return ", ".join(sorted(k for k in flat if k.partition("/")[0] not in AUTO_RESULT_KEYS)) or "nothing"


def _flat(result: dict[str, Any]) -> dict[str, Any]:
    """Nested metrics under flat names; the configuration stays what it is."""
    if any(type(value) is dict for name, value in result.items() if name != "config"):
        flat = flatten({name: value for name, value in result.items() if name != "config"})
        if "config" in result:
            flat["config"] = result["config"]
        return flat
    return result


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))

"""A sweep as it was when its driver ended, rebuilt from its journal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mltoolkit.train import Checkpoint
from mltoolkit.train._trust import check_trusted
from mltoolkit.tune.error import MissingMetricError
from mltoolkit.tune.execution._settings import SweepSettings
from mltoolkit.tune.execution._snapshot import Snapshot
from mltoolkit.tune.execution._sweep import DONE, Sweep
from mltoolkit.tune.execution.history import apply_event, trial_from_event
from mltoolkit.tune.execution.journal import FILE_NAME, read_events
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.schedulers.trial_scheduler import TrialScheduler

__all__ = ["rebuild"]

_OF_A_RESULT = ("checkpoint", "removed")


def rebuild(settings: SweepSettings, snapshot: Snapshot | None) -> Sweep:
    """Rebuild trials, search algorithm, scheduler and stopper.

    Parameters
    ----------
    settings : SweepSettings
        With search algorithm, scheduler and stopper as they were at the sweep's start; they are brought up to date.
    snapshot : Snapshot or None

    Returns
    -------
    Sweep
    """
    path = settings.experiment_path
    with open(path / FILE_NAME, "rb") as file:
        check_trusted(path / FILE_NAME, file)
    if snapshot is not None:
        snapshot.restore(settings)
    return _Replay(settings, path).run(snapshot.position if snapshot else 0)


class _Replay:
    def __init__(self, settings: SweepSettings, path: Path) -> None:
        self.sweep = Sweep(settings)
        self._path = path
        self._controller = _InertController(self.sweep)
        self._undecided: Trial | None = None
        self._decisions: dict[str, str] = {}

    def run(self, position: int) -> Sweep:
        for event in read_events(self._path, 0, position):
            self._rebuild(event)
        for event in read_events(self._path, position):
            self._show(event)
        self._decide()
        for trial_id, decision in self._decisions.items():
            trial = self.sweep.trials[trial_id]
            if not trial.is_finished and decision in (DONE, TrialScheduler.STOP):
                self.sweep.owed.append((trial, "done" if decision == DONE else "stopped"))
        for trial in self.sweep.live.values():
            if trial.status == Trial.RUNNING:
                trial.status = Trial.PENDING
        return self.sweep

    def _rebuild(self, event: dict[str, Any]) -> None:
        """What the snapshot has seen: only the trials are rebuilt."""
        trial = self._trial_of(event)
        if trial is None:
            return
        if event["event"] == "trial":
            self.sweep.admit(trial)
        elif event["event"] == "end":
            self.sweep.live.pop(trial.trial_id, None)
            apply_event(trial, event, trusted=True)
        elif event["event"] == "revive":
            apply_event(trial, event, trusted=True)
            self.sweep.mark_revived(trial)
        else:
            apply_event(trial, event, trusted=True)

    def _show(self, event: dict[str, Any]) -> None:
        """What came later: those who decide see it as they did then."""
        trial = self._trial_of(event)
        if trial is None:
            return
        kind = event["event"]
        if self._undecided is not None and not (kind in _OF_A_RESULT and trial is self._undecided):
            self._decide()
        if kind == "trial":
            self.sweep.settings.search_alg.next_suggestion(trial.trial_id)
            self.sweep.add(trial, self._controller)
        elif kind == "result":
            apply_event(trial, event, trusted=True)
            self._undecided = trial
        elif kind == "end":
            self._decisions.pop(trial.trial_id, None)
            self.sweep.end(trial, event["reason"], self._controller)
            apply_event(trial, event, trusted=True)
        elif kind == "revive":
            apply_event(trial, event, trusted=True)
            self.sweep.revive(trial, self._controller)
        else:
            apply_event(trial, event, trusted=True)

    def _decide(self) -> None:
        trial, self._undecided = self._undecided, None
        if trial is None:
            return
        try:
            self._decisions[trial.trial_id] = self.sweep.judge(trial, trial.last_result, self._controller)
        except MissingMetricError:
            pass  # it ended the trial or the sweep, as the next event says

    def _trial_of(self, event: dict[str, Any]) -> Trial | None:
        if event["event"] == "trial":
            return trial_from_event(event, self._path, trusted=True)
        return self.sweep.trials.get(event.get("trial_id", ""))


class _InertController:
    """Tells schedulers how things stood, and does nothing of what they ask for: the journal says what came of it."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def get_trials(self) -> Sequence[Trial]:
        return self._sweep.in_order

    def get_live_trials(self) -> Sequence[Trial]:
        return list(self._sweep.live.values())

    def get_trial(self, trial_id: str) -> Trial | None:
        return self._sweep.trials.get(trial_id)

    @property
    def search_alg(self) -> Any:
        return self._sweep.settings.search_alg

    def stop_trial(self, trial: Trial) -> None:
        pass

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        pass

    def resume_trial(self, trial: Trial) -> None:
        pass

    def save_trial(self, trial: Trial) -> Checkpoint | None:
        return trial.checkpoint

    def reset_trial(
        self,
        trial: Trial,
        config: dict[str, Any],
        checkpoint: Checkpoint | None = None,
        tag: str | None = None,
        resources: PlacementGroupFactory | None = None,
    ) -> None:
        pass

    def total_resources(self) -> dict[str, float]:
        return {}

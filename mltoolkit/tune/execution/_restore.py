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
from mltoolkit.tune.execution._sweep import DONE, Action, Sweep
from mltoolkit.tune.execution.history import apply_event, trial_from_event
from mltoolkit.tune.execution.journal import FILE_NAME, read_events
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.schedulers.trial_scheduler import TrialScheduler

__all__ = ["rebuild"]

_OF_A_RESULT = ("checkpoint", "removed")
_MARKS = ("stop_trial", "pause_trial")


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
        self.sweep.owed_actions = [a for a in self._controller.asked if not a.trial.is_finished()]
        for trial_id, decision in self._decisions.items():
            trial = self.sweep.trials[trial_id]
            if trial.is_finished():
                continue
            if decision in (DONE, TrialScheduler.STOP):
                self.sweep.owed.append((trial, "done" if decision == DONE else "stopped"))
            elif decision == TrialScheduler.PAUSE and trial.status in (Trial.RUNNING, Trial.PENDING):
                self.sweep.owed_actions.append(Action("pause_trial", trial))
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
        # A checkpoint with metrics of its own was adopted, which is what came of a decision.
        of_the_result = kind in _OF_A_RESULT and "metrics" not in event and trial is self._undecided
        if self._undecided is not None and not of_the_result:
            self._decide()
        self._settle(trial, event)
        if kind == "trial":
            self.sweep.settings.search_alg.next_suggestion(trial.trial_id)
            self.sweep.add(trial, self._controller)
        elif kind == "result":
            apply_event(trial, event, trusted=True)
            self._undecided = trial
        elif kind == "end":
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

    def _settle(self, trial: Trial, event: dict[str, Any]) -> None:
        """Strike off what the scheduler asked for and what, as an event says, was carried out or has no meaning now."""
        kind = event["event"]
        controller = self._controller
        if kind == "end":
            self._decisions.pop(trial.trial_id, None)
            controller.settle(trial, *_MARKS, "resume_trial", "reset_trial")
        elif kind == "failure":
            self._decisions.pop(trial.trial_id, None)
            controller.settle(trial, *_MARKS)
        elif kind == "wait" and event["status"] == Trial.PAUSED:
            if self._decisions.get(trial.trial_id) == TrialScheduler.PAUSE:
                del self._decisions[trial.trial_id]
            controller.settle(trial, *_MARKS)
        elif kind == "wait":
            controller.settle(trial, "resume_trial")
        elif kind == "reset":
            controller.settle(trial, "reset_trial")

    def _trial_of(self, event: dict[str, Any]) -> Trial | None:
        if event["event"] == "trial":
            return trial_from_event(event, self._path, trusted=True)
        return self.sweep.trials.get(event.get("trial_id", ""))


class _InertController:
    """Tells schedulers how things stood, and does nothing of what they ask for: the journal says what came of it.

    What it does not say was cut off by the driver's death, and is left in ``asked`` to be done.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self.asked: list[Action] = []

    def settle(self, trial: Trial, *names: str) -> None:
        """Something that was asked for a trial is done."""
        if self.asked:
            self.asked = [a for a in self.asked if a.trial is not trial or a.name not in names]

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
        if not trial.is_finished():
            self.asked.append(Action("stop_trial", trial))

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        if trial.status == Trial.RUNNING:
            self.asked.append(Action("pause_trial", trial))

    def resume_trial(self, trial: Trial) -> None:
        if trial.status == Trial.PAUSED:
            self.asked.append(Action("resume_trial", trial))

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
        options = {"config": config, "checkpoint": checkpoint, "tag": tag, "resources": resources}
        self.asked.append(Action("reset_trial", trial, options))

    def total_resources(self) -> dict[str, float]:
        return {}

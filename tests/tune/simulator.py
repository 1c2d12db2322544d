"""A controller in virtual time: slots that run learning curves, for tests of schedulers.

Nothing here starts a process. A trial is a curve ``value(trial, iteration)``; its state is the iteration that it has
reached, which checkpoints keep. As in the controller of a sweep, a free slot goes to the trial that the scheduler
chooses; a new one is created when it chooses none.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mltoolkit.tune.experiment import Trial


@dataclass(frozen=True)
class Saved:
    """A checkpoint."""

    trial_id: str
    iteration: int
    metrics: dict[str, Any] = field(default_factory=dict)
    path: str = ""


class Search:
    """Configurations by number; at most `limit` trials that have not ended, if given."""

    def __init__(self, total: int, config: Callable[[int], dict[str, Any]], *, limit: int | None = None, known=True):
        self.total = total
        self.total_samples = total if known else None
        self.config = config
        self.limit = limit
        self.given = 0
        self.live: set[str] = set()

    def next_suggestion(self, trial_id: str) -> dict[str, Any] | None:
        if self.is_finished() or (self.limit is not None and len(self.live) >= self.limit):
            return None
        self.given += 1
        self.live.add(trial_id)
        return self.config(self.given - 1)

    def is_finished(self) -> bool:
        return self.given >= self.total

    def on_trial_complete(self, trial_id: str) -> None:
        self.live.discard(trial_id)


class Simulator:
    """Controller of a simulated sweep.

    Parameters
    ----------
    scheduler : TrialScheduler
    value : callable
        ``value(trial, iteration)``: what the trial reports as "score"; a dict replaces the whole report; an exception
        that it raises is a failure of the trial.
    num_trials, slots : int
    length : callable or int
        Iterations after which a trial completes by itself.
    ahead : int
        How many trials are created ahead of being needed.
    checkpoints : bool
        If False, trials start over whenever they leave their slot.
    retries : int
        How often a trial that fails is started again.
    duration : callable
        ``duration(trial, iteration)``: seconds that an iteration takes.
    """

    def __init__(
        self,
        scheduler: Any,
        value: Callable[[Trial, int], Any],
        num_trials: int,
        slots: int = 1,
        *,
        length: Callable[[Trial], int] | int = 100,
        ahead: int = 0,
        checkpoints: bool = True,
        retries: int = 0,
        config: Callable[[int], dict[str, Any]] = lambda i: {"index": i},
        duration: Callable[[Trial, int], float] = lambda trial, iteration: 1.0,
        search: Search | None = None,
        experiment_path: Path = Path(),
        resources: dict[str, float] | None = None,
        factory: Any = None,
        record: bool = True,
    ) -> None:
        self.scheduler = scheduler
        self.value = value
        self.slots = slots
        self.length = length if callable(length) else lambda trial: length
        self.ahead = ahead
        self.checkpoints = checkpoints
        self.retries = retries
        self.duration = duration
        self.search_alg = search or Search(num_trials, config)
        self.experiment_path = experiment_path
        self.resources = resources or {"CPU": float(slots)}
        self.factory = factory
        self.record = record

        self.trials: dict[str, Trial] = {}
        self.live: dict[str, Trial] = {}
        self.iteration: Counter[str] = Counter()  # state of the trainable
        self.running: dict[str, int] = {}  # generation of the run, so that events of an ended one are told apart
        self.pending = 0  # trials that have never started
        self.clock = 0.0
        self.queue: list[tuple[float, int, str, int]] = []
        self.counter = 0
        self.generation = 0
        self.events: list[tuple[str, str, Any]] = []  # what the scheduler was told
        self.log: list[tuple[str, str, Any]] = []  # what happened to trials
        self.steps = 0
        self.current: str | None = None
        self.results_of: Counter[str] = Counter()
        scheduler.set_search_properties("score", "max") if scheduler.metric is None else None

    # What schedulers may call.

    def get_trials(self) -> list[Trial]:
        return list(self.trials.values())

    def get_live_trials(self) -> Any:
        return self.live.values()

    def get_trial(self, trial_id: str) -> Trial | None:
        return self.trials.get(trial_id)

    def total_resources(self) -> dict[str, float]:
        return self.resources

    def stop_trial(self, trial: Trial) -> None:
        if trial.is_finished():
            return
        if trial.status == Trial.RUNNING:
            assert trial.trial_id != self.current, "the trial at hand is stopped by the decision on it"
            self._leave_slot(trial)
            self._end(trial, Trial.TERMINATED, "complete", trial.last_result)
        else:
            self._end(trial, Trial.TERMINATED, "remove")

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        assert trial.status == Trial.RUNNING
        self._leave_slot(trial, save=should_checkpoint)
        trial.status = Trial.PAUSED
        self._happened("status", trial, trial.status)
        self.note("pause", trial)

    def resume_trial(self, trial: Trial) -> None:
        assert trial.status == Trial.PAUSED, trial
        trial.status = Trial.PENDING
        self._happened("status", trial, trial.status)
        self.note("resume", trial)

    def save_trial(self, trial: Trial) -> Saved | None:
        if self.checkpoints and trial.status == Trial.RUNNING:
            self._save(trial)
        return trial.checkpoint

    def reset_trial(self, trial: Trial, config, checkpoint=None, tag=None, resources=None) -> None:
        assert not trial.is_finished()
        trial.config = config
        if checkpoint is not None:
            trial.checkpoints = [(checkpoint, checkpoint.metrics)]
        if tag is not None:
            trial.experiment_tag = tag
        self.iteration[trial.trial_id] = trial.checkpoint.iteration if trial.checkpoint else 0
        if resources is not None:
            trial.placement_group_factory = resources
        self._happened("reset", trial, (dict(config), list(trial.checkpoints), resources))
        if trial.status == Trial.RUNNING:
            self._schedule(trial)
        self.note("reset", trial, dict(config))

    # The sweep.

    def note(self, what: str, trial: Trial, data: Any = None) -> None:
        if self.record or what in ("resume", "end", "reset"):
            self.log.append((what, trial.trial_id, data))

    def tell(self, what: str, trial: Trial, result: dict[str, Any] | None = None) -> Any:
        if self.record:
            self.events.append((what, trial.trial_id, result))
        hook = getattr(self.scheduler, f"on_trial_{what}")
        return hook(self, trial) if result is None else hook(self, trial, result)

    def run(self, max_events: int | None = None) -> Simulator:
        """Go on until the sweep ends, or for so many results."""
        left = max_events
        while True:
            if left is not None and left <= 0:
                return self
            self.fill_slots()
            if not self.queue:
                break
            self.step()
            left = None if left is None else left - 1
        assert not self.live, f"the sweep stalls with {Counter(t.status for t in self.live.values())}"
        assert self.search_alg.is_finished()
        return self

    def fill_slots(self) -> None:
        while len(self.running) < self.slots:
            while self.pending < self.ahead and self.create_trial():
                pass
            trial = self.scheduler.choose_trial_to_run(self)
            while trial is None and self.create_trial():
                trial = self.scheduler.choose_trial_to_run(self)
            if trial is not None:
                assert trial.status == Trial.PENDING, trial
                self.start(trial)
            elif self.running or not self.live:
                # No slot idles while a trial could run.
                assert not self.record or not any(t.status == Trial.PENDING for t in self.live.values())
                return
            else:
                before = len(self.log)
                self.scheduler.on_stall(self)
                assert len(self.log) > before, f"nothing runs: {Counter(t.status for t in self.live.values())}"

    def create_trial(self) -> bool:
        number = len(self.trials)
        trial_id = f"sim_{number:05d}"
        config = self.search_alg.next_suggestion(trial_id)
        if config is None:
            return False
        trial = Trial(trial_id, "curve", config, index=number, experiment_tag=f"{number}_tag")
        trial.experiment_path = self.experiment_path
        trial.placement_group_factory = self.factory
        self.trials[trial_id] = self.live[trial_id] = trial
        self.pending += 1
        self.tell("add", trial)
        return True

    def start(self, trial: Trial) -> None:
        if trial.start_time is None:
            trial.start_time = self.clock
            self.pending -= 1
        elif not self.checkpoints:
            self.iteration[trial.trial_id] = 0
        trial.status = Trial.RUNNING
        self._happened("status", trial, trial.status)
        self.note("start", trial)
        self._schedule(trial)

    def _schedule(self, trial: Trial) -> None:
        self.generation += 1
        self.counter += 1
        self.running[trial.trial_id] = self.generation
        ready = self.clock + self.duration(trial, self.iteration[trial.trial_id] + 1)
        heapq.heappush(self.queue, (ready, self.counter, trial.trial_id, self.generation))

    def _save(self, trial: Trial) -> None:
        saved = Saved(trial.trial_id, self.iteration[trial.trial_id], trial.last_result)
        trial.checkpoints = [(saved, trial.last_result)]
        self._happened("checkpoint", trial, trial.checkpoints)

    def _happened(self, what: str, trial: Trial, data: Any) -> None:
        """Note what a replay has to know beside what the scheduler was told."""
        if self.record:
            self.events.append((what, trial.trial_id, data))

    def _leave_slot(self, trial: Trial, save: bool = True) -> None:
        if self.checkpoints and save:
            self._save(trial)
        del self.running[trial.trial_id]

    def step(self) -> None:
        """The next result of a trial that runs."""
        self.clock, _, trial_id, generation = heapq.heappop(self.queue)
        if self.running.get(trial_id) != generation:
            return
        trial = self.trials[trial_id]
        self.steps += 1
        self.iteration[trial_id] += 1
        self.results_of[trial_id] += 1
        iteration = self.iteration[trial_id]
        self.current = trial_id
        try:
            value = self.value(trial, iteration)
        except ArithmeticError as error:
            self._fail(trial, error)
            return
        finally:
            self.current = None
        result = {"training_iteration": iteration, "time_total_s": self.clock, "trial_id": trial_id}
        result.update(value if isinstance(value, dict) else {"score": value})
        trial.last_result = result
        if iteration >= self.length(trial):
            self._leave_slot(trial)
            self._end(trial, Trial.TERMINATED, "complete", result)
            return
        self.current = trial_id
        decision = self.tell("result", trial, result)
        self.current = None
        self.note(decision, trial, iteration)
        if decision == "CONTINUE":
            self._schedule(trial)
        elif decision == "PAUSE":
            self.pause_trial(trial)
        elif decision == "STOP":
            self._leave_slot(trial)
            self._end(trial, Trial.TERMINATED, None)
        else:
            assert decision == "NOOP", decision

    def _fail(self, trial: Trial, error: Exception) -> None:
        del self.running[trial.trial_id]
        trial.num_failures += 1
        if trial.num_failures <= self.retries:
            trial.status = Trial.PENDING
            self._happened("status", trial, trial.status)
            self.iteration[trial.trial_id] = trial.checkpoint.iteration if trial.checkpoint else 0
            return
        trial.error = error
        self._end(trial, Trial.ERROR, "error")

    def _end(self, trial: Trial, status: str, hook: str | None, result: dict[str, Any] | None = None) -> None:
        if trial.start_time is None:
            self.pending -= 1
        # In the order of the controller: those who decide are told before the trial counts as ended.
        self.note("end", trial, status)
        if hook:
            self.tell(hook, trial, result)
        self.search_alg.on_trial_complete(trial.trial_id)
        del self.live[trial.trial_id]
        trial.status = status
        self._happened("end", trial, None)


class Inert:
    """A controller whose actions do nothing, for the replay of a simulator's events through another scheduler."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.trials: dict[str, Trial] = {}
        original = simulator.search_alg
        self.search_alg = Search(original.total, original.config)
        self.search_alg.total_samples = original.total_samples

    def replay(self, scheduler: Any, events: list[tuple[str, str, Any]]) -> None:
        for what, trial_id, result in events:
            if what == "add":
                done = self._simulator.trials[trial_id]
                trial = Trial(trial_id, "curve", self.search_alg.next_suggestion(trial_id), index=done.index)
                trial.experiment_tag = f"{done.index}_tag"
                trial.experiment_path = done.experiment_path
                trial.placement_group_factory = self._simulator.factory
                self.trials[trial_id] = trial
            trial = self.trials[trial_id]
            if what == "status":
                trial.status = result
                continue
            if what == "checkpoint":
                trial.checkpoints = list(result)
                continue
            if what == "reset":
                config, trial.checkpoints, resources = result
                trial.config = dict(config)
                trial.placement_group_factory = resources or trial.placement_group_factory
                continue
            if what == "end":
                trial.status = Trial.TERMINATED
                continue
            if what == "result":
                trial.last_result = result
            hook = getattr(scheduler, f"on_trial_{what}")
            if result is None:
                hook(self, trial)
            else:
                hook(self, trial, result)

    def get_trials(self) -> list[Trial]:
        return list(self.trials.values())

    def get_live_trials(self) -> list[Trial]:
        return [t for t in self.trials.values() if not t.is_finished()]

    def get_trial(self, trial_id: str) -> Trial | None:
        return self.trials.get(trial_id)

    def total_resources(self) -> dict[str, float]:
        return self._simulator.resources

    def save_trial(self, trial: Trial) -> Any:
        return trial.checkpoint

    def stop_trial(self, trial: Trial) -> None: ...

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None: ...

    def resume_trial(self, trial: Trial) -> None: ...

    def reset_trial(self, trial: Trial, config, checkpoint=None, tag=None, resources=None) -> None: ...

"""The controller of a sweep: it starts trials, writes down what they report, and carries out what is decided."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import mltoolkit
from mltoolkit import exceptions
from mltoolkit.train import Checkpoint
from mltoolkit.tune.callback import CallbackList
from mltoolkit.tune.context import TuneContext
from mltoolkit.tune.error import MissingMetricError, StorageError, TuneError
from mltoolkit.tune.execution._calls import PendingCalls
from mltoolkit.tune.execution._checkpoint_io import FilesLostError, PackedFolder, StorageMarker, pack
from mltoolkit.tune.execution._interrupt import InterruptGuard
from mltoolkit.tune.execution._messages import Assignment, Outcome, SavedCheckpoint, SlotInfo
from mltoolkit.tune.execution._settings import SweepSettings
from mltoolkit.tune.execution._slots import Slot, SlotPool
from mltoolkit.tune.execution._snapshot import SnapshotWriter
from mltoolkit.tune.execution._storage import TrialStorage
from mltoolkit.tune.execution._sweep import DONE, Action, Sweep
from mltoolkit.tune.execution._trial_factory import TrialFactory
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.progress_reporter import ProgressReporter
from mltoolkit.tune.result import EPISODES_TOTAL, TIME_TOTAL_S, TIMESTEPS_TOTAL, TRAINING_ITERATION
from mltoolkit.tune.schedulers.trial_scheduler import FIFOScheduler, TrialScheduler

__all__ = ["TuneController"]

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_DRAIN_S = 5.0
_END_S = 30.0
_NODE_LOSSES = 3
_PROGRESS = (TRAINING_ITERATION, TIME_TOTAL_S, TIMESTEPS_TOTAL, EPISODES_TOTAL)


_UNSCHEDULABLE = (exceptions.ActorUnschedulableError, exceptions.TaskUnschedulableError)


class TuneController:
    """Runs one sweep on the calling thread.

    Also what schedulers act through: see :class:`mltoolkit.tune.schedulers.trial_scheduler.Controller`.

    Parameters
    ----------
    settings : SweepSettings
    sweep : Sweep
        New, or as it was restored.
    storage : TrialStorage
    reporter : ProgressReporter
    callback_state : dict, optional
        Of a restored sweep's callbacks.
    """

    def __init__(
        self,
        settings: SweepSettings,
        sweep: Sweep,
        storage: TrialStorage,
        reporter: ProgressReporter,
        callback_state: dict[Any, Any] | None = None,
    ) -> None:
        self._settings = settings
        self._sweep = sweep
        self._storage = storage
        self._reporter = reporter
        self._callback_state = callback_state
        self._callbacks = CallbackList(settings.callbacks)
        self._snapshots = SnapshotWriter(settings, storage.journal)
        self._marker = StorageMarker.create(settings.experiment_path)
        self._slots = SlotPool(self._marker, settings.trainable_name)
        self._slot_of: dict[str, Slot] = {}
        self._calls = PendingCalls()
        self._trainable = mltoolkit.put(settings.trainable)
        self._is_class = isinstance(settings.trainable, type)
        mltoolkit.util.preload_modules(*getattr(settings.trainable, "preloaded_modules", ()))
        self._reuse = settings.reuse_actors if settings.reuse_actors is not None else not self._is_class
        self._factory = TrialFactory(settings, sweep.in_order)
        self._iteration = 0
        self._clearing: set[Slot] = set()
        """Slots whose trial is being ended, and which the next one will have."""
        self._resets: set[str] = set()
        self._stops: set[str] = set()
        self._pauses: set[str] = set()
        self._lost_nodes: dict[str, int] = {}
        self._failed_fast: Trial | None = None
        self._warned_of_loss = False
        self._at_once = False
        self.interrupted = False

    # ---- what schedulers may ask -------------------------------------------------------------------------------------

    def get_trials(self) -> Sequence[Trial]:
        """All trials so far."""
        return self._sweep.in_order

    def get_live_trials(self) -> Sequence[Trial]:
        """Those that have neither finished nor failed."""
        return list(self._sweep.live.values())

    def get_trial(self, trial_id: str) -> Trial | None:
        """The trial of an id."""
        return self._sweep.trials.get(trial_id)

    @property
    def search_alg(self) -> Any:
        """The search algorithm."""
        return self._settings.search_alg

    def total_resources(self) -> dict[str, float]:
        """What the cluster has."""
        return dict(self._slots.totals())

    def stop_trial(self, trial: Trial) -> None:
        """End a trial for good."""
        if trial.is_finished():
            return
        slot = self._slot_of.get(trial.trial_id)
        if slot is None:
            self._end_trial(trial, "removed")
        else:
            self._stops.add(trial.trial_id)

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        """Take a running trial off its slot, at its next result where it is not at one."""
        slot = self._slot_of.get(trial.trial_id)
        if slot is None or trial.is_finished():
            return
        if slot.at_rest:
            if should_checkpoint:
                self.save_trial(trial)
            self._put_off(trial, Trial.PAUSED)
        else:
            self._pauses.add(trial.trial_id)

    def resume_trial(self, trial: Trial) -> None:
        """Let a paused trial be chosen again."""
        if trial.status == Trial.PAUSED:
            self._note_wait(trial, Trial.PENDING)

    def save_trial(self, trial: Trial) -> Checkpoint | None:
        """A checkpoint of a trial as it is now."""
        slot = self._slot_of.get(trial.trial_id)
        if self._is_class and slot is not None and slot.at_rest:
            last = trial.checkpoints[-1][1] if trial.checkpoints else {}
            if last.get(TRAINING_ITERATION) != trial.last_result.get(TRAINING_ITERATION):
                self._take_checkpoint(trial, mltoolkit.get(slot.actor.save.remote()))
        return trial.checkpoint

    def reset_trial(
        self,
        trial: Trial,
        config: dict[str, Any],
        checkpoint: Checkpoint | None = None,
        tag: str | None = None,
        resources: PlacementGroupFactory | None = None,
    ) -> None:
        """Let a trial go on with another configuration, from a checkpoint."""
        if checkpoint is not None and checkpoint is not trial.checkpoint:
            # A copy of its own: the donor may delete its checkpoint before this trial has read it.
            donor = next(
                (t for t in self._sweep.trials.values() if any(c == checkpoint for c, _ in t.checkpoints)), None
            )
            metrics = next((m for c, m in donor.checkpoints if c == checkpoint), {}) if donor else {}
            self._storage.adopt_checkpoint(trial, checkpoint, metrics)
        if resources is not None:
            trial.placement_group_factory = resources
        trial.config = config
        if tag is not None:
            trial.experiment_tag = tag
        self._storage.note_reset(trial)
        if trial.trial_id in self._slot_of:
            self._resets.add(trial.trial_id)

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the sweep to its end.

        Raises
        ------
        TuneError
            If it cannot go on: results that cannot be written, a metric that no trial reports, a callback that raised.
        """
        settings = self._settings
        self._callbacks.setup(
            settings.stopper,
            settings.num_samples,
            settings.search_alg.total_samples,
            experiment_path=settings.experiment_path,
            metric=settings.metric,
            mode=settings.mode,
        )
        if self._callback_state:
            self._callbacks.set_state(self._callback_state)
        self._snapshots.write(self._callbacks)
        with InterruptGuard() as guard:
            try:
                for trial in self._sweep.pending_revivals:
                    self._sweep.revive(trial, self)
                for trial, reason in self._sweep.owed:
                    self._end_trial(trial, reason)
                for action in self._sweep.owed_actions:
                    self._make_good(action)
                while self._turn(guard):
                    pass
                # Before what comes in while the trials end: nobody decides about that now, a restored sweep does.
                self._snapshots.write(self._callbacks)
                self._drain()
            except KeyboardInterrupt:  # the second Ctrl-C
                self.interrupted = self._at_once = True
            except BaseException as error:
                self._abandon()
                if mltoolkit.is_initialized():
                    raise
                raise TuneError(
                    "The runtime was shut down while the sweep ran. All that was reported is kept; go on with "
                    f"tune.Tuner.restore({str(settings.experiment_path)!r})."
                ) from error
            finally:
                if mltoolkit.is_initialized():
                    self._slots.close_all()
                self._marker.remove()
        if self.interrupted:
            logger.warning(
                "The sweep was interrupted, all that was reported is kept. Go on with: tune.Tuner.restore(%r)",
                str(settings.experiment_path),
            )
        self._callbacks.on_experiment_end(self._sweep.in_order)
        self._report(done=True)
        if self._at_once:
            raise KeyboardInterrupt
        failed = self._failed_fast
        if failed is not None and settings.failure_config.fail_fast == "raise" and failed.error is not None:
            raise failed.error

    def _make_good(self, action: Action) -> None:
        """Do what the scheduler of a restored sweep asked for before its driver died."""
        trial = action.trial
        if trial.is_finished():
            return
        if action.name == "pause_trial":
            self._note_wait(trial, Trial.PAUSED)
        else:
            getattr(self, action.name)(trial, **action.options)

    def _turn(self, guard: InterruptGuard) -> bool:
        """One turn: fill the slots, wait for something to happen, handle it. False when the sweep is over."""
        if guard.requested:
            self.interrupted = True
            return False
        if self._failed_fast is not None or self._settings.stopper.stop_all():
            return False
        self._callbacks.on_step_begin(self._iteration, self._sweep.in_order)
        self._fill()
        if not self._calls and self._sweep.live:
            self._settings.scheduler.on_stall(self)
            self._fill()
        if not self._calls and self._is_over():
            return False
        self._report()
        for call in self._calls.wait(_POLL_S):
            call.react(call.slot, call.ref)
            if guard.requested:
                break
        self._check_deadlines()
        self._snapshots.write_if_due(self._callbacks)
        self._callbacks.on_step_end(self._iteration, self._sweep.in_order)
        self._iteration += 1
        return True

    def _is_over(self) -> bool:
        if self._sweep.live:
            waiting = ", ".join(f"{t} ({t.status})" for t in list(self._sweep.live.values())[:5])
            raise TuneError(
                f"{type(self._settings.scheduler).__name__} lets nothing run, though {len(self._sweep.live)} trials "
                f"wait: {waiting}. Nothing that could change its mind is under way; this is a fault of the scheduler."
            )
        if not self._settings.search_alg.is_finished():
            searcher = getattr(self.search_alg, "searcher", self.search_alg)
            raise TuneError(
                f"{type(searcher).__name__} gives no configuration and is not finished, though no trial is under way "
                "whose result it could wait for."
            )
        return True

    def _check_deadlines(self) -> None:
        for slot in self._calls.overdue():
            self._close(slot)
        self._slots.warn_if_starved()

    def _report(self, done: bool = False) -> None:
        trials = self._sweep.in_order
        if self._reporter.should_report(trials, done=done):
            self._reporter.report(trials, done, *self._about())

    def _about(self) -> list[str]:
        """Lines about the sweep as a whole: a scheduler worth naming, and what of the cluster it holds."""
        lines = []
        if type(self._settings.scheduler) is not FIFOScheduler:
            lines.append(self._settings.scheduler.debug_string())
        if len(self._slots):
            lines.append(self._slots.usage())
        return lines

    # ---- starting trials ---------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start what can be started."""
        limit = self._settings.max_concurrent
        while not limit or len(self._slot_of) < limit:
            trial = self._next_trial()
            if trial is None or not self._place(trial):
                break
        if self._settings.search_alg.is_finished() and len(self._slot_of) >= len(self._sweep.live):
            for slot in [s for s in self._slots if s.is_idle]:
                self._close(slot)

    def _next_trial(self) -> Trial | None:
        """The trial to start next: one that waits, or a new one while there is room for it."""
        chosen = self._settings.scheduler.choose_trial_to_run(self)
        while chosen is None:
            if not self._slots_left() or not self._create_trial():
                return None
            chosen = self._settings.scheduler.choose_trial_to_run(self)
        if chosen.status not in (Trial.PENDING, Trial.PAUSED):
            raise TuneError(
                f"{type(self._settings.scheduler).__name__}.choose_trial_to_run chose {chosen}, which is "
                f"{chosen.status}; only a PENDING trial can be started."
            )
        return chosen

    def _slots_left(self) -> bool:
        """Whether there is room for a trial like the last one: suggestions are drawn no earlier than needed."""
        if any(slot.is_idle for slot in self._slots) or not self._sweep.trials:
            return True
        last = next(reversed(self._sweep.trials.values()))
        return self._slots.has_room(self._factory.resources_of(last))

    def _create_trial(self) -> bool:
        search = self._settings.search_alg
        if search.is_finished():
            return False
        suggestion = search.next_suggestion(self._factory.next_id)
        if suggestion is None:
            return False
        trial = self._factory.make(suggestion)
        self._factory.resources_of(trial)
        self._storage.note_created(trial)
        if self._settings.restore_from is not None:
            self._storage.adopt_checkpoint(trial, Checkpoint.from_directory(self._settings.restore_from), {})
        self._sweep.add(trial, self)
        return True

    def _place(self, trial: Trial) -> bool:
        """Put a trial into a slot; False if there is no room."""
        resources = self._factory.resources_of(trial)
        slot = self._slots.idle(resources)
        if slot is None and any(slot.resources == resources for slot in self._clearing):
            return False  # it will be there in a moment
        while slot is None and not self._slots.has_room(resources):
            other = next((s for s in self._slots if s.is_idle), None)
            if other is None:
                return False
            self._close(other)
        self._claim(trial)
        if slot is not None:
            slot.trial = trial
            self._slot_of[trial.trial_id] = slot
            self._begin(slot, trial)
        else:
            slot = self._slots.open(resources)
            slot.trial = trial
            self._slot_of[trial.trial_id] = slot
            hello = slot.actor.hello.remote()
            self._calls.add(slot, hello, self._on_hello)
            # Local mode answers at once, from the driver itself, which can be one trial's process at a time.
            if len(self._slots) == 1 and mltoolkit.wait([hello], timeout=0)[0] and _is_here(hello):
                self._slots.limit = 1
        return True

    def _claim(self, trial: Trial) -> None:
        trial.status = Trial.RUNNING
        self._resets.discard(trial.trial_id)

    def _on_hello(self, slot: Slot, ref: mltoolkit.ObjectRef) -> None:
        trial = slot.trial
        assert trial is not None
        try:
            slot.info = mltoolkit.get(ref)
        except exceptions.RayError as error:
            failure = error
            if isinstance(error, (*_UNSCHEDULABLE, exceptions.ActorPlacementGroupRemoved)):
                self._failed_fast = trial  # no trial of this shape can ever run
            if isinstance(error, _UNSCHEDULABLE) and (help_text := self._resource_help(trial)):
                failure = type(error)(f"{error} {help_text}")
                failure.__cause__ = error
            self._fail_trial(trial, slot, failure)
            return
        self._begin(slot, trial)

    def _resource_help(self, trial: Trial) -> str:
        """What a class trainable tells users whose request fits nowhere."""
        return str(self._settings.trainable.resource_help(trial.config)) if self._is_class else ""

    def _begin(self, slot: Slot, trial: Trial) -> None:
        """Send a trial to its process."""
        settings = self._settings
        info = slot.info
        assert info is not None
        trial.location = f"{info.hostname}:{info.pid}"
        trial.start_time = trial.start_time or time.time()
        checkpoint = trial.checkpoint
        progress: dict[str, Any] = {}
        if trial.checkpoints:
            progress = {k: v for k, v in trial.checkpoints[-1][1].items() if k in _PROGRESS}
        try:
            place = None if checkpoint is None else self._place_of(checkpoint, info)
        except OSError as error:
            self._fail_trial(trial, slot, error)
            return
        self._storage.note_started(trial, progress.get(TRAINING_ITERATION, 0))
        task = Assignment(
            context=TuneContext(
                settings.name, trial.trial_id, str(trial), trial.path, trial.placement_group_factory, trial.seed
            ),
            trainable=self._trainable,
            config=trial.config,
            metric=settings.metric if isinstance(settings.metric, str) else None,
            checkpoint=place,
            progress=progress,
            checkpoint_index=self._storage.next_checkpoint_index(trial),
            checkpoint_frequency=settings.checkpoint_config.checkpoint_frequency,
            checkpoint_at_end=bool(settings.checkpoint_config.checkpoint_at_end),
            log_files=settings.log_files,
            change_directory=settings.change_directory,
            reuse=self._reuse,
        )
        self._calls.add(slot, slot.actor.begin.remote(task), self._on_outcome)
        slot.at_rest = False
        self._callbacks.on_trial_start(self._iteration, self._sweep.in_order, trial)
        if checkpoint is not None:
            self._callbacks.on_trial_restore(self._iteration, self._sweep.in_order, trial)

    @staticmethod
    def _place_of(checkpoint: Checkpoint, info: SlotInfo) -> str | PackedFolder:
        """Where a process finds a checkpoint: in the experiment's folder, or sent along."""
        return checkpoint.path if info.shares_storage else pack(checkpoint.path)

    # ---- what trials report ------------------------------------------------------------------------------------------

    def _on_outcome(self, slot: Slot, ref: mltoolkit.ObjectRef) -> None:
        trial = slot.trial
        assert trial is not None
        try:
            outcome: Outcome = mltoolkit.get(ref)
        except StorageError:
            raise  # the sweep stops: what cannot be written would be lost
        except exceptions.RayError as error:
            self._fail_trial(trial, slot, error)
            return
        slot.at_rest = True
        try:
            self._on_report(slot, trial, outcome)
        except MissingMetricError as error:
            if self._sweep.misnamed_metric:
                raise
            self._fail_trial(trial, slot, error)
        except exceptions.RayError as error:  # a scheduler wanted a checkpoint that the trial could not give
            self._fail_trial(trial, slot, error)

    def _on_report(self, slot: Slot, trial: Trial, outcome: Outcome) -> None:
        result = outcome.result
        if result is None:
            self._sweep.check_final(trial)
            self._end_trial(trial, "done", returned=outcome.returned)
            return
        kept = self._record(trial, result, outcome.checkpoint)
        decision = ""
        try:
            decision = self._sweep.judge(trial, result, self)
        finally:  # a result that cannot be judged is one all the same
            if decision in (DONE, TrialScheduler.STOP) or trial.trial_id in self._stops:
                result["done"] = True
            self._show(trial, result, kept)
        if self._slot_of.get(trial.trial_id) is not slot:
            return  # the scheduler paused it itself
        if decision == DONE or trial.trial_id in self._stops or decision == TrialScheduler.STOP:
            if self._is_class and self._settings.checkpoint_config.checkpoint_at_end:
                self.save_trial(trial)
            self._end_trial(trial, "done" if decision == DONE else "stopped", returned=outcome.returned)
        elif decision == TrialScheduler.PAUSE or trial.trial_id in self._pauses:
            self.pause_trial(trial)
        elif trial.trial_id in self._resets:
            self._restart(slot, trial)
        elif decision in (TrialScheduler.CONTINUE, TrialScheduler.NOOP):
            slot.at_rest = False
            self._calls.add(slot, slot.actor.advance.remote(), self._on_outcome)
        else:
            raise TuneError(
                f"{type(self._settings.scheduler).__name__}.on_trial_result returned {decision!r}; allowed are "
                "TrialScheduler.CONTINUE, PAUSE, STOP and NOOP."
            )

    def _record(self, trial: Trial, result: dict[str, Any], saved: SavedCheckpoint | None) -> bool:
        """Write down what a trial reported; whether with a checkpoint.

        Result and checkpoint are noted together: callbacks, which may take long or fail, come after both.
        """
        result["experiment_tag"] = trial.experiment_tag
        result["checkpoint_dir_name"] = None if saved is None else saved.name
        self._storage.note_result(trial, result)
        result["config"] = trial.config
        trial.update_last_result(result)
        return saved is not None and self._keep_checkpoint(trial, saved)

    def _show(self, trial: Trial, result: dict[str, Any], kept: bool) -> None:
        """Let callbacks see a result, and the checkpoint that came with it."""
        self._callbacks.on_trial_result(self._iteration, self._sweep.in_order, trial, result)
        if kept:
            self._announce_checkpoint(trial)

    def _take_checkpoint(self, trial: Trial, saved: SavedCheckpoint) -> None:
        if self._keep_checkpoint(trial, saved):
            self._announce_checkpoint(trial)

    def _keep_checkpoint(self, trial: Trial, saved: SavedCheckpoint) -> bool:
        """Note a checkpoint down; False if it has been lost."""
        try:
            self._storage.keep_checkpoint(trial, saved)
        except FilesLostError as error:
            # The result stands. If the host is gone, the next call says so and the trial goes on from an earlier one.
            logger.warning("A checkpoint of trial %s did not arrive: %s", trial, error)
            return False
        return True

    def _announce_checkpoint(self, trial: Trial) -> None:
        checkpoint = trial.checkpoint
        assert checkpoint is not None
        self._callbacks.on_trial_save(self._iteration, self._sweep.in_order, trial)
        self._callbacks.on_checkpoint(self._iteration, self._sweep.in_order, trial, checkpoint)

    def _restart(self, slot: Slot, trial: Trial) -> None:
        """Go on with the configuration that a scheduler gave, in the same process where that may be."""
        self._resets.discard(trial.trial_id)
        if slot.resources == self._factory.resources_of(trial) and (self._reuse or not self._is_class):
            self._begin(slot, trial)
        else:
            self._put_off(trial, Trial.PENDING)

    # ---- how trials leave their slots --------------------------------------------------------------------------------

    def _put_off(self, trial: Trial, status: str) -> None:
        if trial.last_result and trial.checkpoint is None and not self._warned_of_loss and not self.interrupted:
            self._warned_of_loss = True
            logger.warning(
                "%s takes trial %s off its slot, but it has no checkpoint, so it will begin anew. Give one with each result: "
                "`tune.report(metrics, checkpoint=...)`.",
                type(self._settings.scheduler).__name__,
                trial,
            )
        self._note_wait(trial, status)
        self._free(trial)

    def _note_wait(self, trial: Trial, status: str) -> None:
        self._storage.note_wait(trial, status)
        trial.status = status

    def _end_trial(
        self, trial: Trial, reason: str, error: BaseException | None = None, *, returned: bool = False
    ) -> None:
        """A trial ends: written down, told to those who decide, and its slot freed.

        ``returned``: its function has come to its end, so that its process is free at once.
        """
        status = Trial.ERROR if reason == "error" else Trial.TERMINATED
        self._storage.note_end(trial, status, reason, error)
        if trial.last_result and reason != "error":
            trial.last_result["done"] = True
        self._sweep.end(trial, reason, self)
        trial.status = status
        trial.end_time = time.time()
        self._free(trial, finished=reason == "done" and returned)
        if reason == "error":
            self._callbacks.on_trial_error(self._iteration, self._sweep.in_order, trial)
        else:
            self._callbacks.on_trial_complete(self._iteration, self._sweep.in_order, trial)

    def _free(self, trial: Trial, finished: bool = False) -> None:
        """Take a trial off its slot: the process ends it, then waits for another one or ends as well."""
        slot = self._slot_of.pop(trial.trial_id, None)
        self._forget_requests(trial)
        if slot is None:
            return
        slot.trial = None
        slot.at_rest = False
        info, slot.info = slot.info, None  # not idle before the process says so
        if finished and self._reuse:
            slot.info = info
            return
        if self._reuse:
            self._clearing.add(slot)

        def ended(slot: Slot, ref: mltoolkit.ObjectRef) -> None:
            self._clearing.discard(slot)
            try:
                mltoolkit.get(ref)
            except exceptions.RayError as error:
                # The trial has ended with all its results; what its clean-up did cannot change that.
                logger.warning("Trial %s failed while it was cleaned up: %s", trial, error)
                self._close(slot)
                return
            if self._reuse:
                slot.info = info
            else:
                self._close(slot)

        self._calls.add(slot, slot.actor.end.remote(), ended, _END_S)

    def _forget_requests(self, trial: Trial) -> None:
        """What a scheduler asked of a running trial ends with the run."""
        for requests in (self._resets, self._stops, self._pauses):
            requests.discard(trial.trial_id)

    def _close(self, slot: Slot) -> None:
        self._calls.drop(slot)
        if slot.trial is not None:
            self._slot_of.pop(slot.trial.trial_id, None)
            slot.trial = None
        self._clearing.discard(slot)
        self._slots.close(slot)

    def _fail_trial(self, trial: Trial, slot: Slot, error: BaseException) -> None:
        """A trial raised or its process died: try again where that is wanted, else it has failed."""
        info = slot.info
        self._close(slot)
        failures = self._settings.failure_config
        if isinstance(error, exceptions.RayActorError) and info is not None and self._is_lost(info.node_id):
            # Not the trial's fault: the sweep finishes with all its samples, other nodes take over.
            lost = self._lost_nodes[trial.trial_id] = self._lost_nodes.get(trial.trial_id, 0) + 1
            if lost <= _NODE_LOSSES:
                self._retry(trial, error, counted=False)
                return
        may_retry = failures.max_failures < 0 or trial.num_failures < failures.max_failures
        if may_retry and self._failed_fast is None and not isinstance(error, MissingMetricError):
            trial.num_failures += 1
            self._retry(trial, error, counted=True)
            return
        trial.num_failures += 1
        trial.error = error
        if failures.fail_fast:
            self._failed_fast = trial
        self._end_trial(trial, "error", error)

    def _retry(self, trial: Trial, error: BaseException, *, counted: bool) -> None:
        self._storage.note_failure(trial, error, counted=counted)
        self._forget_requests(trial)
        trial.status = Trial.PENDING
        self._callbacks.on_trial_recover(self._iteration, self._sweep.in_order, trial)

    @staticmethod
    def _is_lost(node_id: str) -> bool:
        return all(node["NodeID"] != node_id or not node["Alive"] for node in mltoolkit.nodes())

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _abandon(self) -> None:
        """The sweep ends with an error: let callbacks close their files, and the error go on."""
        try:
            self._callbacks.on_experiment_end(self._sweep.in_order)
        except Exception as error:
            logger.warning("A callback failed while the sweep was ending: %s", error)

    def _drain(self) -> None:
        """End what still runs: each trial at its next result, or after a few seconds.

        An interrupted sweep leaves its trials to be gone on with; one that has met its end ends them for good.
        """
        deadline = time.monotonic() + _DRAIN_S
        for trial in [t for t in self._sweep.live.values() if t.trial_id not in self._slot_of]:
            self._leave(trial)
        try:
            while self._calls and time.monotonic() < deadline:
                for call in self._calls.wait(_POLL_S):
                    if call.react == self._on_outcome:
                        self._take_last(call.slot, call.ref)
                    elif call.slot.trial is not None:
                        self._close(call.slot)
                    else:
                        call.react(call.slot, call.ref)
                for slot in [s for s in self._slots if s.trial is not None and s.info is None]:
                    trial = slot.trial
                    self._close(slot)
                    if trial is not None:
                        self._leave(trial)
        except KeyboardInterrupt:
            self.interrupted = self._at_once = True
        for trial in list(self._sweep.live.values()):
            self._leave(trial)

    def _take_last(self, slot: Slot, ref: mltoolkit.ObjectRef) -> None:
        trial = slot.trial
        assert trial is not None
        try:
            outcome: Outcome = mltoolkit.get(ref)
        except StorageError:
            raise
        except exceptions.RayError as error:
            self._fail_trial(trial, slot, error)
            return
        slot.at_rest = True
        result = outcome.result
        if result is not None:
            kept = self._record(trial, result, outcome.checkpoint)
            if not self._goes_on:
                result["done"] = True
            self._show(trial, result, kept)
        if result is None or result.get("done"):
            self._end_trial(trial, "done")
            return
        if self._is_class and (self.interrupted or self._settings.checkpoint_config.checkpoint_at_end):
            try:
                self.save_trial(trial)
            except (exceptions.RayError, NotImplementedError):
                pass  # it cannot be saved: it will begin anew
        self._leave(trial)

    @property
    def _goes_on(self) -> bool:
        """Whether what is unfinished at the end of the sweep is left to a restored one."""
        return self.interrupted or self._failed_fast is not None

    def _leave(self, trial: Trial) -> None:
        """A trial that the end of the sweep found unfinished."""
        if trial.is_finished():
            return
        if self._goes_on:
            if trial.status == Trial.RUNNING:
                self._put_off(trial, Trial.PENDING)
            self._sweep.live.pop(trial.trial_id, None)
        else:
            self._end_trial(trial, "sweep")


def _is_here(hello: mltoolkit.ObjectRef) -> bool:
    try:
        return bool(mltoolkit.get(hello).pid == os.getpid())
    except exceptions.RayError:
        return False  # whoever waits for it gets the error

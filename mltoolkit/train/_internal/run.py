"""A training run from its first worker to its last report; directed from the process of its trial."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import mltoolkit
from mltoolkit.exceptions import RayError
from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._internal.failures import StallWatch, collect_failures, make_error, stall_after_s
from mltoolkit.train._internal.worker import Exchange, Report, RunSetup
from mltoolkit.train._internal.worker_group import Worker, WorkerGroup
from mltoolkit.train.backend import BackendConfig
from mltoolkit.train.context import TrainContext
from mltoolkit.train.error import WorkerGroupError

__all__ = ["TrainingRun"]

_TICK_S = 1.0


class TrainingRun:
    """Directs workers: starts them, takes their reports together, ends them.

    Parameters
    ----------
    session : Session
        Of the trial: takes results and checkpoints, and gives what to go on from.
    group : WorkerGroup
        Not started yet.
    backend_config : BackendConfig
    function : callable
        What each worker runs.
    args : tuple
    shards : callable
        Given the number of workers, returns each worker's datasets.
    metadata : dict
    callbacks : sequence of callable
        Called with ``"after_report"``, the metrics of all ranks and the checkpoint, and with ``"after_exception"`` and the
        failures by rank.
    """

    def __init__(
        self,
        session: Any,
        group: WorkerGroup,
        backend_config: BackendConfig,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        shards: Callable[[int], list[dict[str, Any]]],
        metadata: Mapping[str, Any],
        make_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        checkpoint: Checkpoint | None = None,
        callbacks: Sequence[Callable[..., None]] = (),
    ) -> None:
        self._session = session
        self._group = group
        self._backend_config = backend_config
        self._function = function
        self._args = args
        self._shards = shards
        self._metadata = dict(metadata)
        self._make_context = make_context
        self._checkpoint = checkpoint
        self._callbacks = callbacks
        self._marker: Any = None
        self._reports = 0

    def run(self) -> Any:
        """Run to the end.

        Returns
        -------
        object
            What the function has returned on rank 0.

        Raises
        ------
        WorkerGroupError
            If workers fail.
        NotEnoughResourcesError
            If there can never be so many.
        """
        backend = self._backend_config.backend_cls()
        # Pickled before a process starts: what cannot be sent is said at once.
        call = mltoolkit.put((self._function, self._args, self._make_context))
        try:
            self._group.start()
            self._leave_marker()
            if backend.share_cuda_visible_devices:
                self._group.share_gpus()
            backend.on_start(self._group, self._backend_config)
            self._begin()
            backend.on_training_start(self._group, self._backend_config)
            returned = self._follow(call)
            backend.on_shutdown(self._group, self._backend_config)
            return returned
        except WorkerGroupError as error:
            for call_back in self._callbacks:
                call_back("after_exception", error.worker_failures)
            raise
        finally:
            self._group.shutdown()
            if self._marker is not None:
                self._marker.remove()

    @property
    def _workers(self) -> list[Worker]:
        return self._group.workers

    def _error(self, failures: dict[int, BaseException]) -> BaseException:
        return make_error(failures, self._workers)

    # Setting up

    def _leave_marker(self) -> None:
        from mltoolkit.tune.execution._checkpoint_io import StorageMarker

        self._marker = StorageMarker.create(Path(self._trial_dir()))

    def _trial_dir(self) -> str:
        return str(self._session.context.get_trial_dir())

    def _begin(self) -> None:
        context = self._session.context
        checkpoint = self._session.get_checkpoint() or self._checkpoint
        shards = self._shards(len(self._workers))
        # As this process does, which the sweep has told.
        change_directory = os.path.realpath(os.getcwd()) == os.path.realpath(self._trial_dir())
        begun = []
        for worker, datasets in zip(self._workers, shards, strict=True):
            ranks = worker.ranks
            own = TrainContext(
                world_size=ranks.world_size,
                world_rank=ranks.world_rank,
                local_world_size=ranks.local_world_size,
                local_rank=ranks.local_rank,
                node_rank=ranks.node_rank,
                experiment_name=context.get_experiment_name(),
                trial_id=context.get_trial_id(),
                trial_name=context.get_trial_name(),
                trial_dir=context.get_trial_dir(),
                trial_resources=context.get_trial_resources(),
                metadata=self._metadata,
            )
            place = self._place_of(checkpoint, worker)
            setup = RunSetup(own, self._trial_dir(), self._marker.path, place, datasets, change_directory)
            begun.append(worker.actor.begin.remote(setup))
        mltoolkit.get(begun)

    def _place_of(self, checkpoint: Checkpoint | None, worker: Worker) -> Any:
        """The checkpoint for a worker: by its path where the worker sees it, else its files."""
        if checkpoint is None or checkpoint._filesystem is not None:
            return checkpoint
        if mltoolkit.get(worker.actor.execute.remote(os.path.exists, self._marker.path)):
            return checkpoint.path
        from mltoolkit.tune.execution._checkpoint_io import pack

        return pack(checkpoint.path)

    # Following

    def _follow(self, call: Any) -> Any:
        """Take reports, round by round, until the function has ended everywhere; return what rank 0 has returned."""
        running = {
            worker.ranks.world_rank: worker.actor.execute.remote(_run_training, call) for worker in self._workers
        }
        watch = StallWatch(self._workers, stall_after_s())
        ended: set[int] = set()
        stored: str | None = None
        answer: Any = None
        while len(ended) < len(self._workers):
            asked = {
                worker.ranks.world_rank: worker.actor.next_report.remote(stored, answer)
                for worker in self._workers
                if worker.ranks.world_rank not in ended
            }
            reports = self._round(asked, running, ended, watch)
            ended.update(rank for rank, report in reports.items() if report is None)
            given = {rank: report for rank, report in reports.items() if report is not None}
            if given and ended:
                raise self._error(self._unequal(given, ended))
            exchanged = {rank: each for rank, each in given.items() if isinstance(each, Exchange)}
            stored, answer = None, None
            if exchanged and len(exchanged) < len(given):
                raise self._error(self._apart(min(exchanged), min(given.keys() - exchanged.keys())))
            if exchanged:
                answer = exchanged[0].data
            elif given:
                self._reports += 1
                stored = self._store(given)
        return mltoolkit.get(running[0])

    def _round(
        self, asked: dict[int, Any], running: dict[int, Any], ended: set[int], watch: StallWatch
    ) -> dict[int, Any]:
        """One report of each worker that still runs; None of those that have ended."""
        reports: dict[int, Any] = {}
        while len(reports) < len(asked):
            waiting = {asked[rank]: rank for rank in asked if rank not in reports}
            # Replies of functions that failed: an exception ends the reports as a return does.
            done, _ = mltoolkit.wait(list(waiting), num_returns=1, timeout=_TICK_S)
            for ref in done:
                rank = waiting[ref]
                try:
                    report = mltoolkit.get(ref)
                    if report is None:
                        mltoolkit.get(running[rank])
                except RayError as error:
                    raise self._error(collect_failures({rank: error}, running)) from None
                reports[rank] = report
            if not done:
                at_rest = dict.fromkeys(ended, "has ended")
                for rank, each in reports.items():
                    at_rest[rank] = "has ended" if each is None else f"waits at its report number {self._reports + 1}"
                stalled = watch.check(at_rest)
                if stalled:
                    raise self._error(stalled)
        return reports

    def _unequal(self, given: dict[int, Report], ended: set[int]) -> dict[int, BaseException]:
        rank = min(given)
        return {
            min(ended): RuntimeError(
                f"It has ended after {self._reports} reports, but rank {rank} has reported once more. All ranks must call "
                "`train.report` equally often."
            )
        }

    def _apart(self, waiting: int, reporting: int) -> dict[int, BaseException]:
        return {
            waiting: RuntimeError(
                f"It waits in `train.collective` for the others, but rank {reporting} has called `train.report`. All ranks "
                "must call the same functions in the same order."
            )
        }

    def _store(self, reports: dict[int, Report]) -> str | None:
        """Pass rank 0's metrics on, with the checkpoints of all ranks as one; return where that is now."""
        lowest = min(reports)
        staged = [reports[rank].checkpoint for rank in sorted(reports) if reports[rank].checkpoint is not None]
        if staged:
            folder = _merged(staged, self._session.new_folder)
            self._session.make_checkpoint(Checkpoint(folder))
        self._session.report(reports[lowest].metrics, None)
        kept = self._session.get_checkpoint() if staged else None
        for call_back in self._callbacks:
            call_back("after_report", [reports[rank].metrics for rank in sorted(reports)], kept)
        return None if kept is None else str(kept.path)


def _run_training(call: tuple[Callable[..., Any], tuple[Any, ...], Callable[[], Any]]) -> Any:
    """Run the training function in a worker; rank 0's return value is kept."""
    from mltoolkit.train._session import current_session

    session: Any = current_session()
    try:
        function, args, make_context = call
        with make_context():
            returned = function(*args)
        return returned if session.context.get_world_rank() == 0 else None
    except SystemExit as error:
        if error.code not in (None, 0):
            raise RuntimeError(f"The training function called sys.exit({error.code!r}).") from error
        return None
    finally:
        session.end()


def _merged(staged: list[Any], new_folder: Callable[[], str]) -> str:
    """One folder of what the workers have staged; where files have the same name the lowest rank's are kept."""
    from mltoolkit.tune.execution._checkpoint_io import PackedFolder, unpack

    folders = []
    for place in staged:
        if isinstance(place, PackedFolder):
            folder = new_folder()
            inner = os.path.join(folder, "unpacked")
            unpack(place, inner)
            folders.append((inner, folder))
        else:
            folders.append((place, place))
    first, first_outer = folders[0]
    for folder, outer in folders[1:]:
        _move_missing(folder, first)
        shutil.rmtree(outer, ignore_errors=True)
    if first != first_outer:
        target = new_folder()
        _move_missing(first, target)
        shutil.rmtree(first_outer, ignore_errors=True)
        return target
    return str(first)


def _move_missing(source: str, target: str) -> None:
    for root, _, names in os.walk(source):
        inside = os.path.normpath(os.path.join(target, os.path.relpath(root, source)))
        os.makedirs(inside, exist_ok=True)
        for name in names:
            destination = os.path.join(inside, name)
            if not os.path.lexists(destination):
                os.rename(os.path.join(root, name), destination)

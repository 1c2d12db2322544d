"""Hands the chunks of a pool's jobs to its workers and the outcomes back to the jobs."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

import mltoolkit
from mltoolkit import exceptions
from mltoolkit.util.multiprocessing._dispatch import STUCK_S, Dispatcher, Slot
from mltoolkit.util.multiprocessing._results import Chunk, Job, _ResultIterator, unwrap
from mltoolkit.util.multiprocessing._worker import Failure, Mode, PoolWorker, Refusal

if TYPE_CHECKING:
    from concurrent.futures import Future

logger = logging.getLogger(__name__)

# Chunks of an iterator drawn before a worker is free for them, per worker: what its queue takes at most, twice.
_CHUNKS_AHEAD = 32
# After this the actors of a closed pool are ended by force. They have no work then, so it is only met if one is stuck.
_EXIT_GRACE_S = 30.0


class State(Enum):
    """What a pool is ready to do."""

    RUN = "RUN"
    CLOSE = "CLOSE"
    TERMINATE = "TERMINATE"


class _Signal(Enum):
    STOP = "stop"
    TERMINATE = "terminate"
    LOOK = "look"  # chunks are queued that may have to be taken back


class _Worker:
    """An actor of the pool, and what is known about its process."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.known: set[int] = set()
        self.stale: deque[int] = deque()

    def start(self, ticket: int, chunk: Chunk) -> Any:
        """Send a chunk; return the ref of its outcome."""
        job = chunk.job
        function = None if job.id in self.known else job.function
        ref = self.actor.run.remote(ticket, job.id, function, job.mode, chunk.items, self._take_stale())
        if job.mode is not Mode.APPLY:
            self.known.add(job.id)
        return ref

    def _take_stale(self) -> tuple[int, ...]:
        taken = []
        while True:
            try:
                taken.append(self.stale.popleft())
            except IndexError:
                return tuple(taken)

    def forget(self, job_id: int) -> None:
        """Have the process drop a function the next time that it hears from us."""
        if job_id in self.known:
            self.known.discard(job_id)
            self.stale.append(job_id)


class Engine:
    """The machinery of one pool.

    Outcomes come in on the runtime's threads, which only put them into a queue; one thread of the engine takes them
    out, gives the workers their next chunks and tells the jobs, callbacks included.

    Parameters
    ----------
    processes : int
        Number of workers.
    options : dict
        Actor options of the workers.
    initializer : callable or None
        Runs once in each worker.
    initargs : tuple
        Its arguments.
    maxtasksperchild : int or None
        Number of chunks after which a worker is replaced.
    """

    def __init__(
        self,
        processes: int,
        options: dict[str, Any],
        initializer: Callable[..., Any] | None,
        initargs: tuple[Any, ...],
        maxtasksperchild: int | None,
    ) -> None:
        self.state = State.RUN
        self.processes = processes
        self._maxtasksperchild = maxtasksperchild
        actor_class = mltoolkit.remote(concurrency_groups={"mail": 1}, num_cpus=0)(PoolWorker).options(**options)
        self._make_actor: Callable[[], Any] = lambda: actor_class.remote(initializer, initargs)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._stopped = threading.Event()
        self._jobs: set[Job] = set()
        self._dispatcher = Dispatcher(queueing=maxtasksperchild is None)
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._exits: list[Any] = []
        self._dispatcher.slots = {Slot(_Worker(self._make_actor())) for _ in range(processes)}
        self._check_initialized()
        self._thread = threading.Thread(target=self._collect, name="mltoolkit-pool", daemon=True)
        self._thread.start()

    def submit(self, job: Job, batches: Iterable[Any]) -> None:
        """Start a job of which all chunks are at hand."""
        chunks = [Chunk(job, index, items) for index, items in enumerate(batches)]
        with self._lock:
            self._check_running()
            if not chunks:
                return
            self._jobs.add(job)
            self._dispatcher.pending.extend(chunks)
        self._hand_out()

    def submit_from(self, job: _ResultIterator, batches: Iterator[Any]) -> None:
        """Start a job whose chunks are drawn from an iterator, by a thread of its own since it may block."""
        with self._lock:
            self._check_running()
            self._jobs.add(job)
        feeder = threading.Thread(target=self._feed, args=(job, batches), name="mltoolkit-pool-feeder", daemon=True)
        feeder.start()

    def close(self) -> None:
        """Take no more jobs; end when the last one has."""
        with self._lock:
            if self.state is not State.RUN:
                return
            self.state = State.CLOSE
            ended = not self._jobs
        if ended:
            self._events.put(_Signal.STOP)

    def terminate(self, reason: BaseException | None = None) -> None:
        """End at once; jobs that are not done fail, with `reason` if there is one."""
        with self._lock:
            if self.state is State.TERMINATE:
                return
            self.state = State.TERMINATE
            self._dispatcher.pending.clear()
            jobs, self._jobs = self._jobs, set()
            slots, self._dispatcher.slots = self._dispatcher.slots, set()
            self._room.notify_all()
        # Jobs first: they are to hear of the pool's end, not of the deaths that come of it.
        for job in jobs:
            job.fail(reason or RuntimeError("The pool was terminated before this result was there."))
        for slot in slots:
            self._kill(slot.worker)
        self._events.put(_Signal.STOP)

    def terminate_soon(self) -> None:
        """Do as `terminate` does, from a place where no lock may be taken, such as a finalizer."""
        self._events.put(_Signal.TERMINATE)

    def join(self) -> None:
        """Wait until a closed pool has ended, its processes included."""
        self._stopped.wait()
        with self._lock:
            exits, self._exits = self._exits, []
        deadline = time.monotonic() + _EXIT_GRACE_S
        for actor, ended in exits:
            if not mltoolkit.wait([ended], timeout=max(0.0, deadline - time.monotonic()))[0]:
                mltoolkit.kill(actor)

    def _terminated(self) -> bool:
        return self.state is State.TERMINATE

    def _check_running(self) -> None:
        if self.state is not State.RUN:
            raise ValueError("Pool not running")

    def _check_initialized(self) -> None:
        """Wait for the workers; raise what an initializer raised."""
        workers = [slot.worker for slot in self._dispatcher.slots]
        try:
            for answer in mltoolkit.get([worker.actor.ping.remote() for worker in workers]):
                if isinstance(answer, Failure):
                    raise unwrap(answer)
        except BaseException:
            for worker in workers:
                self._kill(worker)
            raise

    def _feed(self, job: _ResultIterator, batches: Iterator[Any]) -> None:
        num_chunks = 0
        pending = self._dispatcher.pending
        try:
            for items in batches:
                chunk = Chunk(job, num_chunks, items)
                with self._room:
                    self._room.wait_for(lambda: len(pending) < _CHUNKS_AHEAD * self.processes or self._terminated())
                    if self._terminated():
                        return
                    pending.append(chunk)
                num_chunks += 1
                self._hand_out()
        except Exception as error:
            # The error takes the place of the item that could not be drawn.
            job.deliver(Chunk(job, num_chunks, [None]), None, error)
            num_chunks += 1
        job.set_length(num_chunks)
        self._end_if_done(job)

    def _hand_out(self) -> None:
        """Give pending chunks to workers."""
        queued = False
        while True:
            with self._lock:
                assignment = self._dispatcher.assign(time.monotonic())
                if assignment is None:
                    break
                queued = queued or len(assignment[0].chunks) > 1
                self._room.notify()
            self._start(*assignment)
        if queued and threading.current_thread() is not self._thread:
            self._events.put(_Signal.LOOK)

    def _start(self, slot: Slot, ticket: int, chunk: Chunk) -> None:
        try:
            future = slot.worker.start(ticket, chunk).future()
        except BaseException as error:
            # Most likely the function or an item cannot be pickled: the caller learns it from the result.
            self._events.put((self._handle, slot, ticket, None, error))
            if not isinstance(error, Exception):
                raise
        else:
            future.add_done_callback(lambda done: self._events.put((self._handle, slot, ticket, done, None)))

    def _collect(self) -> None:
        next_look = 0.0
        while True:
            queued = self._dispatcher.queued()
            if queued and time.monotonic() >= next_look:
                self._take_back()
                next_look = time.monotonic() + STUCK_S
            try:
                event = self._events.get(timeout=STUCK_S if queued else None)
            except queue.Empty:
                continue
            if event is _Signal.LOOK:
                continue
            if event is _Signal.TERMINATE:
                self.terminate()
                continue
            if event is _Signal.STOP:
                self._end_workers()
                return
            handle, *arguments = event
            try:
                handle(*arguments)
            except Exception:
                logger.exception("A pool could not handle a result")
            del event, arguments  # do not keep a result alive until the next one comes

    def _take_back(self) -> None:
        """Ask for the chunks that wait behind one that takes long."""
        with self._lock:
            stuck = self._dispatcher.stuck(time.monotonic())
        for slot, tickets in stuck:
            future = slot.worker.actor.withdraw.remote(tickets).future()
            future.add_done_callback(lambda done, slot=slot: self._events.put((self._handle_withdrawn, slot, done)))

    def _handle_withdrawn(self, slot: Slot, future: Future[Any]) -> None:
        tickets: list[int] = []
        try:
            tickets = future.result()
        except exceptions.RayActorError:
            pass  # the calls themselves bring the news
        with self._lock:
            if not self._terminated():
                self._dispatcher.take_back(slot, tickets)
            over, _ = self._dispatcher.bury(slot)
        if over:
            self._replace(slot, killed=True)
        self._hand_out()

    def _handle(self, slot: Slot, ticket: int, future: Future[Any] | None, error: BaseException | None) -> None:
        answer: Any = None
        if future is not None:
            try:
                answer = future.result()
            except exceptions.RayActorError as failure:
                self._handle_loss(slot, ticket, failure)
                return
            except BaseException as failure:
                error = failure
        refused = isinstance(answer, Refusal)
        elapsed, outcome = (None, None) if refused or answer is None else answer
        with self._lock:
            chunk = self._dispatcher.finish(slot, ticket, time.monotonic(), elapsed)
            if refused and chunk is not None and not self._terminated():
                if answer is Refusal.UNKNOWN:
                    slot.worker.known.clear()
                self._dispatcher.pending.appendleft(chunk)
            over, _ = self._dispatcher.bury(slot)
        if over:
            self._replace(slot, killed=True)
        self._replace_if_spent(slot)
        # The workers get their next chunks first: jobs may run callbacks, which take time.
        self._hand_out()
        if chunk is not None and not refused:
            self._deliver(chunk, outcome, None if error is None else _explain(error, chunk.job.function))

    def _handle_loss(self, slot: Slot, ticket: int, error: BaseException) -> None:
        with self._lock:
            over, failed = self._dispatcher.lose(slot, ticket, error)
        if over:
            self._replace(slot, killed=True)
        self._hand_out()
        if failed is not None:
            self._deliver(failed, None, slot.lost)

    def _deliver(self, chunk: Chunk, outcome: Any, error: BaseException | None) -> None:
        chunk.job.deliver(chunk, outcome, error)
        self._end_if_done(chunk.job)

    def _replace_if_spent(self, slot: Slot) -> None:
        if self._maxtasksperchild is not None and slot.num_started >= self._maxtasksperchild and not slot.chunks:
            with self._lock:
                spent = slot in self._dispatcher.slots
                self._dispatcher.slots.discard(slot)
            if spent:
                self._replace(slot, killed=False)

    def _replace(self, slot: Slot, killed: bool) -> None:
        """Put another worker in the place of one that is lost or has done its share."""
        if self._terminated():
            return
        try:
            if not mltoolkit.is_initialized():
                # Making an actor would start another session behind the user's back.
                raise RuntimeError("The session of this pool was shut down; make a new pool.")
            if killed:
                self._kill(slot.worker)
            else:
                self._retire(slot.worker)
            fresh = Slot(_Worker(self._make_actor()))
        except Exception as error:
            self.terminate(error)  # there may be nobody left to do the work
            return
        with self._lock:
            if not self._terminated():
                self._dispatcher.slots.add(fresh)
                return
        self._kill(fresh.worker)

    def _end_if_done(self, job: Job) -> None:
        if not job.done:
            return
        with self._lock:
            if job not in self._jobs:
                return
            self._jobs.discard(job)
            for slot in self._dispatcher.slots:
                slot.worker.forget(job.id)
            ended = self.state is State.CLOSE and not self._jobs
        if ended:
            self._events.put(_Signal.STOP)

    def _end_workers(self) -> None:
        with self._lock:
            slots, self._dispatcher.slots = self._dispatcher.slots, set()
        for slot in slots:
            self._retire(slot.worker)
        self._stopped.set()

    def _retire(self, worker: _Worker) -> None:
        try:
            self._exits.append((worker.actor, worker.actor.__ray_terminate__.remote()))
        except Exception:
            logger.debug("A worker of a pool could not be ended in order", exc_info=True)

    def _kill(self, worker: _Worker) -> None:
        try:
            mltoolkit.kill(worker.actor)
        except Exception:
            # Its runtime may have been shut down before the pool; then the process is gone as well.
            logger.debug("A worker of a pool could not be killed", exc_info=True)


class _Unseen:
    """Stands in an error for a value that never arrived."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __repr__(self) -> str:
        return f"<result or argument of {getattr(self.function, '__qualname__', None) or self.function!r}>"


def _explain(error: BaseException, function: Callable[..., Any]) -> BaseException:
    """Name what went wrong with a call whose function ran, or failed, out of sight of our own handlers.

    The worker catches what the user's function raises; what is left happened while arguments were being rebuilt or the
    result was being pickled.
    """
    if not isinstance(error, exceptions.RayTaskError):
        return error
    cause = getattr(error, "cause", None)
    if isinstance(cause, ImportError):
        cause.__cause__ = error
        return cause
    failure = MaybeEncodingError(cause or error, _Unseen(function))
    failure.__cause__ = error
    return failure


def batched(iterable: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut an iterable into lists of `size` items, the last one shorter."""
    iterator = iter(iterable)
    while batch := list(itertools.islice(iterator, size)):
        yield batch

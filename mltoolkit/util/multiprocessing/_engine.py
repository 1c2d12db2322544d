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
from mltoolkit.util.multiprocessing._results import Chunk, Job, _ResultIterator, unwrap
from mltoolkit.util.multiprocessing._worker import Failure, Mode, PoolWorker, Unknown

if TYPE_CHECKING:
    from concurrent.futures import Future

logger = logging.getLogger(__name__)

# Chunks of an iterator drawn before a worker is free for them, per worker; enough for none to wait for the iterator.
_CHUNKS_AHEAD = 4
# After this the actors of a closed pool are ended by force. They have no work then, so it is only met if one is stuck.
_EXIT_GRACE_S = 30.0


class State(Enum):
    """What a pool is ready to do."""

    RUN = "RUN"
    CLOSE = "CLOSE"
    TERMINATE = "TERMINATE"


class _Stop(Enum):
    STOP = "stop"
    TERMINATE = "terminate"


class _Worker:
    """An actor of the pool, and what is known about its process."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.num_chunks = 0
        self.known: set[int] = set()
        self.stale: deque[int] = deque()

    def start(self, chunk: Chunk) -> Any:
        """Send a chunk; return the ref of its outcome."""
        job = chunk.job
        function = None if job.id in self.known else job.function
        forget = tuple(self.stale.popleft() for _ in range(len(self.stale)))
        ref = self.actor.run.remote(job.id, function, job.mode, chunk.items, forget)
        if job.mode is not Mode.APPLY:
            self.known.add(job.id)
        self.num_chunks += 1
        return ref

    def forget(self, job_id: int) -> None:
        """Have the process drop a function the next time that it hears from us."""
        if job_id in self.known:
            self.known.discard(job_id)
            self.stale.append(job_id)


class Engine:
    """The machinery of one pool.

    A worker has one chunk at a time and gets the next when it returns, so that a call that blocks holds up nobody.
    Outcomes come in on the runtime's threads, which only put them into a queue; one thread of the engine takes them
    out, gives the worker its next chunk and tells the job, callbacks included.

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
        actor_class = mltoolkit.remote(PoolWorker).options(**{"num_cpus": 0, **options})
        self._make_actor: Callable[[], Any] = lambda: actor_class.remote(initializer, initargs)
        self._maxtasksperchild = maxtasksperchild
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._stopped = threading.Event()
        self._jobs: set[Job] = set()
        self._pending: deque[Chunk] = deque()
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._exits: list[Any] = []
        self._workers = {_Worker(self._make_actor()) for _ in range(processes)}
        self._idle = deque(self._workers)
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
            self._pending.extend(chunks)
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
            self._events.put(_Stop.STOP)

    def terminate(self, reason: BaseException | None = None) -> None:
        """End at once; jobs that are not done fail, with `reason` if there is one."""
        with self._lock:
            if self.state is State.TERMINATE:
                return
            self.state = State.TERMINATE
            self._pending.clear()
            jobs, self._jobs = self._jobs, set()
            workers, self._workers = self._workers, set()
            self._room.notify_all()
        for worker in workers:
            self._kill(worker)
        for job in jobs:
            job.fail(reason or RuntimeError("The pool was terminated before this result was there."))
        self._events.put(_Stop.STOP)

    def terminate_soon(self) -> None:
        """Do as `terminate` does, from a place where no lock may be taken, such as a finalizer."""
        self._events.put(_Stop.TERMINATE)

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
        try:
            answers = mltoolkit.get([worker.actor.ping.remote() for worker in self._workers])
            for answer in answers:
                if isinstance(answer, Failure):
                    raise unwrap(answer)
        except BaseException:
            for worker in self._workers:
                self._kill(worker)
            raise

    def _feed(self, job: _ResultIterator, batches: Iterator[Any]) -> None:
        num_chunks = 0
        try:
            for items in batches:
                chunk = Chunk(job, num_chunks, items)
                with self._room:
                    self._room.wait_for(
                        lambda: len(self._pending) < _CHUNKS_AHEAD * self.processes or self._terminated()
                    )
                    if self._terminated():
                        return
                    self._pending.append(chunk)
                num_chunks += 1
                self._hand_out()
        except Exception as error:
            # The error takes the place of the item that could not be drawn.
            job.deliver(Chunk(job, num_chunks, [None]), None, error)
            num_chunks += 1
        job.set_length(num_chunks)
        self._end_if_done(job)

    def _hand_out(self) -> None:
        """Give pending chunks to idle workers."""
        while True:
            with self._lock:
                if not (self._pending and self._idle):
                    return
                worker = self._idle.popleft()
                chunk = self._pending.popleft()
                self._room.notify()
            self._start(worker, chunk)

    def _start(self, worker: _Worker, chunk: Chunk) -> None:
        try:
            future = worker.start(chunk).future()
        except BaseException as error:
            # Most likely the function or an item cannot be pickled: the caller learns it from the result.
            self._events.put((worker, chunk, None, error))
            if not isinstance(error, Exception):
                raise
        else:
            future.add_done_callback(lambda done: self._events.put((worker, chunk, done, None)))

    def _collect(self) -> None:
        while True:
            event = self._events.get()
            if event is _Stop.TERMINATE:
                self.terminate()
                continue
            if event is _Stop.STOP:
                self._end_workers()
                return
            try:
                self._handle(*event)
            except Exception:
                logger.exception("A pool could not handle a result")
            del event  # do not keep a result alive until the next one comes

    def _handle(self, worker: _Worker, chunk: Chunk, future: Future[Any] | None, error: BaseException | None) -> None:
        outcome, lost = None, False
        if future is not None:
            try:
                outcome = future.result()
            except exceptions.RayActorError as failure:
                error, lost = failure, True
            except BaseException as failure:
                error = _explain(failure, chunk.job.function)
        if isinstance(outcome, Unknown):
            worker.known.clear()
            self._start(worker, chunk)
            return
        try:
            self._release(worker, lost)
            # The worker gets its next chunk first: jobs may run callbacks, which take time.
            self._hand_out()
        except Exception as failure:
            self.terminate(failure)  # there is nobody left to do the work
        chunk.job.deliver(chunk, outcome, error)
        self._end_if_done(chunk.job)

    def _release(self, worker: _Worker, lost: bool) -> None:
        """Make a worker idle, or put another in its place."""
        if self._terminated():
            return
        spent = self._maxtasksperchild is not None and worker.num_chunks >= self._maxtasksperchild
        if lost or spent:
            if not mltoolkit.is_initialized():
                # Making an actor would start another session behind the user's back.
                raise RuntimeError("The session of this pool was shut down; make a new pool.")
            if lost:
                self._kill(worker)
            else:
                self._retire(worker)
            fresh = _Worker(self._make_actor())
            with self._lock:
                self._workers.discard(worker)
                if not self._terminated():
                    self._workers.add(fresh)
            worker = fresh
        with self._lock:
            if not self._terminated():
                self._idle.append(worker)
                return
        self._kill(worker)

    def _end_if_done(self, job: Job) -> None:
        if not job.done:
            return
        with self._lock:
            if job not in self._jobs:
                return
            self._jobs.discard(job)
            for worker in self._workers:
                worker.forget(job.id)
            ended = self.state is State.CLOSE and not self._jobs
        if ended:
            self._events.put(_Stop.STOP)

    def _end_workers(self) -> None:
        with self._lock:
            workers, self._workers = self._workers, set()
        for worker in workers:
            self._retire(worker)
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

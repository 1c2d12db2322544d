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
from mltoolkit.util.multiprocessing._worker import Answer, Failure, PoolWorker, Refusal

if TYPE_CHECKING:
    from concurrent.futures import Future

logger = logging.getLogger(__name__)

# Chunks of an iterator drawn before a worker is free for them, per worker: what its queue takes at most, twice.
_CHUNKS_AHEAD = 128
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
        self.fetching: set[int] = set()

    def start(self, chunks: list[tuple[int, Chunk]]) -> Any:
        """Send numbered chunks, as orders; return the ref of the answers."""
        orders = []
        sent = set()
        for ticket, chunk in chunks:
            job = chunk.job
            function = None if job.id in self.known or job.id in sent else job.function
            if job.mode != "apply":
                sent.add(job.id)
            orders.append((ticket, job.id, function, job.mode, chunk.items))
        ref = self.actor.run.remote(orders, self._take_stale())
        self.known |= sent
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
        self._hand_out_if_idle()

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
                self._hand_out_if_idle()
        except Exception as error:
            # The error takes the place of the item that could not be drawn.
            job.deliver(Chunk(job, num_chunks, [None]), None, error)
            num_chunks += 1
        job.set_length(num_chunks)
        self._end_if_done(job)

    def _hand_out_if_idle(self) -> None:
        """Give pending chunks to workers that have nothing to do.

        If all have something, the chunks wait until one answers, so that several can be sent together.
        """
        with self._lock:
            hungry = self._dispatcher.hungry()
        if hungry:
            self._hand_out()

    def _hand_out(self) -> None:
        """Give pending chunks to workers."""
        shares: dict[Slot, list[tuple[int, Chunk]]] = {}
        with self._lock:
            now = time.monotonic()
            while (assignment := self._dispatcher.assign(now)) is not None:
                slot, ticket, chunk = assignment
                shares.setdefault(slot, []).append((ticket, chunk))
            batch = max(1, self._dispatcher.depth // 2)  # while one is being answered the worker has another
            queued = any(len(slot.chunks) > 1 for slot in shares)
            if shares:
                self._room.notify_all()
        for slot, share in shares.items():
            for start in range(0, len(share), batch):
                self._start(slot, share[start : start + batch])
        if queued and threading.current_thread() is not self._thread:
            self._events.put(_Signal.LOOK)

    def _start(self, slot: Slot, chunks: list[tuple[int, Chunk]]) -> None:
        try:
            ref = slot.worker.start(chunks)
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            if len(chunks) > 1:
                for chunk in chunks:
                    self._start(slot, [chunk])
            else:
                # Most likely the function or an item cannot be pickled: the caller learns it from the result.
                self._events.put((self._handle_unsent, slot, chunks[0][0], error))
        else:
            self._listen(slot, [ticket for ticket, _ in chunks], ref)

    def _listen(self, slot: Slot, tickets: list[int], ref: Any) -> None:
        ref.future().add_done_callback(lambda done: self._events.put((self._handle, slot, tickets, done)))

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

    def _handle(self, slot: Slot, tickets: list[int], future: Future[Any]) -> None:
        """Take in the answers to some chunks that were sent together."""
        try:
            answers = list(itertools.starmap(Answer, future.result()))
        except exceptions.RayActorError as error:
            self._handle_loss(slot, tickets, error)
        except BaseException as error:
            self._handle_failed_call(slot, tickets, error)
        else:
            self._handle_answers(slot, answers)

    def _handle_withdrawn(self, slot: Slot, future: Future[Any]) -> None:
        slot.taking_back = False
        try:
            answers = list(itertools.starmap(Answer, future.result()))
        except Exception:
            answers = []  # the calls themselves bring the news
        self._handle_answers(slot, answers)

    def _handle_answers(self, slot: Slot, answers: list[Answer]) -> None:
        outcomes: list[tuple[Chunk, Any, BaseException | None]] = []
        deferred: list[int] = []
        with self._lock:
            now = time.monotonic()
            for ticket, elapsed, outcome in answers:
                if outcome is Refusal.DEFERRED:
                    deferred += [ticket] if ticket in slot.chunks and ticket not in slot.worker.fetching else []
                    continue
                if outcome is Refusal.UNKNOWN:
                    slot.worker.known.clear()
                if isinstance(outcome, Refusal):
                    self._dispatcher.give_back(slot, [ticket])
                    continue
                chunk = self._dispatcher.finish(slot, ticket, now, elapsed)
                if chunk is not None:
                    outcomes.append((chunk, outcome, None))
        for ticket in deferred:
            slot.worker.fetching.add(ticket)
            self._listen(slot, [ticket], slot.worker.actor.fetch.remote(ticket))
        self._go_on(slot, outcomes)

    def _handle_failed_call(self, slot: Slot, tickets: list[int], error: BaseException) -> None:
        """Take in that chunks could not be run at all, or that the outcome of a single one could not be sent."""
        outcomes: list[tuple[Chunk, Any, BaseException | None]] = []
        slot.worker.fetching.discard(tickets[0])
        with self._lock:
            if len(tickets) > 1:
                # The arguments of some chunk could not be rebuilt, before any ran: find out which.
                self._dispatcher.give_back(slot, tickets, alone=True)
            elif (chunk := self._dispatcher.finish(slot, tickets[0], time.monotonic())) is not None:
                outcomes.append((chunk, None, _explain(error, chunk.job.function)))
        self._go_on(slot, outcomes)

    def _handle_unsent(self, slot: Slot, ticket: int, error: BaseException) -> None:
        with self._lock:
            chunk = self._dispatcher.finish(slot, ticket, time.monotonic())
        self._go_on(slot, [] if chunk is None else [(chunk, None, error)])

    def _handle_loss(self, slot: Slot, tickets: list[int], error: BaseException) -> None:
        with self._lock:
            self._dispatcher.lose(slot, tickets, error)
        self._go_on(slot, [])

    def _go_on(self, slot: Slot, outcomes: list[tuple[Chunk, Any, BaseException | None]]) -> None:
        """Replace the worker if need be, hand out chunks, tell the jobs."""
        if self._terminated():
            return
        with self._lock:
            over, failed = self._dispatcher.bury(slot)
            spent = not over and self._spent(slot)
            if spent:
                self._dispatcher.slots.discard(slot)
        if over or spent:
            self._replace(slot, killed=over)
        if failed is not None:
            outcomes.append((failed, None, slot.lost))
        # The workers get their next chunks first: jobs may run callbacks, which take time.
        self._hand_out()
        for chunk, outcome, error in outcomes:
            self._deliver(chunk, outcome, error)

    def _spent(self, slot: Slot) -> bool:
        """Tell whether a worker has done its share and is idle."""
        if self._maxtasksperchild is None or slot.chunks or slot not in self._dispatcher.slots:
            return False
        return slot.num_started >= self._maxtasksperchild

    def _deliver(self, chunk: Chunk, outcome: Any, error: BaseException | None) -> None:
        chunk.job.deliver(chunk, outcome, error)
        self._end_if_done(chunk.job)

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

"""One call of a ``Parallel`` object: what runs when, and what becomes of it.

joblib forms batches and hands them over with a callback. A thread of ours starts them as tasks, takes in what the tasks
report, and fires the callbacks; the callbacks run joblib's dispatch and with it the user's iterable, which may take its
time or block, so no thread of the runtime is lent to them. All state belongs to that thread; the others only send it
events.

A batch may run in several parts: what a task did not get to within its time budget is given back and started again
wherever there is room, and what was lost with a process is repeated call by call, so that a call that kills its process
is told from its neighbours. Whatever happens, each batch ends exactly once, and its callback fires.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import itertools
import logging
import pickle
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import mltoolkit
from mltoolkit import exceptions
from mltoolkit.util.joblib._errors import CallLostError, RemoteTraceback
from mltoolkit.util.joblib._nested import NestedBackend
from mltoolkit.util.joblib._sharing import ArraySharer, dump
from mltoolkit.util.joblib._sizing import BatchSizer
from mltoolkit.util.joblib._window import ConsumerWindow, Mark
from mltoolkit.util.joblib._worker import Call, Order, Report, function_name, load_results, run_calls

BUDGET_S = 1.0  # what a task has not started by then goes back to the driver, where an idle process may take it
CANCEL_GRACE_S = 1.0  # for cancelled calls to notice, before their processes are ended
POLL_S = 0.005  # between looks at how far a slow consumer has come
LOST = (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.ObjectLostError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallOptions:
    """What stays the same for all batches of a call.

    Parameters
    ----------
    max_in_flight : int
        Tasks that may be submitted and unfinished at a time.
    task_options : dict
        Options of the tasks.
    nested : NestedBackend
        Backend for ``Parallel`` inside the calls.
    n_threads : int or None
        BLAS and OpenMP threads of a task, if not as many as it has CPUs.
    min_shared_bytes : int or None
        Size from which arrays are shared; None shares none.
    writable : bool
        Tasks get private copies of shared arrays.
    split : bool
        A task may give back what it did not get to.
    window : int or None
        Batches that may be started and not yet taken by the consumer of a generator; None is without limit.
    ordered : bool
        Results are taken in the order of submission.
    """

    max_in_flight: int
    task_options: dict[str, Any]
    nested: NestedBackend
    n_threads: int | None = None
    min_shared_bytes: int | None = 1_000_000
    writable: bool = False
    split: bool = True
    window: int | None = None
    ordered: bool = True


@dataclass(eq=False)
class _Batch:
    calls: list[Call]
    first: int
    captured_at: float
    callback: Callable[[concurrent.futures.Future[Any]], Any] | None
    future: concurrent.futures.Future[Any] = field(default_factory=concurrent.futures.Future)
    results: list[Any] = field(default_factory=list)
    n_missing: int = 0
    mark: Mark | None = None  # None until the first part starts
    ended: bool = False


@dataclass(eq=False)
class _Part:
    batch: _Batch
    start: int
    stop: int
    repeated: bool = False


class _Finished(NamedTuple):
    part: _Part
    future: concurrent.futures.Future[Any]


_CLOSE = object()


class ParallelCall:
    """Run the batches of one ``Parallel`` call.

    Parameters
    ----------
    options : CallOptions
        What stays the same for all batches.
    n_consumed : callable
        Returns how many results the consumer has taken so far.
    """

    def __init__(self, options: CallOptions, n_consumed: Callable[[], int]) -> None:
        self.options = options
        self._n_consumed = n_consumed
        self._sizer = BatchSizer()
        self._sharer = ArraySharer(options.min_shared_bytes)
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._captured_at = time.monotonic()
        self._n_submitted = 0
        self._n_unfinished = 0  # batches
        self._changed = threading.Condition()  # guards `_n_unfinished` and the start of the thread
        self._aborted = False

        # Written by the thread alone.
        self._tasks: dict[str, Any] = {}
        self._waiting: collections.deque[_Part] = collections.deque()
        self._in_flight: dict[_Part, Any] = {}
        self._window = ConsumerWindow(options.window, ordered=options.ordered)

    # Called by joblib, on any thread.

    def note_capture(self) -> None:
        """Note that joblib has just taken calls from the iterable."""
        self._captured_at = time.monotonic()

    def batch_size(self) -> int:
        """Return how many calls the next batch should have."""
        return self._sizer.size(may_grow=self._window.batches_may_grow(time.monotonic()))

    def submit(self, calls: list[Call], callback: Callable[[Any], Any] | None) -> concurrent.futures.Future[list[Any]]:
        """Run a batch as soon as there is room.

        Parameters
        ----------
        calls : list of (function, args, kwargs)
            The calls of the batch.
        callback : callable or None
            Called with the returned future when the batch has ended, whichever way.

        Returns
        -------
        concurrent.futures.Future
            Of the list of results.
        """
        with self._changed:
            batch = _Batch(calls, self._n_submitted, self._captured_at, callback)
            batch.results = [None] * len(calls)
            batch.n_missing = len(calls)
            self._n_submitted += len(calls)
            self._n_unfinished += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mltoolkit-joblib", daemon=True)
                self._thread.start()
        self._events.put(batch)
        return batch.future

    def abort(self) -> None:
        """Start nothing more, cancel what runs, and end all batches."""
        self._aborted = True
        # At once and not on the thread, which may be deep in the user's iterable.
        self._cancel_all()
        self._events.put(None)

    def close(self) -> None:
        """Free the shared arrays and end the thread, which after an abort stays until the last task has ended."""
        self._sharer.clear()
        thread = self._thread
        if thread is None:
            return
        self._events.put(_CLOSE)
        if not self._aborted and thread is not threading.current_thread():
            thread.join(timeout=5)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until every batch has ended and its callback has returned; False if `timeout` seconds did not do."""
        with self._changed:
            return self._changed.wait_for(lambda: self._n_unfinished == 0, timeout)

    def refs_in_flight(self) -> list[Any]:
        """Return the references of the tasks that have not been heard of yet."""
        return list(self._in_flight.values())

    # On the thread.

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # a bug of ours: still, nothing may hang
            self._fail_all(error)
        finally:
            self._sharer.clear()

    def _loop(self) -> None:
        force_at: float | None = None
        closed = False
        while not closed or self._in_flight:
            try:
                event = self._events.get(timeout=self._patience(force_at))
            except queue.Empty:
                event = None
            if isinstance(event, _Batch):
                self._waiting.append(_Part(event, 0, len(event.calls)))
            elif isinstance(event, _Finished):
                self._take_in(event.part, event.future)
            elif event is _CLOSE:
                closed = True
            del event  # results must not wait here for the next event
            if self._aborted:
                if force_at is None:
                    force_at = time.monotonic() + CANCEL_GRACE_S
                self._drop_all()
                if self._in_flight and time.monotonic() >= force_at:
                    force_at = float("inf")
                    for ref in self._in_flight.values():
                        _cancel(ref, force=True)
                continue
            if self._window.is_limited:
                self._window.take(self._n_consumed(), time.monotonic())
            while self._waiting and self._has_room():
                self._launch(self._waiting.popleft())

    def _patience(self, force_at: float | None) -> float | None:
        if force_at is not None:
            return None if force_at == float("inf") else max(force_at - time.monotonic(), 0.0)
        if self._waiting and len(self._in_flight) < self.options.max_in_flight:
            return POLL_S  # only the consumer holds the next batch back, and nothing tells when it goes on
        return None

    def _has_room(self) -> bool:
        if self._aborted or len(self._in_flight) >= self.options.max_in_flight:
            return False
        return self._waiting[0].batch.mark is not None or not self._window.is_full

    def _launch(self, part: _Part) -> None:
        batch = part.batch
        if batch.mark is None:
            batch.mark = self._window.start(len(batch.calls))
        options = self.options
        calls = batch.calls[part.start : part.stop]
        budget_s = BUDGET_S if options.split and len(calls) > 1 else None
        order = Order(calls, batch.first + part.start, options.nested, budget_s, options.n_threads)
        try:
            if not mltoolkit.is_initialized():  # or the first use below would start a new session
                raise RuntimeError("mltoolkit was shut down while a Parallel call was running.")
            message = self._sharer.dumps(order, batch.captured_at)
            task = self._task(function_name(calls[0][0]))
            ref = task.remote(message.blob, message.carried, options.writable, *message.buffers)
            self._in_flight[part] = ref
            future = ref.future()
        except Exception as error:
            self._in_flight.pop(part, None)
            self._end(batch, _explain_pickling(error, order))
            return
        future.add_done_callback(lambda future: self._events.put(_Finished(part, future)))

    def _task(self, name: str) -> Any:
        """Return the remote function that runs batches under `name`, which is what logs and dashboards show."""
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = _runner().options(**self.options.task_options, name=name, max_retries=0)
        return task

    def _take_in(self, part: _Part, future: concurrent.futures.Future[Report]) -> None:
        self._in_flight.pop(part, None)
        batch = part.batch
        if batch.ended:
            return
        try:
            report = future.result()
        except BaseException as error:  # what the runtime has to say; exceptions of calls are part of the report
            if not isinstance(error, LOST) or isinstance(error, exceptions.OwnerDiedError):
                self._end(batch, error)
            elif part.repeated:
                name = function_name(batch.calls[part.start][0])
                self._end(batch, CallLostError(batch.first + part.start, name, str(error)), cause=error)
            else:
                self._wait_again(batch, part.start, part.stop, part.stop - part.start, repeated=True)
            return
        try:
            results = _results_or_raise(report)
        except BaseException as error:  # whatever the user's code raised
            self._end(batch, error)
            return
        self._sizer.record(report.n_done, report.seconds)
        stop = part.start + report.n_done
        batch.results[part.start : stop] = results
        batch.n_missing -= report.n_done
        if stop < part.stop:
            n_idle = self.options.max_in_flight - len(self._in_flight) - len(self._waiting)
            self._wait_again(batch, stop, part.stop, max(1, n_idle), repeated=part.repeated)
        if not batch.n_missing:
            self._end(batch)

    def _wait_again(self, batch: _Batch, start: int, stop: int, n_parts: int, *, repeated: bool) -> None:
        """Put calls at the head of the line, in about equal parts."""
        n_calls = stop - start
        n_parts = min(n_parts, n_calls)
        edges = [start + n_calls * i // n_parts for i in range(n_parts + 1)]
        parts = [_Part(batch, a, b, repeated) for a, b in itertools.pairwise(edges)]
        self._waiting.extendleft(reversed(parts))

    def _end(self, batch: _Batch, error: BaseException | None = None, cause: BaseException | None = None) -> None:
        batch.ended = True
        if batch.mark is not None:
            self._window.end(batch.mark, time.monotonic())
        if error is None:
            batch.future.set_result(batch.results)
        else:
            if cause is not None:
                error.__cause__ = cause
            batch.future.set_exception(error)
            for part, ref in self._in_flight.items():
                if part.batch is batch:
                    _cancel(ref)
            self._waiting = collections.deque(part for part in self._waiting if part.batch is not batch)
        future, callback = batch.future, batch.callback
        batch.calls, batch.results, batch.callback = [], [], None
        try:
            if callback is not None:
                callback(future)
        except Exception:
            logger.exception("joblib could not take in the end of a batch")
        finally:
            with self._changed:
                self._n_unfinished -= 1
                self._changed.notify_all()

    def _drop_all(self, error: BaseException | None = None) -> None:
        batches = {part.batch for part in (*self._waiting, *self._in_flight)}
        self._waiting.clear()
        self._cancel_all()
        for batch in batches:
            if not batch.ended:
                self._end(batch, error or concurrent.futures.CancelledError())

    def _cancel_all(self) -> None:
        # The last ones first: they wait for the CPUs of those before them, and must not get them.
        for ref in reversed(list(self._in_flight.values())):
            _cancel(ref)

    def _fail_all(self, error: BaseException) -> None:
        """End everything after an error of our own, so that nobody waits for a thread that is gone."""
        logger.error("the thread of a Parallel call failed", exc_info=error)
        self._aborted = True
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, _Batch):
                self._waiting.append(_Part(event, 0, len(event.calls)))
        self._drop_all(error)


@functools.cache
def _runner() -> Any:
    return mltoolkit.remote(run_calls)


def _cancel(ref: Any, *, force: bool = False) -> None:
    try:
        mltoolkit.cancel(ref, force=force)
    except Exception:  # the runtime may be on its way down, and then the task is too
        logger.debug("could not cancel a batch", exc_info=True)


def _results_or_raise(report: Report) -> list[Any]:
    if report.failure is not None:
        error = pickle.loads(report.failure.blob)
        error.__cause__ = RemoteTraceback(report.failure.text)
        raise error
    assert report.results is not None
    return load_results(report.results)


def _explain_pickling(error: Exception, order: Order) -> Exception:
    """Say which call cannot be pickled; other errors pass."""
    if not isinstance(error, (pickle.PicklingError, TypeError, AttributeError, ValueError)):
        return error
    for position, call in enumerate(order.calls):
        try:
            dump(call)
        except Exception as culprit:
            explained = pickle.PicklingError(
                f"Call {order.first + position}, `{function_name(call[0])}`, cannot be pickled to be sent to a process "
                f"({type(culprit).__name__}: {culprit}). Create what cannot be pickled inside the function, or use "
                '`parallel_config("threading")`.'
            )
            explained.__cause__ = culprit
            return explained
    return error

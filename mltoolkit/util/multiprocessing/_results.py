"""Results of a pool's jobs: what `apply_async`, `map_async` and `imap` return."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import TimeoutError
from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from mltoolkit.util.multiprocessing._worker import Failure, Mode

if TYPE_CHECKING:
    from mltoolkit.util.multiprocessing.pool import Pool

logger = logging.getLogger(__name__)

_ids = itertools.count()


def unwrap(failure: Failure) -> BaseException:
    """Return the user's exception, with the remote traceback as its cause."""
    error = failure.error
    error.__cause__ = RemoteTraceback(f'\n"""\n{failure.traceback}"""')
    return error


@dataclass(slots=True)
class Chunk:
    """A part of a job that one worker runs in one go; `alone` if no other is to be in its process meanwhile."""

    job: Job
    index: int
    items: Any
    alone: bool = False


class Job:
    """What one call of a pool's method has asked for; the engine delivers the outcome of its chunks.

    Outcomes are delivered by one thread; any other may make the job fail meanwhile.

    Parameters
    ----------
    pool : Pool
        Kept alive until the job is done.
    function : callable
        Runs on the items.
    mode : Mode
        How it runs on them.
    """

    def __init__(self, pool: Pool, function: Callable[..., Any], mode: Mode) -> None:
        self.id = next(_ids)
        self.function = function
        self.mode = mode
        self._pool: Pool | None = pool

    def deliver(self, chunk: Chunk, outcome: Any, error: BaseException | None) -> None:
        """Take what became of a chunk: what the worker returned, or why there is nothing."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End with an error, whatever is still missing."""
        raise NotImplementedError

    @property
    def done(self) -> bool:
        """Whether everything has been delivered."""
        raise NotImplementedError


class AsyncResult(Job):
    """The result of `Pool.apply_async`, `Pool.map_async` or `Pool.starmap_async`.

    Made by the pool only.
    """

    def __init__(
        self,
        pool: Pool,
        function: Callable[..., Any],
        mode: Mode,
        num_chunks: int = 1,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        super().__init__(pool, function, mode)
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callback = callback
        self._error_callback = error_callback
        self._values: list[Any] = [None] * num_chunks
        self._missing = num_chunks
        self._value: Any = None
        self._error: BaseException | None = None
        if num_chunks == 0:
            # Like the standard pool, this calls no callback: nothing has run.
            self._value = []
            self._pool = None
            self._event.set()

    def ready(self) -> bool:
        """Tell whether the call has ended.

        Returns
        -------
        bool
            True after success and failure alike.
        """
        return self._event.is_set()

    def successful(self) -> bool:
        """Tell whether the call ended without an exception.

        Returns
        -------
        bool
            False if `get` would raise.

        Raises
        ------
        ValueError
            If the call has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} is not ready; wait for it before asking whether it was successful.")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; without end if None.
        """
        self._event.wait(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; without end if None.

        Returns
        -------
        object
            What the function returned; a list for the methods that map.

        Raises
        ------
        multiprocessing.TimeoutError
            If `timeout` seconds have passed.
        BaseException
            What the function raised, with the remote traceback as its cause.
        """
        if not self._event.wait(timeout):
            raise TimeoutError(f"No result within {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value

    @property
    def done(self) -> bool:
        """Whether everything has been delivered."""
        return self._missing == 0

    def deliver(self, chunk: Chunk, outcome: Any, error: BaseException | None) -> None:
        """Take what became of a chunk: what the worker returned, or why there is nothing."""
        if error is None and isinstance(outcome, Failure):
            error = unwrap(outcome)
        with self._lock:
            if self._missing == 0:
                return  # terminated
            if error is None:
                self._values[chunk.index] = outcome
            elif self._error is None:
                self._error = error
            self._missing -= 1
            if self._missing:
                return
        self._finish()

    def fail(self, error: BaseException) -> None:
        """End with an error, whatever is still missing."""
        with self._lock:
            if self._missing == 0:
                return
            self._error = self._error or error
            self._missing = 0
        self._finish()

    def _finish(self) -> None:
        if self._error is None:
            self._value = self._values[0] if self.mode == "apply" else list(itertools.chain(*self._values))
        self._values = []
        self._run_callback()
        self._pool = None
        self._event.set()

    def _run_callback(self) -> None:
        try:
            if self._error is None and self._callback is not None:
                self._callback(self._value)
            elif self._error is not None and self._error_callback is not None:
                self._error_callback(self._error)
        except Exception:
            # There is nobody to raise it to, and the thread that runs callbacks must go on.
            logger.exception("A callback of a pool raised an exception")


class _ResultIterator(Job):
    """What the iterators of `Pool.imap` and `Pool.imap_unordered` have in common."""

    def __init__(self, pool: Pool, function: Callable[..., Any]) -> None:
        super().__init__(pool, function, "each")
        self._condition = threading.Condition()
        self._ready: deque[tuple[bool, Any]] = deque()
        self._delivered = 0
        self._length: int | None = None
        self._failed = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Wait for the next result.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; without end if None.

        Returns
        -------
        object
            What the function returned.

        Raises
        ------
        StopIteration
            If there are no more.
        multiprocessing.TimeoutError
            If `timeout` seconds have passed; the result can still be taken later.
        BaseException
            What the function raised for this item; the results of the others can still be taken.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while not self._ready:
                if self.done:
                    self._pool = None
                    raise StopIteration
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"No result within {timeout} s")
                self._condition.wait(left)
            succeeded, value = self._ready.popleft()
        if succeeded:
            return value
        raise value

    @property
    def done(self) -> bool:
        """Whether everything has been delivered."""
        return self._failed or (self._length is not None and self._delivered >= self._length)

    def set_length(self, num_chunks: int) -> None:
        """Say how many chunks there are, once it is known."""
        with self._condition:
            self._length = num_chunks
            self._condition.notify_all()

    def deliver(self, chunk: Chunk, outcome: Any, error: BaseException | None) -> None:
        """Take what became of a chunk: what the worker returned, or why there is nothing."""
        if error is None and isinstance(outcome, Failure):
            error = unwrap(outcome)
        if error is not None:
            results: list[tuple[bool, Any]] = [(False, error)] * len(chunk.items)  # so results keep step with items
        else:
            results = [(True, value) if ok else (False, unwrap(value)) for ok, value in outcome]
        with self._condition:
            if self._failed:
                return
            self._delivered += 1
            self._place(chunk.index, results)
            self._condition.notify_all()

    def fail(self, error: BaseException) -> None:
        """End with an error, whatever is still missing."""
        with self._condition:
            if not self.done:
                self._ready.append((False, error))
                self._failed = True
            self._condition.notify_all()

    def _place(self, index: int, results: list[tuple[bool, Any]]) -> None:
        raise NotImplementedError


class IMapIterator(_ResultIterator):
    """The results of `Pool.imap`, in the order of the items.

    Made by the pool only.
    """

    def __init__(self, pool: Pool, function: Callable[..., Any]) -> None:
        super().__init__(pool, function)
        self._early: dict[int, list[tuple[bool, Any]]] = {}
        self._next_index = 0

    def _place(self, index: int, results: list[tuple[bool, Any]]) -> None:
        self._early[index] = results
        while self._next_index in self._early:
            self._ready.extend(self._early.pop(self._next_index))
            self._next_index += 1


class IMapUnorderedIterator(_ResultIterator):
    """The results of `Pool.imap_unordered`, as they come.

    Made by the pool only.
    """

    def _place(self, index: int, results: list[tuple[bool, Any]]) -> None:
        self._ready.extend(results)

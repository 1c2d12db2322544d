"""Share out calls among a fixed set of actors."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import mltoolkit
from mltoolkit import exceptions

if TYPE_CHECKING:
    from mltoolkit.actor import ActorHandle

V = TypeVar("V")


@dataclass
class _Call:
    """One submission that has been handed to an actor; `error` if `fn` itself failed."""

    actor: ActorHandle
    future: Any
    error: BaseException | None = None

    @property
    def refs(self) -> list[Any]:
        """The refs whose readiness makes the call's result; several if the method returns several."""
        if self.error is not None:
            return []
        return self.future if isinstance(self.future, list) else [self.future]


class ActorPool:
    """Hand out calls to whichever actor of a pool is idle.

    An actor is given one call at a time. Submissions that find no idle actor wait, and start in their order as results
    are taken. The pool is for use by one thread.

    Parameters
    ----------
    actors : list of ActorHandle
        The actors of the pool.

    Examples
    --------
    >>> import mltoolkit
    >>> @mltoolkit.remote
    ... class Doubler:
    ...     def double(self, x):
    ...         return 2 * x
    >>> pool = mltoolkit.util.ActorPool([Doubler.remote(), Doubler.remote()])
    >>> list(pool.map(lambda actor, x: actor.double.remote(x), [1, 2, 3, 4]))
    [2, 4, 6, 8]
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle: deque[ActorHandle] = deque(actors)
        # In the order of submission, which is also the order of the keys.
        self._calls: dict[int, _Call] = {}
        self._waiting: deque[tuple[Callable[[Any, Any], Any], Any]] = deque()
        self._next_index = 0

    def map(self, fn: Callable[[ActorHandle, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """Call `fn` with an actor for each value; give results in the order of the values.

        The calls are submitted at once, and go on as the iterator is consumed. Results of earlier submissions that
        have not been taken are dropped; their calls still run.

        Parameters
        ----------
        fn : callable
            Takes an actor and a value; returns the ref, or list of refs, of a method call on that actor.
        values : iterable
            The values.

        Yields
        ------
        object
            Results; an exception of a call is raised at its place, after which the other results can still be taken
            by `get_next`.
        """
        self._drop_results()
        for value in values:
            self.submit(fn, value)
        return self._iterate(self.get_next)

    def map_unordered(self, fn: Callable[[ActorHandle, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """Do as `map` does, but give each result as soon as it is there.

        Parameters
        ----------
        fn : callable
            Takes an actor and a value; returns the ref, or list of refs, of a method call on that actor.
        values : iterable
            The values.

        Yields
        ------
        object
            Results in the order in which the calls finish.
        """
        self._drop_results()
        for value in values:
            self.submit(fn, value)
        return self._iterate(self.get_next_unordered)

    def submit(self, fn: Callable[[ActorHandle, V], Any], value: V) -> None:
        """Call `fn` with an idle actor and a value, now or as soon as there is one.

        Parameters
        ----------
        fn : callable
            Takes an actor and a value; returns the ref, or list of refs, of a method call on that actor.
        value : object
            The value.
        """
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.popleft()
        try:
            future = fn(actor, value)
        except BaseException:
            self._idle.appendleft(actor)
            raise
        self._add_call(_Call(actor, future))

    def has_next(self) -> bool:
        """Tell whether there are results still to be taken.

        Returns
        -------
        bool
            True if a submission has not been answered by `get_next` or `get_next_unordered`.
        """
        return bool(self._calls or self._waiting)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Wait for the result of the earliest submission not yet answered.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; without end if None.
        ignore_if_timedout : bool, default=False
            Give the call up when it did not finish in time: its result is dropped and its actor gets other work.
            Otherwise it stays the next one.

        Returns
        -------
        object
            The result; a list if `fn` returned a list of refs.

        Raises
        ------
        StopIteration
            If all results have been taken.
        TimeoutError
            If `timeout` seconds have passed.
        """
        self._check_next()
        index = next(iter(self._calls))
        if timeout is not None and not self._ready(self._calls[index], timeout):
            self._time_out(index, timeout, ignore_if_timedout)
        return self._take(index)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Wait for the result of any submission not yet answered.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; without end if None.
        ignore_if_timedout : bool, default=False
            Give the earliest call up when none finished in time: its result is dropped and its actor gets other work.

        Returns
        -------
        object
            The result; a list if `fn` returned a list of refs.

        Raises
        ------
        StopIteration
            If all results have been taken.
        TimeoutError
            If `timeout` seconds have passed.
        """
        self._check_next()
        index = self._first_ready(timeout)
        if index is None:
            self._time_out(next(iter(self._calls)), timeout, ignore_if_timedout)
        return self._take(index)

    def has_free(self) -> bool:
        """Tell whether an actor is idle.

        Returns
        -------
        bool
            True if an actor is idle and no submission waits for one.
        """
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle | None:
        """Take an idle actor out of the pool.

        Returns
        -------
        ActorHandle or None
            None if no actor is idle.
        """
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Add an actor to the pool.

        Parameters
        ----------
        actor : ActorHandle
            The actor; it starts with a waiting submission if there is one.

        Raises
        ------
        ValueError
            If the actor belongs to the pool already.
        """
        if actor in self._idle or any(actor == call.actor for call in self._calls.values()):
            raise ValueError(f"{actor!r} already belongs to this ActorPool; push each actor once.")
        self._release(actor)

    def _check_next(self) -> None:
        if self._calls:
            return
        if self._waiting:
            raise RuntimeError(
                f"{len(self._waiting)} submissions wait, but the pool has no living actor left; add one with `push`."
            )
        raise StopIteration("No more results to get")

    def _iterate(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def _add_call(self, call: _Call) -> None:
        self._calls[self._next_index] = call
        self._next_index += 1

    def _release(self, actor: ActorHandle) -> None:
        """Give an actor the next waiting submission, or none."""
        if not self._waiting:
            self._idle.append(actor)
            return
        fn, value = self._waiting.popleft()
        try:
            call = _Call(actor, fn(actor, value))
        except Exception as error:
            # This is no place to raise: another call's result is being returned. It is raised at its own turn.
            call = _Call(actor, None, error)
        self._add_call(call)

    def _drop_results(self) -> None:
        while self._calls:
            call = self._calls.pop(next(iter(self._calls)))
            self._release(call.actor)
        self._waiting.clear()  # there are some left only if no actor is, so they could never start

    def _ready(self, call: _Call, timeout: float | None) -> bool:
        refs = call.refs
        if not refs:
            return True
        return len(mltoolkit.wait(refs, num_returns=len(refs), timeout=timeout)[0]) == len(refs)

    def _first_ready(self, timeout: float | None) -> int | None:
        """Return the index of a call that is ready, None when there is none in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pending: dict[int, list[Any]] = {index: call.refs for index, call in self._calls.items()}
        while True:
            for index, refs in pending.items():
                if not refs:
                    return index
            heads = {refs[0]: index for index, refs in pending.items()}
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = mltoolkit.wait(list(heads), num_returns=1, timeout=left)[0]
            if not ready:
                return None
            # A call with several refs is ready when the last one is.
            pending[heads[ready[0]]] = pending[heads[ready[0]]][1:]

    def _time_out(self, index: int, timeout: float | None, ignore: bool) -> NoReturn:
        message = f"No result within {timeout} s"
        if ignore:
            call = self._calls.pop(index)
            self._release(call.actor)
            message += f". The call {call.future} has been given up."
        raise TimeoutError(message)

    def _take(self, index: int) -> Any:
        call = self._calls[index]
        try:
            if call.error is not None:
                raise call.error
            result = mltoolkit.get(call.future)
        except KeyboardInterrupt:
            raise  # nothing was taken: the call is still there to be waited for
        except exceptions.ActorDiedError:
            # A dead actor stays out: whatever it were given next would fail as well.
            del self._calls[index]
            raise
        except BaseException:
            del self._calls[index]
            self._release(call.actor)
            raise
        del self._calls[index]
        self._release(call.actor)
        return result

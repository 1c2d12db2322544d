"""What runs inside the processes of a pool."""

from __future__ import annotations

import functools
import io
import itertools
import pickle
import sys
import threading
import time
import traceback
import types
from collections import deque
from collections.abc import Callable
from enum import Enum
from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]
from typing import Any, Literal, NamedTuple

import cloudpickle

import mltoolkit
from mltoolkit.actor import ActorHandle

_ATOMS = frozenset({int, float, bool, str, bytes, complex, type(None)})
_MAX_REMEMBERED = 256  # chunks; several times what a worker may have at a time


# How the items of a chunk become calls, and what comes back:
#   apply    items are (args, kwargs): one call, one value
#   map      one argument a call; values, or the first error
#   starmap  each item is an argument list; values, or the first error
#   each     one argument a call; an outcome for every item
Mode = Literal["apply", "map", "starmap", "each"]


class Failure:
    """An exception of the user's code, with its traceback as text, which pickling would lose."""

    __slots__ = ("error", "traceback")

    def __init__(self, error: BaseException, traceback_text: str) -> None:
        self.error = error
        self.traceback = traceback_text

    def __reduce__(self) -> tuple[Any, ...]:
        return Failure, (self.error, self.traceback)


class Refusal(Enum):
    """Stands for the outcome of a chunk that has none."""

    UNKNOWN = "unknown"  # this process, perhaps a restarted one, was never given the function
    WITHDRAWN = "withdrawn"  # taken back before it could start
    DEFERRED = "deferred"  # it may not be possible to pickle it: to be asked for by itself


class Order(NamedTuple):
    """A chunk as it is sent, though as a plain tuple: instances of classes take several times as long to pickle.

    Attributes
    ----------
    ticket : int
        Number of the chunk.
    job_id : int
        Names the function for later chunks of the same job.
    function : callable or None
        None if the process got it with an earlier chunk.
    mode : Mode
        What to do with `items`.
    items : list or tuple
        The chunk.
    """

    ticket: int
    job_id: int
    function: Callable[..., Any] | None
    mode: Mode
    items: Any


class Answer(NamedTuple):
    """What became of a chunk: how many seconds it took if it ran, and its outcome; travels as a plain tuple too."""

    ticket: int
    elapsed: float | None
    outcome: Any


class PoolWorker:
    """One process of a pool.

    Parameters
    ----------
    initializer : callable or None
        Called once, before anything else.
    initargs : tuple
        Its arguments.
    """

    def __init__(self, initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
        self._functions: dict[int, Callable[..., Any]] = {}
        self._globals: dict[str, Any] = {}
        self._failure: Failure | None = None
        # `withdraw` runs in another thread than the chunks, and is only asked for the few that were sent last.
        self._lock = threading.Lock()
        self._started: deque[int] = deque(maxlen=_MAX_REMEMBERED)
        self._withdrawn: set[int] = set()
        self._answers: list[tuple[Any, ...]] = []
        self._deferred: dict[int, Any] = {}
        if initializer is not None:
            try:
                self._initialize(initializer, initargs)
            except Exception as error:
                self._failure = capture(error)

    def ping(self) -> Failure | None:
        """Return what the initializer raised, if it did."""
        return self._failure

    @mltoolkit.method(concurrency_group="mail")
    def withdraw(self, tickets: list[int]) -> list[tuple[Any, ...]]:
        """Give back what has not started; the chunk that is running may take long.

        Parameters
        ----------
        tickets : list of int
            Numbers of chunks.

        Returns
        -------
        list of Answer
            For those that will not run here, and those that have ended and wait for the others that came with them.
        """
        with self._lock:
            back = [ticket for ticket in tickets if ticket not in self._started]
            self._withdrawn.update(back)
            return [*self._answers, *((ticket, None, Refusal.WITHDRAWN) for ticket in back)]

    def run(self, orders: list[tuple[Any, ...]], forget: tuple[int, ...]) -> list[tuple[Any, ...]]:
        """Run some chunks.

        Parameters
        ----------
        orders : list of Order
            The chunks.
        forget : tuple of int
            Jobs that have ended: their functions are not needed any more.

        Returns
        -------
        list of Answer
            In the same order.
        """
        for ended in forget:
            self._functions.pop(ended, None)
        alone = len(orders) == 1
        for order in itertools.starmap(Order, orders):
            elapsed, outcome = self._run(order)
            if not alone and not _surely_pickles(outcome):
                # The others are not to suffer from it.
                self._deferred[order.ticket] = outcome
                outcome = Refusal.DEFERRED
            with self._lock:
                self._answers.append((order.ticket, elapsed, outcome))
            del outcome
        with self._lock:
            answers, self._answers = self._answers, []
        return answers

    def fetch(self, ticket: int) -> list[tuple[Any, ...]]:
        """Return an outcome that was deferred, as an answer."""
        return [(ticket, None, self._deferred.pop(ticket))]

    def _run(self, order: Order) -> tuple[float | None, Any]:
        function = self._known(order.job_id, order.function, order.mode)
        with self._lock:
            if order.ticket in self._withdrawn:
                self._withdrawn.discard(order.ticket)
                return None, Refusal.WITHDRAWN
            self._started.append(order.ticket)
        if self._failure is not None:
            return None, self._failure
        if function is None:
            return None, Refusal.UNKNOWN
        start = time.perf_counter()
        try:
            outcome = _call(function, order.mode, order.items)
        except (Exception, KeyboardInterrupt) as error:
            outcome = capture(error)
        return time.perf_counter() - start, outcome

    def _known(self, job_id: int, function: Callable[..., Any] | None, mode: Mode) -> Callable[..., Any] | None:
        """Return the function of a job, which comes along with its first chunk only."""
        if function is None:
            return self._functions.get(job_id)
        self._share_globals(function)
        if mode != "apply":
            self._functions[job_id] = function
        return function

    def _initialize(self, initializer: Callable[..., Any], initargs: tuple[Any, ...]) -> None:
        # Functions of the main program arrive each with a copy of the globals they use. An initializer that sets
        # a global means it for the functions that run later, so what it sets is handed on to them.
        namespace = _own_namespace(initializer)
        before = dict(namespace)
        initializer(*initargs)
        missing = object()
        self._globals = {key: value for key, value in namespace.items() if before.get(key, missing) is not value}

    def _share_globals(self, function: Callable[..., Any]) -> None:
        if self._globals:
            _own_namespace(function).update(self._globals)


def _call(function: Callable[..., Any], mode: Mode, items: Any) -> Any:
    if mode == "apply":
        args, kwargs = items
        return function(*args, **kwargs)
    if mode == "map":
        return [function(item) for item in items]
    if mode == "starmap":
        return [function(*item) for item in items]
    outcomes = []
    for item in items:
        try:
            outcomes.append((True, function(item)))
        except Exception as error:
            outcomes.append((False, capture(error)))
    return outcomes


class _Trial(pickle.Pickler):
    """Pickles for the sake of finding out whether it works."""

    def reducer_override(self, obj: Any) -> Any:
        # Pickling a reference for anything but a real message would keep what it refers to alive for good.
        if isinstance(obj, (mltoolkit.ObjectRef, ActorHandle)):
            raise pickle.PicklingError("left to the runtime")
        return NotImplemented


def _surely_pickles(outcome: Any) -> bool:
    """Tell whether an outcome can be pickled; at worst this errs to the safe side."""
    if type(outcome) in _ATOMS:
        return True
    try:
        # Large arrays go out of band, that is, they are not copied.
        _Trial(io.BytesIO(), 5, buffer_callback=lambda buffer: None).dump(outcome)
    except Exception:
        return False
    return True


def capture(error: BaseException) -> Failure:
    """Make an exception fit to travel; one that cannot be pickled and rebuilt is replaced, as in the standard pool."""
    text = "".join(traceback.format_exception(type(error), error, _skip_own_frames(error.__traceback__)))
    try:
        if not isinstance(cloudpickle.loads(cloudpickle.dumps(error)), BaseException):
            raise TypeError(f"{type(error).__name__} is rebuilt as something that is no exception")
    except Exception as reason:
        error = MaybeEncodingError(reason, error)
    return Failure(error, text)


def _skip_own_frames(tb: types.TracebackType | None) -> types.TracebackType | None:
    while tb is not None and tb.tb_next is not None and tb.tb_frame.f_code.co_filename == __file__:
        tb = tb.tb_next
    return tb


def _own_namespace(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the globals of a function that was pickled by value, an empty dict for one of an importable module."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        else:
            break
    if not isinstance(function, types.FunctionType):
        function = type(function).__call__  # an instance of a class of the user's; other callables have no globals
    namespace = getattr(function, "__globals__", None)
    if not isinstance(namespace, dict):
        return {}
    module = sys.modules.get(namespace.get("__name__", ""))
    return {} if module is not None and vars(module) is namespace else namespace

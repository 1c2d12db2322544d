"""The task that makes the calls of a batch. It runs in an executor and knows nothing of the driver's side."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import platform
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import cloudpickle
from joblib.parallel import parallel_config

from mltoolkit.util.joblib import _sharing
from mltoolkit.util.joblib._nested import NestedBackend

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Order(NamedTuple):
    """What a task is asked to do."""

    calls: list[Call]
    first: int  # position of the first call in the Parallel, for error messages
    nested: NestedBackend
    budget_s: float | None  # give back what has not been started by then
    n_threads: int | None  # of BLAS and OpenMP; None leaves what the executor has


class Failure(NamedTuple):
    """A call that raised."""

    blob: bytes  # the exception, pickled
    text: str  # which call, where, and the traceback


class Report(NamedTuple):
    """What a task gives back."""

    n_done: int
    seconds: float  # spent in the calls
    results: _sharing.Message | None
    failure: Failure | None


def run_calls(blob: bytes, carried: list[Any], writable: bool, *shared: Any) -> Report:
    """Make calls one after the other.

    Parameters
    ----------
    blob : bytes
        Pickled `Order`.
    carried : list
        References and actor handles among the arguments.
    writable : bool
        Copy the shared arrays, so that the calls may write to them.
    *shared : ndarray
        Bytes of the shared arrays; they come as arguments of their own, since the runtime replaces references by values
        there.

    Returns
    -------
    Report
        Of at least one call; of fewer than ordered when the budget was spent or a call raised.
    """
    where = "unpickling a batch"
    n_done = 0
    try:
        order: Order = _sharing.loads(blob, carried, [bytearray(part) for part in shared] if writable else list(shared))
        results: list[Any] = []
        with parallel_config(order.nested, n_jobs=None), _thread_limit(order.n_threads):
            start = time.perf_counter()
            for n_done, (function, args, kwargs) in enumerate(order.calls):
                where = f"call {order.first + n_done}, `{function_name(function)}`"
                results.append(function(*args, **kwargs))
                if order.budget_s is not None and time.perf_counter() - start > order.budget_s:
                    break
            seconds = time.perf_counter() - start
        where = f"pickling the results of call {order.first} and those after it"
        return Report(len(results), seconds, _dump_results(results, order), None)
    except KeyboardInterrupt:
        raise  # this is how the runtime cancels a task
    except BaseException as error:  # user code may raise anything, SystemExit included
        return Report(n_done, 0.0, None, _describe_failure(error, where))


def load_results(message: _sharing.Message) -> list[Any]:
    """Rebuild results, large arrays writable as if they had been made here."""
    results: list[Any] = _sharing.loads(message.blob, message.carried, [bytearray(part) for part in message.buffers])
    return results


def function_name(function: Any) -> str:
    """Return the name of a function as its author would say it, below whatever wraps it."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or type(function).__name__


def _dump_results(results: list[Any], order: Order) -> _sharing.Message:
    try:
        return _sharing.dump(results)
    except Exception as error:
        for position, result in enumerate(results):
            try:
                _sharing.dump(result)
            except Exception as culprit:
                raise pickle.PicklingError(
                    f"The result of call {order.first + position}, `{function_name(order.calls[position][0])}`, is a "
                    f"{type(result).__qualname__} that cannot be pickled ({type(culprit).__name__}: {culprit}). Return "
                    "what it is made from instead."
                ) from error
        raise


def _describe_failure(error: BaseException, where: str) -> Failure:
    tb = error.__traceback__
    inner = tb.tb_next if tb is not None else None  # without the frame of `run_calls`
    text = "".join(traceback.format_exception(type(error), error, inner or tb))
    text = f"Raised by {where} (pid={os.getpid()}, host={platform.node()}):\n{text}"
    try:
        blob = cloudpickle.dumps(error)
        if type(pickle.loads(blob)) is type(error):
            return Failure(blob, text)
    except Exception:
        pass  # the runtime knows how to send what cannot be pickled or rebuilt
    raise error


def _thread_limit(n_threads: int | None) -> contextlib.AbstractContextManager[Any]:
    if n_threads is None:
        return contextlib.nullcontext()
    import threadpoolctl

    return threadpoolctl.threadpool_limits(limits=n_threads)

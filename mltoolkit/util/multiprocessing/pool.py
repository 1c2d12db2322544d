"""The standard library's ``multiprocessing.Pool``, on actors."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NoReturn

import mltoolkit
from mltoolkit.util.multiprocessing._engine import Engine, State, batched
from mltoolkit.util.multiprocessing._results import AsyncResult, IMapIterator, IMapUnorderedIterator, _ResultIterator
from mltoolkit.util.multiprocessing._worker import Mode

__all__ = ["AsyncResult", "Pool"]

# Four chunks per worker, as in the standard pool: large enough to cost little, small enough to even out.
_CHUNKS_PER_WORKER = 4
_ADDRESS_VARIABLE = "RAY_ADDRESS"
_RUNNING_SESSION = ("auto", "local")


class Pool:
    """A pool of processes, with the interface of ``multiprocessing.Pool``.

    Functions, arguments and results are pickled by mltoolkit: lambdas and functions of ``__main__`` work, large arrays
    travel through shared memory and arrive read-only. Where the standard pool would wait without end for a process that
    died, the call fails with an error and the process is replaced.

    Parameters
    ----------
    processes : int, optional
        Number of processes; by default, one for each CPU of the session. If no session runs, one is started with this
        many CPUs.
    initializer : callable, optional
        Called once in each process when it starts. Globals of the main program that it sets are seen by the functions
        that run later.
    initargs : iterable, default=()
        Arguments of `initializer`.
    maxtasksperchild : int, optional
        Number of tasks (a chunk is one) after which a process is replaced; never if None.
    context : None
        There for the standard signature. How processes start is up to mltoolkit, so nothing but None is allowed.
    ray_address : str, optional
        Address passed to ``init`` if no session runs; by default the environment variable ``RAY_ADDRESS``, if set.
    ray_remote_args : dict, optional
        Options of the actors, such as ``num_cpus`` (0 by default), ``num_gpus`` or ``runtime_env``.

    Raises
    ------
    ValueError
        If there are fewer CPUs than `processes`, or a number is out of range.
    BaseException
        What `initializer` raised, with the remote traceback as its cause.

    Notes
    -----
    Where calls take well under a millisecond, several are sent to a process at a time. If one of them takes longer
    after all, those behind it are taken back and run elsewhere. If one ends its process, the others that were there run
    again; those of them that had already run, but whose results were lost, then run twice.

    Examples
    --------
    >>> from mltoolkit.util.multiprocessing import Pool
    >>> with Pool(2) as pool:
    ...     pool.map(abs, [-1, 2, -3])
    [1, 2, 3]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] | None = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        if processes is not None and processes < 1:
            raise ValueError(f"`processes` must be at least 1, got {processes!r}.")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"`initializer` must be callable, got {initializer!r}.")
        if not (maxtasksperchild is None or _is_count(maxtasksperchild)):
            raise ValueError(f"`maxtasksperchild` must be a positive int or None, got {maxtasksperchild!r}.")
        if context is not None:
            raise NotImplementedError(
                f"`context` must be None, got {context!r}: mltoolkit starts the processes itself. Set up their "
                "environment with `initializer`, or with `ray_remote_args={'runtime_env': ...}`."
            )
        processes = _connect(processes, ray_address)
        self._engine = Engine(
            processes, dict(ray_remote_args or {}), initializer, tuple(initargs or ()), maxtasksperchild
        )
        self._finalizer = weakref.finalize(self, self._engine.terminate_soon)
        self._finalizer.atexit = False  # what ends the session ends the processes

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = (),
        kwds: Mapping[str, Any] | None = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function in one of the processes and wait for its result.

        Parameters
        ----------
        func : callable
            The function.
        args : iterable, default=()
            Its arguments.
        kwds : mapping, optional
            Its keyword arguments.
        kwargs : mapping, optional
            Another name for `kwds`, the one that Ray uses.

        Returns
        -------
        object
            What `func` returned.
        """
        return self.apply_async(func, args, kwds, kwargs=kwargs).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
    ) -> AsyncResult:
        """Call a function in one of the processes.

        Parameters
        ----------
        func : callable
            The function.
        args : iterable, default=()
            Its arguments.
        kwds : mapping, optional
            Its keyword arguments.
        callback : callable, optional
            Called with the result, in a thread of this process. It must not block: results come in by that thread.
        error_callback : callable, optional
            Called instead with the exception that `func` raised.
        kwargs : mapping, optional
            Another name for `kwds`, the one that Ray uses.

        Returns
        -------
        AsyncResult
            The result to be.
        """
        if kwds is not None and kwargs is not None:
            raise TypeError("`kwds` and `kwargs` are two names for the same argument; give one of them.")
        self._check_running()
        job = AsyncResult(self, func, "apply", 1, callback, error_callback)
        self._engine.submit(job, [(tuple(args or ()), dict(kwds or kwargs or {}))])
        return job

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Call a function on every item and wait for all results.

        Parameters
        ----------
        func : callable
            Takes one argument.
        iterable : iterable
            The items.
        chunksize : int, optional
            Number of items that a process is given at a time; by default about a quarter of each process's share.

        Returns
        -------
        list
            The results, in the order of the items.
        """
        return self._map_async(func, iterable, "map", chunksize, None, None).get()

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Do as `map` does without waiting.

        Parameters
        ----------
        func : callable
            Takes one argument.
        iterable : iterable
            The items.
        chunksize : int, optional
            As for `map`.
        callback : callable, optional
            Called with the list of results; see `apply_async`.
        error_callback : callable, optional
            Called instead with the first exception, when all chunks have ended.

        Returns
        -------
        AsyncResult
            The list to be.
        """
        return self._map_async(func, iterable, "map", chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Call a function on every item, an iterable that holds its arguments, and wait for all results.

        Parameters
        ----------
        func : callable
            The function.
        iterable : iterable of iterables
            The arguments of each call.
        chunksize : int, optional
            As for `map`.

        Returns
        -------
        list
            The results, in the order of the items.
        """
        return self._map_async(func, iterable, "starmap", chunksize, None, None).get()

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Do as `starmap` does without waiting.

        Parameters
        ----------
        func : callable
            The function.
        iterable : iterable of iterables
            The arguments of each call.
        chunksize : int, optional
            As for `map`.
        callback : callable, optional
            Called with the list of results; see `apply_async`.
        error_callback : callable, optional
            Called instead with the first exception, when all chunks have ended.

        Returns
        -------
        AsyncResult
            The list to be.
        """
        return self._map_async(func, iterable, "starmap", chunksize, callback, error_callback)

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1) -> IMapIterator:
        """Call a function on every item; iterate over the results in the order of the items.

        Items are drawn as processes become free, so the iterable may be without end. Unlike in the standard pool, an
        exception ends neither the iteration nor its chunk, whatever the chunk size.

        Parameters
        ----------
        func : callable
            Takes one argument.
        iterable : iterable
            The items.
        chunksize : int, default=1
            Number of items that a process is given at a time.

        Returns
        -------
        IMapIterator
            Iterator with a method ``next(timeout)``.
        """
        self._check_running()
        job = IMapIterator(self, func)
        self._start_iteration(job, iterable, chunksize)
        return job

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> IMapUnorderedIterator:
        """Do as `imap` does, but give each result as soon as it is there.

        Parameters
        ----------
        func : callable
            Takes one argument.
        iterable : iterable
            The items.
        chunksize : int, default=1
            Number of items that a process is given at a time.

        Returns
        -------
        IMapUnorderedIterator
            Iterator with a method ``next(timeout)``.
        """
        self._check_running()
        job = IMapUnorderedIterator(self, func)
        self._start_iteration(job, iterable, chunksize)
        return job

    def close(self) -> None:
        """Take no more work; the processes end when what was given is done."""
        self._finalizer.detach()
        self._engine.close()

    def terminate(self) -> None:
        """End the processes at once; results that are missing become errors."""
        self._finalizer.detach()
        self._engine.terminate()

    def join(self) -> None:
        """Wait until the processes have ended.

        Raises
        ------
        ValueError
            If neither `close` nor `terminate` was called before.
        """
        if self._engine.state is State.RUN:
            raise ValueError("Pool is still running")
        self._engine.join()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.terminate()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        engine = getattr(self, "_engine", None)  # none if the constructor failed
        if engine is not None and engine.state is State.RUN:
            _warn(f"unclosed running pool {self!r}", ResourceWarning, source=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} state={self._engine.state.value} pool_size={self._engine.processes}>"

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def _check_running(self) -> None:
        if self._engine.state is not State.RUN:
            raise ValueError("Pool not running")

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        mode: Mode,
        chunksize: int | None,
        callback: Callable[[list[Any]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> AsyncResult:
        self._check_running()
        items = list(iterable)
        if chunksize is None:
            chunksize = -(-len(items) // (self._engine.processes * _CHUNKS_PER_WORKER)) or 1
        _check_chunksize(chunksize)
        batches = list(batched(items, chunksize))
        job = AsyncResult(self, func, mode, len(batches), callback, error_callback)
        self._engine.submit(job, batches)
        return job

    def _start_iteration(self, job: _ResultIterator, iterable: Iterable[Any], chunksize: int | None) -> None:
        chunksize = 1 if chunksize is None else chunksize
        _check_chunksize(chunksize)
        if isinstance(iterable, (list, tuple, range)):
            batches = list(batched(iterable, chunksize))
            job.set_length(len(batches))
            self._engine.submit(job, batches)
        else:
            self._engine.submit_from(job, batched(iterable, chunksize))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _check_chunksize(chunksize: int) -> None:
    if chunksize < 1:
        raise ValueError(f"`chunksize` must be at least 1, got {chunksize!r}.")


def _connect(processes: int | None, address: str | None) -> int:
    """Start a session if none runs; return the number of processes."""
    if mltoolkit.is_initialized():
        if address is not None and address not in _RUNNING_SESSION:
            raise RuntimeError(
                f"`ray_address={address!r}` cannot be used: a session runs already. Leave it out to use that session, "
                "or call `mltoolkit.shutdown()` first."
            )
    else:
        address = address or os.environ.get(_ADDRESS_VARIABLE) or None
        if address is None or address == "local":
            mltoolkit.init(num_cpus=processes)
        else:
            mltoolkit.init(address=address)
    num_cpus = int(mltoolkit.cluster_resources().get("CPU", 0))
    if processes is None:
        processes = max(num_cpus, 1)
    elif processes > num_cpus:
        raise ValueError(
            f"`processes` must be at most the {num_cpus} CPUs of the running session, got {processes}. Start the "
            f"session with `init(num_cpus={processes})`, or leave `processes` out."
        )
    return processes

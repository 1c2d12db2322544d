"""joblib's backend contract, on tasks."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from joblib.parallel import FallbackToBackend, ParallelBackendBase, SequentialBackend

import mltoolkit
from mltoolkit.util.joblib import _progress
from mltoolkit.util.joblib._call import CallOptions, ParallelCall
from mltoolkit.util.joblib._nested import NestedBackend

WAIT_FOR_CPUS_S = 60.0  # for an adaptive cluster that has scaled down to nothing

_JOBLIB_OPTIONS = frozenset({"max_nbytes", "temp_folder", "mmap_mode", "prefer", "require", "verbose", "context"})
_OWN_TASK_OPTIONS = {
    "max_retries": "a lost batch is repeated once, call by call",
    "retry_exceptions": "an exception of a call is the result of that call",
    "num_returns": "a batch has one result",
    "name": "a batch is named after the function it calls",
}


class MltoolkitBackend(ParallelBackendBase):
    """Run the calls of ``joblib.Parallel`` in batches, as tasks.

    Parameters
    ----------
    nesting_level : int, optional
        Depth below the outermost ``Parallel``; joblib sets it.
    inner_max_num_threads : int, optional
        BLAS and OpenMP threads of a batch; by default as many as it has CPUs.
    ray_remote_args : dict, optional
        Options of the tasks, such as ``{"num_cpus": 2}``.
    progress : bool, default=False
        Show a progress bar on stderr.

    Notes
    -----
    An instance that joblib makes for ``parallel_config`` serves any number of ``Parallel`` objects, several at a time
    when they return generators. It therefore only holds the settings, and `configure` gives each ``Parallel`` an
    instance of its own.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    supports_sharedmem = False
    uses_threads = False
    default_n_jobs = -1  # who chooses a cluster wants the cluster

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        *,
        ray_remote_args: dict[str, Any] | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self.parallel: Any = None
        self._task_options = _check_task_options(ray_remote_args)
        self._progress = bool(progress)
        self._bound = False
        self._options: CallOptions | None = None
        self._call: ParallelCall | None = None
        self._reporter: _progress.Reporter | None = None

    # Before a call.

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many batches run at a time.

        Parameters
        ----------
        n_jobs : int or None
            As many; negative counts from all that the cluster can run at once (-1: all, -2: all but one); None is 1.

        Raises
        ------
        ValueError
            If `n_jobs` is 0.
        """
        if n_jobs == 0:
            raise ValueError("`n_jobs` must be a positive number of jobs or negative to count from all CPUs, got 0.")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        return max(self._n_slots() + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        *,
        ray_remote_args: dict[str, Any] | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> int:
        """Prepare for the calls of a ``Parallel`` object and return how many batches will run at a time."""
        unknown = sorted(options.keys() - _JOBLIB_OPTIONS)
        if unknown:
            raise TypeError(
                f"Unknown option {unknown[0]!r} of the mltoolkit backend. It takes 'ray_remote_args' and 'progress', "
                f"and joblib's {sorted(_JOBLIB_OPTIONS - {'context'})}."
            )
        if not self._bound:
            raise FallbackToBackend(self._bind(ray_remote_args, progress))
        n_jobs_effective = self.effective_n_jobs(n_jobs)
        if n_jobs_effective == 1:
            backend = _progress.SequentialWithProgress if self._progress else SequentialBackend
            raise FallbackToBackend(backend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._options = self._call_options(n_jobs_effective, parallel, options)
        return n_jobs_effective

    def _bind(self, ray_remote_args: dict[str, Any] | None, progress: bool | None) -> MltoolkitBackend:
        bound = MltoolkitBackend(
            self.nesting_level,
            self.inner_max_num_threads,
            ray_remote_args=self._task_options if ray_remote_args is None else ray_remote_args,
            progress=self._progress if progress is None else progress,
        )
        bound._bound = True
        return bound

    def _n_slots(self) -> int:
        """Return how many batches the cluster can run at a time."""
        _ensure_init()
        n_slots = self._n_slots_now()
        if n_slots:
            return n_slots
        # An adaptive cluster may have scaled down to nothing: a task makes it grow.
        try:
            mltoolkit.get(mltoolkit.remote(_no_op).options(**self._task_options).remote(), timeout=WAIT_FOR_CPUS_S)
        except mltoolkit.exceptions.GetTimeoutError as error:
            raise TimeoutError(
                f"No node could run a task with {self._task_options} within {WAIT_FOR_CPUS_S:.0f} s; the cluster has "
                f"{mltoolkit.cluster_resources()}. Start nodes that have what the tasks ask for, or ask for less with "
                '`parallel_config("mltoolkit", ray_remote_args={"num_cpus": 1})`.'
            ) from error
        return max(self._n_slots_now(), 1)

    def _n_slots_now(self) -> int:
        total = mltoolkit.cluster_resources()
        need = {
            "CPU": self._task_options["num_cpus"],
            "GPU": self._task_options.get("num_gpus") or 0,
            **(self._task_options.get("resources") or {}),
        }
        return min((int(total.get(name, 0) / amount) for name, amount in need.items() if amount), default=1)

    def _call_options(self, n_jobs: int, parallel: Any, options: dict[str, Any]) -> CallOptions:
        mmap_mode = options.get("mmap_mode", "r")
        if mmap_mode not in (None, "r", "c"):
            raise ValueError(
                "`mmap_mode` must be 'r' (read-only, shared), 'c' (private writable copies) or None, got "
                f"{mmap_mode!r}: batches cannot write to each other's arrays."
            )
        if options.get("temp_folder") is not None:
            warnings.warn(
                f"`temp_folder`={options['temp_folder']!r} has no effect on the mltoolkit backend: arrays are shared "
                "through the session's object store.",
                UserWarning,
                stacklevel=5,
            )
        n_cpus = max(int(self._task_options["num_cpus"]), 1)
        # Two tasks a process hide the time between them, unless more processes could run than are wanted.
        spare = 2 if n_jobs >= self._n_slots() else 1
        return CallOptions(
            max_in_flight=n_jobs * spare,
            task_options=self._task_options,
            nested=NestedBackend((self.nesting_level or 0) + 1, n_cpus),
            n_threads=self.inner_max_num_threads,
            min_shared_bytes=None if mmap_mode is None else options.get("max_nbytes"),
            writable=mmap_mode == "c",
            split=parallel.batch_size == "auto",
            ordered=parallel.return_ordered,
        )

    # During a call.

    def start_call(self) -> None:
        """Begin a call; nothing is started before its first batch, since joblib may yet find the iterable wanting."""
        self._call = None
        # joblib keeps batches that it had formed when a call was aborted, and would add their results to those of the
        # next call of the same, managed `Parallel`.
        left_over = self.parallel._ready_batches
        while not left_over.empty():
            left_over.get_nowait()

    def compute_batch_size(self) -> int:
        """Return how many calls the next batch should have."""
        return self._current_call().batch_size()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """Return the backend for ``Parallel`` inside the calls; joblib asks when it takes calls from the iterable."""
        call = self._current_call()
        call.note_capture()
        return call.options.nested, None

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Run a batch; see `ParallelCall.submit`."""
        return self._current_call().submit(func.items, callback)

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        """Run a batch; joblib before 1.5 knows `submit` by this name."""
        return self.submit(func, callback)

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the results of a batch that has ended, or raise its error."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what runs and drop what waits."""
        if self._call is not None:
            self._call.abort()

    def stop_call(self) -> None:
        """End a call and free its shared arrays."""
        call, self._call = self._call, None
        if call is not None:
            call.close()
        reporter, self._reporter = self._reporter, None
        if reporter is not None:
            reporter.close()

    def terminate(self) -> None:
        """End what is left of a call; the processes belong to the runtime and stay warm."""
        self.stop_call()

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Wait inside a task: blocking in the runtime's own ``wait`` gives the task's CPU to its children."""
        call = self._call
        if call is not None and _inside_task():
            if self.parallel.return_generator:
                # The consumer has this thread, so another one does the waiting.
                args = (call, None)
                threading.Thread(target=_block_until_idle, args=args, name="mltoolkit-blocked", daemon=True).start()
            else:
                _block_until_idle(call, self.parallel.timeout)
        yield

    def _current_call(self) -> ParallelCall:
        if self._call is None:
            assert self._options is not None  # joblib configures before it dispatches
            parallel = self.parallel
            # What joblib makes of `pre_dispatch`, which may be an expression; 0 is "all".
            window = parallel._pre_dispatch_amount if parallel.return_generator else 0
            options = dataclasses.replace(self._options, window=window or None)
            self._call = ParallelCall(options, lambda: parallel._nb_consumed)
            if self._progress:
                self._reporter = _progress.Reporter(parallel)
        return self._call


def _block_until_idle(call: ParallelCall, timeout: float | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while not call.wait_idle(0.01):
        if deadline is not None and time.monotonic() > deadline:
            return  # joblib's own loop finds the call that is late
        refs = call.refs_in_flight()
        if refs:
            mltoolkit.wait(refs, num_returns=1, timeout=0.2)


def _inside_task() -> bool:
    return mltoolkit.get_runtime_context().get_task_id() is not None


def _ensure_init() -> None:
    if not mltoolkit.is_initialized():
        mltoolkit.init()


def _no_op() -> None:
    return None


def _check_task_options(task_options: dict[str, Any] | None) -> dict[str, Any]:
    task_options = dict(task_options or {})
    for name, reason in _OWN_TASK_OPTIONS.items():
        if name in task_options:
            raise ValueError(f"`ray_remote_args` must not hold {name!r}, got {task_options[name]!r}: {reason}.")
    task_options.setdefault("num_cpus", 1)
    mltoolkit.remote(_no_op).options(**task_options)  # says what is wrong with the others
    return task_options

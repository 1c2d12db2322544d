"""``Parallel`` inside a batch: as many threads as the batch has CPUs.

Nothing is oversubscribed that way, and nothing can hang.
"""

from __future__ import annotations

from typing import Any

from joblib.parallel import FallbackToBackend, ParallelBackendBase, SequentialBackend, ThreadingBackend


class NestedBackend(ParallelBackendBase):
    """The backend that a batch finds active, unless the user's code chooses another one.

    Parameters
    ----------
    nesting_level : int
        Depth below the outermost ``Parallel``.
    n_cpus : int
        CPUs that the batch was given.
    """

    supports_retrieve_callback = True  # what it falls back to streams as well

    def __init__(self, nesting_level: int | None = None, n_cpus: int = 1) -> None:
        super().__init__(nesting_level=nesting_level)
        self.n_cpus = n_cpus

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return `n_jobs`, at most the CPUs of the batch; -1 means all of them."""
        return _limited(n_jobs, self.n_cpus)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Hand over to threads, or to a plain loop where the batch has one CPU."""
        if self.effective_n_jobs(n_jobs) == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        raise FallbackToBackend(_BoundedThreads(self.nesting_level, self.n_cpus))

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Never called: `configure` hands over to another backend."""
        raise RuntimeError("NestedBackend runs nothing itself.")

    apply_async = submit  # its name before joblib 1.5

    def __reduce__(self) -> tuple[Any, ...]:
        return (NestedBackend, (self.nesting_level, self.n_cpus))


class _BoundedThreads(ThreadingBackend):
    def __init__(self, nesting_level: int | None, n_cpus: int) -> None:
        super().__init__(nesting_level=nesting_level)
        self.n_cpus = n_cpus

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return _limited(n_jobs, self.n_cpus)


def _limited(n_jobs: int | None, n_cpus: int) -> int:
    if n_jobs == 0:
        raise ValueError("`n_jobs` must be a positive number of jobs or negative to count from all CPUs, got 0.")
    if n_jobs is None:
        return 1
    if n_jobs < 0:
        return max(n_cpus + 1 + n_jobs, 1)
    return min(n_jobs, n_cpus)

"""A progress bar for ``Parallel``, drawn from the counters that joblib keeps, whatever runs the calls."""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import Any

from joblib.parallel import SequentialBackend

INTERVAL_S = 0.05


class Reporter:
    """Draw the progress of a ``Parallel`` object on stderr, from a thread.

    Parameters
    ----------
    parallel : joblib.Parallel
        What to watch; it must be running.
    until_done : bool, default=False
        End when `parallel` stops running; otherwise at `close`.

    Notes
    -----
    Where stderr is no terminal, only the final state is written. The total is known when the iterable has a length;
    else the bar shows a count until joblib has taken the last call from the iterable.
    """

    def __init__(self, parallel: Any, *, until_done: bool = False) -> None:
        from rich import console, progress

        self._parallel = weakref.ref(parallel)  # an abandoned generator must be collected as ever
        self._until_done = until_done
        self._end = threading.Event()
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("{task.completed:.0f}/{task.fields[known_total]}"),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            console=console.Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._bar.add_task("calls", total=None, known_total="?")
        self._bar.start()
        self._thread = threading.Thread(target=self._run, name="mltoolkit-progress", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Draw the final state and end; harmless when ended already."""
        self._end.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2)

    @property
    def running(self) -> bool:
        """Whether the bar is still being drawn."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._end.wait(INTERVAL_S) and self._draw():
                pass
            self._draw()
        finally:
            self._bar.stop()
            atexit.unregister(self.close)

    def _draw(self) -> bool:
        parallel = self._parallel()
        if parallel is None:
            return False
        running = bool(parallel._running)
        total = getattr(parallel, "n_tasks", None)  # since joblib 1.5
        if total is None and parallel._original_iterator is None and parallel.n_dispatched_tasks:
            total = parallel.n_dispatched_tasks
        known = "?" if total is None else str(total)
        self._bar.update(self._task, completed=parallel.n_completed_tasks, total=total, known_total=known, refresh=True)
        return running or not self._until_done


class SequentialWithProgress(SequentialBackend):
    """joblib's plain loop for ``n_jobs=1``, watched from outside since it calls no backend between its calls."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parallel: Any = None
        self._reporter: Reporter | None = None

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Start the bar, unless `parallel` is only being prepared as a context manager."""
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return 1; joblib asks at the beginning of each call."""
        running = self.parallel is not None and self.parallel._running
        if running and (self._reporter is None or not self._reporter.running):
            self._reporter = Reporter(self.parallel, until_done=True)
        return int(super().effective_n_jobs(n_jobs))

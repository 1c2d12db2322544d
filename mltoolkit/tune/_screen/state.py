"""The state of a sweep as its screen needs it, updated from the list of trials at a cost that does not grow with it."""

from __future__ import annotations

import heapq
import math
import os
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mltoolkit.tune._screen.errors import ErrorGroup, ErrorGroups
from mltoolkit.tune.experiment.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SHOWN_ORDER", "SweepState", "lookup", "number", "parameters_of"]

SHOWN_ORDER = (Trial.RUNNING, Trial.PAUSED, Trial.PENDING, Trial.TERMINATED, Trial.ERROR)

# Pending trials say little: they get this many rows where other trials want them too.
_PENDING_ROWS = 2


class SweepState:
    """Counts, rows to show, best trial and errors of a sweep.

    Finished trials do not change any more, so :meth:`update` looks at each of them once.

    Parameters
    ----------
    metric : str or None
        What the sweep is decided by; nested with ``/``.
    mode : {'min', 'max'} or None
    total : int or None
        Trials that the sweep will have, where that is known.
    max_rows : int
        Trials to show.
    sort_by_metric : bool
        Show the best of the finished trials rather than the latest.
    """

    def __init__(
        self, metric: str | None, mode: str | None, total: int | None, *, max_rows: int, sort_by_metric: bool
    ) -> None:
        self.metric = metric
        self.mode = mode
        self.total = total
        self.started = time.time()
        self.parameters: dict[str, None] = {}
        self.metrics: dict[str, None] = {}
        self._max_rows = max_rows
        self._sort_by_metric = sort_by_metric
        self._forget()

    def _forget(self) -> None:
        self.counts: Counter[str] = Counter()
        self.number = 0
        self.best: Trial | None = None
        self.best_value: float | None = None
        self.errors = ErrorGroups()
        self.new_errors: list[ErrorGroup] = []
        self._last: Trial | None = None
        self._unfinished: list[Trial] = []
        self._finished: Counter[str] = Counter()
        self._latest: deque[Trial] = deque(maxlen=self._max_rows)
        self._leading: list[tuple[float, int, Trial]] = []  # a heap: the worst of the best comes first
        self._best_finished: tuple[float, Trial] | None = None

    def update(self, trials: Sequence[Trial]) -> None:
        """Take the present state of the trials; the list only ever grows."""
        if self.number and (len(trials) < self.number or trials[self.number - 1] is not self._last):
            self._forget()  # another list
        self.new_errors = []
        for trial in trials[self.number :]:
            self.parameters.update(dict.fromkeys(trial.evaluated_params))
            self._unfinished.append(trial)
        if len(trials) > self.number:
            self.number = len(trials)
            self._last = trials[-1]

        best, best_value = None, None
        if self._best_finished is not None:
            best_value, best = self._best_finished
        unfinished = []
        counts: Counter[str] = Counter()
        for trial in self._unfinished:
            if trial.is_finished():
                self._finish(trial)
            else:
                unfinished.append(trial)
                counts[trial.status] += 1
            value = self.value_of(trial)
            if value is not None and (best_value is None or self._better(value, best_value)):
                best, best_value = trial, value
        self._unfinished = unfinished
        self.counts = counts + self._finished
        self.best, self.best_value = best, best_value

    def decide_by(self, metric: str, trials: Sequence[Trial]) -> None:
        """Take ``metric`` as the one that says which trial is best, for the trials so far as well."""
        self.metric = metric
        known, errors = self.new_errors, self.errors
        self._forget()
        self.update(trials)
        self.new_errors, self.errors = known, errors

    def _finish(self, trial: Trial) -> None:
        self._finished[trial.status] += 1
        self._latest.append(trial)
        if trial.status == Trial.ERROR:
            group = self.errors.add(trial)
            if group.first is trial:
                self.new_errors.append(group)
        value = self.value_of(trial)
        if value is None:
            return
        if self._best_finished is None or self._better(value, self._best_finished[0]):
            self._best_finished = value, trial
        # The number breaks ties: trials have no order.
        entry = (value if self.mode == "max" else -value, -self._finished.total(), trial)
        if len(self._leading) < self._max_rows:
            heapq.heappush(self._leading, entry)
        else:
            heapq.heappushpop(self._leading, entry)

    def _better(self, value: float, than: float) -> bool:
        return value > than if self.mode == "max" else value < than

    def value_of(self, trial: Trial) -> float | None:
        """The metric in the trial's last result, or None if it is no number there."""
        if self.metric is None or self.mode is None or not trial.last_result:
            return None
        return number(lookup(trial.last_result, self.metric))

    @property
    def finished(self) -> int:
        """Trials that will not run again."""
        return self._finished.total()

    @property
    def folder(self) -> str:
        """Folder of the experiment, under the home directory from ``~``; nothing where there is no trial yet."""
        return "" if self._last is None else _from_home(str(self._last.experiment_path))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the sweep began."""
        return max(0.0, time.time() - self.started)

    def rows(self, limit: int) -> list[Trial]:
        """The trials to show: those that run first, then the others, each kind in its share of ``limit``."""
        by_status: dict[str, list[Trial]] = {}
        for trial in self._unfinished:
            by_status.setdefault(trial.status, []).append(trial)
        if self._sort_by_metric and self._leading:
            finished = [trial for _, _, trial in sorted(self._leading, key=lambda entry: entry[:2], reverse=True)]
            ranked = set(finished)
            finished += [trial for trial in self._latest if trial not in ranked]
        else:
            finished = list(reversed(self._latest))

        running = by_status.pop(Trial.RUNNING, [])[:limit]
        waiting = [trial for status in SHOWN_ORDER for trial in by_status.get(status, [])]
        left = limit - len(running)
        kept = min(len(waiting), max(left - len(finished), min(_PENDING_ROWS, left)))
        return running + waiting[:kept] + finished[: left - kept]

    def final_rows(self, limit: int) -> list[Trial]:
        """The trials for the last table: the best ones, or the first ones where nothing says which is best."""
        if not self._leading:
            return self.rows(limit)
        best = [trial for _, _, trial in sorted(self._leading, key=lambda entry: entry[:2], reverse=True)]
        shown = set(best)
        return (best + [trial for trial in self.rows(limit) if trial not in shown])[:limit]

    def not_shown(self, shown: Sequence[Trial]) -> str:
        """``"31 more trials (1 RUNNING, 30 TERMINATED)"``, or nothing if all are shown."""
        hidden = self.counts - Counter(trial.status for trial in shown)
        if not hidden.total():
            return ""
        listed = ", ".join(f"{hidden[status]} {status}" for status in SHOWN_ORDER if hidden[status])
        return f"{hidden.total()} more trial{'s' if hidden.total() > 1 else ''} ({listed})"


def lookup(values: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The entry under a name that may be nested: ``"eval/loss"``; ``default`` if there is none."""
    if name in values:
        return values[name]
    head, _, rest = name.partition("/")
    below = values.get(head)
    return lookup(below, rest, default) if rest and isinstance(below, Mapping) else default


def parameters_of(trial: Trial) -> dict[str, Any]:
    """What was drawn for a trial, by name, as it is now: population based training changes the configuration."""
    return {name: lookup(trial.config, name, value) for name, value in trial.evaluated_params.items()}


def _from_home(path: str) -> str:
    home = os.path.expanduser("~").rstrip(os.sep)
    return f"~{path[len(home) :]}" if home and path.startswith(home + os.sep) else path


def number(value: Any) -> float | None:
    """A value as a number that can be compared, or None."""
    if isinstance(value, (int, float)) and not math.isnan(value):
        return float(value)
    return None

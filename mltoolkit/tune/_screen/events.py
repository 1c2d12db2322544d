"""Lines about single trials, for those who ask for more than the table."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mltoolkit.tune._screen.numbers import format_value
from mltoolkit.tune._screen.state import lookup
from mltoolkit.tune._screen.view import parameters_text
from mltoolkit.tune.callback import Callback
from mltoolkit.tune.logger._values import flatten
from mltoolkit.tune.logger.logger import pretty_print

if TYPE_CHECKING:
    from mltoolkit.tune._screen.state import SweepState
    from mltoolkit.tune._screen.view import View
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["EventLines"]

# So many lines come at once; after that one each second, with the number of those left out.
_FREE_LINES = 100
_LINE_EVERY_S = 1.0
_METRICS = 8

# Entries of a result that its line names already, or that say nothing about it.
_LEFT_OUT = frozenset(
    {
        "config",
        "date",
        "done",
        "experiment_tag",
        "hostname",
        "iterations_since_restore",
        "node_ip",
        "pid",
        "time_since_restore",
        "time_this_iter_s",
        "time_total_s",
        "timestamp",
        "training_iteration",
        "trial_id",
    }
)


class EventLines(Callback):
    """Show when trials start, finish and fail, and at verbosity 3 what they report.

    Parameters
    ----------
    prepare : callable
        Gives the state and the view of the sweep.
    verbose : {2, 3}
    """

    def __init__(self, prepare: Callable[[], tuple[SweepState, View]], verbose: int) -> None:
        self._prepare = prepare
        self._verbose = verbose
        self._lines = 0
        self._last_line = 0.0
        self._left_out = 0

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Show where it runs, with its parameters."""
        at = f" on {trial.location}" if trial.location else ""
        parameters = parameters_text(trial)
        self._line(f"{trial} started{at}" + (f": {parameters}" if parameters else ""))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Show the result."""
        if self._verbose < 3:
            return
        text = pretty_print(result, exclude=_LEFT_OUT - {"time_total_s"}).rstrip()
        lines = "".join(f"\n  {line}" for line in text.splitlines())
        self._line(f"{trial} reported at iteration {result.get('training_iteration')}:{lines}")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Show its last metrics."""
        metrics = _metrics_text(trial)
        self._line(f"{trial} finished after {_length(trial)}" + (f": {metrics}" if metrics else ""))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Show that it will run again."""
        self._line(f"{trial} failed after {_length(trial)} (failure {trial.num_failures}), and starts again")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Show a failure like earlier ones; the first of its kind is shown with its traceback anyway."""
        group = self._prepare()[0].errors.find(trial)
        if group is not None:
            self._line(f"{trial} failed after {_length(trial)}: {group.summary} (the same way as {group.first})")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Say how many events went without a line."""
        if self._left_out:
            self._show("")

    def _line(self, text: str) -> None:
        now = time.monotonic()
        if self._verbose < 3 and self._lines >= _FREE_LINES and now - self._last_line < _LINE_EVERY_S:
            self._left_out += 1
            return
        self._lines += 1
        self._last_line = now
        self._show(text)

    def _show(self, text: str) -> None:
        left_out, self._left_out = self._left_out, 0
        view = self._prepare()[1]
        if left_out:
            view.line(f"... {left_out} more events of trials")
        if text:
            view.line(text)


def _length(trial: Trial) -> str:
    iterations = lookup(trial.last_result, "training_iteration") or 0
    seconds = lookup(trial.last_result, "time_total_s")
    time_s = f", {seconds:.1f} s" if isinstance(seconds, (int, float)) else ""
    return f"{iterations} iteration{'' if iterations == 1 else 's'}{time_s}"


def _metrics_text(trial: Trial) -> str:
    flat = flatten({name: value for name, value in trial.last_result.items() if name not in _LEFT_OUT})
    numbers = [f"{name}={format_value(value)}" for name, value in flat.items() if isinstance(value, (int, float))]
    return ", ".join(numbers[:_METRICS]) + (", ..." if len(numbers) > _METRICS else "")

"""The view of a sweep whose output goes to a file or a pipe: few lines, none of which is ever taken back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mltoolkit.tune._screen.columns import duration
from mltoolkit.tune._screen.drawing import print_errors, print_final, print_rows, print_text
from mltoolkit.tune._screen.state import SweepState
from mltoolkit.tune._screen.view import View, ViewSettings, best_text, counts_text, progress_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["PlainView"]

_BEST_EVERY_S = 5.0
_STATUS_EVERY_S = 60.0
# A line about progress comes no sooner than this share of the time that has passed: their number grows
# with the logarithm of the sweep's length.
_SHARE = 0.05


class PlainView(View):
    """One line at the start, one when the best metric improves or something fails, and a final table.

    Parameters
    ----------
    console : rich.console.Console
    settings : ViewSettings
    """

    def __init__(self, console: Console, settings: ViewSettings) -> None:
        super().__init__(settings)
        self._console = console
        self._started = False
        self._best: float | None = None
        self._last_line: float | None = None

    def update(self, state: SweepState, info: Sequence[str]) -> None:
        """Print a line if there is news."""
        self._news(state)
        if self.settings.tables:
            self._table(state, info)
            return
        now = time.monotonic()
        if self._last_line is None:
            self._last_line = now - _BEST_EVERY_S  # the first result may be told at once
        improved = state.best_value is not None and state.best_value != self._best
        wait = _BEST_EVERY_S if improved else _STATUS_EVERY_S
        if now - self._last_line < max(wait, _SHARE * state.elapsed_s):
            return
        self._last_line = now
        self._best = state.best_value
        best = f"  best: {best_text(state, 4)}" if state.best is not None else ""
        self._print(f"{duration(state.elapsed_s)}  {progress_text(state)} ({counts_text(state)}){best}")

    def finish(self, state: SweepState, info: Sequence[str]) -> None:
        """Print the final table and the summary."""
        self._news(state)
        print_final(self._console, self, state)

    def line(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def close(self) -> None:
        """Nothing to do: what was shown stays."""

    def _news(self, state: SweepState) -> None:
        if not self._started and state.number:
            self._started = True
            self._print(_start_line(state))
        print_errors(self._console, self, state)

    def _table(self, state: SweepState, info: Sequence[str]) -> None:
        rows = state.rows(self.settings.max_progress_rows)
        if not rows:
            return
        self._print(f"{duration(state.elapsed_s)}  {progress_text(state)} ({counts_text(state)})")
        if any(trial.last_result for trial in rows):  # before the first result they have nothing to say
            for text in info:
                self._print(text)
        print_rows(self._console, self, rows, state)

    def _print(self, text: str) -> None:
        print_text(self._console, text)


def _start_line(state: SweepState) -> str:
    goal = f", {state.metric} to be {'maximised' if state.mode == 'max' else 'minimised'}" if state.mode else ""
    where = f", results in {state.folder}" if state.folder else ""
    trials = f" of {state.total} trials" if state.total else ""
    return f"Sweep{trials}{goal if state.metric else ''}{where}"

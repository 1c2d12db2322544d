"""What all views of a sweep have in common, and the texts they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mltoolkit.tune._screen.columns import Table, TableSettings, duration, last_part, shorten
from mltoolkit.tune._screen.numbers import format_value
from mltoolkit.tune._screen.state import SHOWN_ORDER, SweepState, lookup, parameters_of
from mltoolkit.tune.experiment.trial import Trial

if TYPE_CHECKING:
    from mltoolkit.tune._screen.errors import ErrorGroup

__all__ = ["View", "ViewSettings", "best_text", "counts_text", "parameters_text", "progress_text"]

_PARAMETER_LENGTH = 30


@dataclass(frozen=True)
class ViewSettings:
    """How much a view shows.

    Attributes
    ----------
    table : TableSettings
    max_progress_rows, max_error_rows : int
    tables : bool or None
        Whether there are tables before the last one; None leaves it to the view.
    """

    table: TableSettings
    max_progress_rows: int
    max_error_rows: int
    tables: bool | None


class View(ABC):
    """One way to show a sweep."""

    def __init__(self, settings: ViewSettings) -> None:
        self.settings = settings

    @abstractmethod
    def update(self, state: SweepState, info: Sequence[str]) -> None:
        """Show the present state."""

    @abstractmethod
    def finish(self, state: SweepState, info: Sequence[str]) -> None:
        """Show the last state and leave it there."""

    @abstractmethod
    def line(self, text: str) -> None:
        """Show an event."""

    @abstractmethod
    def close(self) -> None:
        """Leave the screen in order; harmless when it is already."""

    def new_errors(self, state: SweepState) -> list[ErrorGroup]:
        """Errors of kinds that came up since the last update, unless there were very many kinds before."""
        return [group for group in state.new_errors if group.number < self.settings.max_error_rows]

    def table(self, trials: Sequence[Trial], state: SweepState) -> Table:
        """The trials under the columns that were asked for."""
        return Table(trials, state, self.settings.table)


def counts_text(state: SweepState) -> str:
    """``"2 RUNNING, 5 TERMINATED"``."""
    return ", ".join(f"{state.counts[status]} {status}" for status in SHOWN_ORDER if state.counts[status])


def progress_text(state: SweepState) -> str:
    """``"7/10 trials"``, or without the total where it is not known."""
    return f"{state.finished}/{state.total} trials" if state.total else f"{state.finished} trials"


def parameters_text(trial: Trial, limit: int | None = None) -> str:
    """``"lr=0.1, momentum=0.9"``, with at most ``limit`` parameters."""
    items = [(last_part(name), value) for name, value in parameters_of(trial).items()]
    shown = [f"{name}={shorten(format_value(value), _PARAMETER_LENGTH)}" for name, value in items[:limit]]
    return ", ".join([*shown, "..."] if limit is not None and len(items) > limit else shown)


def best_text(state: SweepState, limit: int | None = None) -> str:
    """The best trial with its metric, iteration and parameters, or nothing if there is none yet."""
    if state.best is None:
        return ""
    iteration = lookup(state.best.last_result, "training_iteration")
    at = f" at iteration {iteration}" if iteration is not None else ""
    parameters = parameters_text(state.best, limit)
    value = format_value(state.best_value)
    return f"{state.metric}={value}{at}, {state.best}" + (f" with {parameters}" if parameters else "")


def final_lines(state: SweepState) -> list[str]:
    """The summary under the last table."""
    lines = [f"{progress_text(state)} in {duration(state.elapsed_s)} ({counts_text(state) or 'none started'})"]
    if state.best is not None:
        lines.append(f"Best trial: {best_text(state)}")
    if state.folder:
        lines.append(f"Results: {state.folder}")
    return lines

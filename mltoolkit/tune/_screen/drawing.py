"""Tables and texts on a console, as the live and the plain view both print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mltoolkit.tune._screen.columns import shorten
from mltoolkit.tune._screen.view import final_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from mltoolkit.tune._screen.columns import Column, Table
    from mltoolkit.tune._screen.errors import ErrorGroup
    from mltoolkit.tune._screen.state import SweepState
    from mltoolkit.tune._screen.view import View
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["STYLES", "fitted_table", "print_errors", "print_final", "print_rows", "print_text"]

STYLES = {"RUNNING": "green", "PAUSED": "yellow", "PENDING": "dim", "TERMINATED": "", "ERROR": "red"}
_GAP = 2
_SHORTEST = 40  # characters of an error that are shown in the narrowest window


def print_text(console: Console, text: str, style: str = "") -> None:
    """Print text as it is: no markup, and no line ends that it does not have."""
    from rich.text import Text

    # The style is the text's own: one given to `print` would colour the live table as well, which is drawn
    # again under what is printed.
    console.print(Text(text, style), soft_wrap=True)


def fitted_table(table: Table, width: int) -> tuple[list[Text], int]:
    """The lines of a table of at most ``width`` characters, and how many columns that cost.

    Not rich's own table: that takes milliseconds, too long for something that is drawn twice a second.
    """
    from rich.text import Text

    dropped = table.fit(width, _GAP)
    gap = " " * _GAP
    columns = [_aligned(column) for column in table.columns]
    lines = [gap.join(cells).rstrip() for cells in zip(*columns, strict=True)]
    styles = ["bold", *(STYLES.get(trial.status, "") for trial in table.trials)]
    drawn = zip(lines, styles, strict=True)
    return [Text(line, style, no_wrap=True, overflow="ellipsis") for line, style in drawn], dropped


def _aligned(column: Column) -> list[str]:
    from rich.cells import cell_len  # wide characters take two cells

    width = column.width
    cells = [column.title, *column.cells]
    if column.numeric:
        return [" " * (width - cell_len(cell)) + cell for cell in cells]
    return [cell + " " * (width - cell_len(cell)) for cell in cells]


def print_rows(console: Console, view: View, trials: Sequence[Trial], state: SweepState) -> None:
    """Print a table of trials and how many more there are."""
    if not trials:
        return
    lines, dropped = fitted_table(view.table(trials, state), console.width)
    for line in lines:
        console.print(line)
    left_out = [text for text in (state.not_shown(trials), _columns(dropped)) if text]
    if left_out:
        print_text(console, f"... {' and '.join(left_out)}", "dim")


def _columns(dropped: int) -> str:
    return f"{dropped} more column{'s' if dropped > 1 else ''}" if dropped else ""


def print_errors(console: Console, view: View, state: SweepState) -> None:
    """Print the tracebacks of errors of a new kind."""
    for group in view.new_errors(state):
        print_text(console, f"Trial {group.first} failed: {group.summary}", "bold red")
        if group.text and group.text != group.summary:
            print_text(console, "\n".join(f"  {line}" for line in group.text.splitlines()))


def _failure(group: ErrorGroup, width: int) -> str:
    """One line about a failure; its traceback stands above."""
    head = f"{group.first} failed: "
    if group.count == 1:
        return head + shorten(group.summary, max(width - len(head), _SHORTEST))
    repeats = f" ({group.repeats()})"
    if len(head) + len(group.summary) + len(repeats) > width:
        repeats = f" ({group.repeats(named=False)})"
    return head + shorten(group.summary, max(width - len(head) - len(repeats), _SHORTEST)) + repeats


def print_final(console: Console, view: View, state: SweepState) -> None:
    """Print the last table, what failed, and the summary."""
    rows = state.final_rows(view.settings.max_progress_rows)
    if rows:
        console.print()
        print_rows(console, view, rows, state)
    console.print()
    groups = state.errors.all()
    for group in groups[: view.settings.max_error_rows]:
        print_text(console, _failure(group, console.width), "red")
    if len(groups) > view.settings.max_error_rows:
        print_text(console, f"... {len(groups) - view.settings.max_error_rows} more kinds of errors", "red")
    for text in final_lines(state):
        print_text(console, text)

"""The view of a sweep in a notebook: one display, updated in place."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from mltoolkit import _optional
from mltoolkit.tune._screen.columns import duration
from mltoolkit.tune._screen.drawing import print_final
from mltoolkit.tune._screen.state import SHOWN_ORDER, SweepState
from mltoolkit.tune._screen.view import View, ViewSettings, best_text, final_lines, progress_text

if TYPE_CHECKING:
    from mltoolkit.tune._screen.errors import ErrorGroup
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["NotebookView", "render"]

# Colours that read on light and dark ground alike; everything else is inherited from the notebook.
_COLOURS = {
    "RUNNING": "#2e9e5b",
    "PAUSED": "#b8860b",
    "PENDING": "#888888",
    "TERMINATED": "#3d85c6",
    "ERROR": "#d9534f",
}
_STYLE = """
<style>
.mltk-tune {font-size: 0.9em; line-height: 1.5; max-width: 100%; overflow-x: auto}
.mltk-tune .bar {width: 22em; max-width: 60%; height: 0.6em; border-radius: 0.3em; overflow: hidden; display: inline-flex;
  background: rgba(128, 128, 128, 0.25); margin-right: 0.8em}
.mltk-tune .bar div {height: 100%}
.mltk-tune .dim {opacity: 0.65}
.mltk-tune table {border-collapse: collapse; margin: 0.6em 0; font-size: inherit; color: inherit}
.mltk-tune th {font-weight: 600; border-bottom: 1px solid rgba(128, 128, 128, 0.5)}
.mltk-tune th, .mltk-tune td {padding: 0.15em 1.2em 0.15em 0; white-space: nowrap; background: transparent; text-align: left}
.mltk-tune th.num, .mltk-tune td.num {text-align: right}
.mltk-tune td.num {font-variant-numeric: tabular-nums}
.mltk-tune td.name {font-family: monospace, monospace}
.mltk-tune pre {margin: 0.2em 0 0.6em 0; padding: 0.5em; overflow: auto; max-height: 20em; font-size: 0.9em;
  background: rgba(128, 128, 128, 0.12); color: inherit}
</style>
"""


class NotebookView(View):
    """A table with a progress bar in one output of the cell; the last state stays in the saved notebook.

    Parameters
    ----------
    settings : ViewSettings
    overwrite : bool
        Clear the cell's output before the first display.
    """

    def __init__(self, settings: ViewSettings, *, overwrite: bool) -> None:
        super().__init__(settings)
        self._overwrite = overwrite
        self._handle: Any = None

    def update(self, state: SweepState, info: Sequence[str]) -> None:
        """Replace what is displayed."""
        rows = [] if self.settings.tables is False else state.rows(self.settings.max_progress_rows)
        self._display(render(self, state, rows, info, done=False), _as_text(self, state))

    def finish(self, state: SweepState, info: Sequence[str]) -> None:
        """Display the last state."""
        rows = state.final_rows(self.settings.max_progress_rows)
        self._display(render(self, state, rows, (), done=True), _as_text(self, state))

    def line(self, text: str) -> None:
        """Print a line under the display."""
        self._print(text)

    def close(self) -> None:
        """Nothing to do: what was shown stays."""

    def _print(self, text: str) -> None:
        import sys

        sys.stdout.write(f"{text}\n")

    def _display(self, html: str, text: str) -> None:
        ipython = _optional.require("IPython.display", purpose="JupyterNotebookReporter", extra="notebook")
        bundle = {"text/html": html, "text/plain": text}
        if self._handle is None:
            if self._overwrite:
                ipython.clear_output(wait=True)
            self._handle = ipython.display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def render(view: View, state: SweepState, rows: Sequence[Trial], info: Sequence[str], *, done: bool) -> str:
    """The HTML of a sweep; all text of the user's is escaped."""
    parts = [_STYLE, '<div class="mltk-tune">', _header(state)]
    if done:
        parts += [f"<div>{escape(line)}</div>" for line in final_lines(state)[1:]]
    elif state.best is not None:
        parts.append(f"<div><b>Best trial:</b> {escape(best_text(state))}</div>")
    parts += [f'<div class="dim">{escape(line)}</div>' for text in info for line in text.splitlines()]
    if rows:
        parts.append(_table(view, state, rows))
    hidden = state.not_shown(rows)
    if hidden and rows:
        parts.append(f'<div class="dim">... {escape(hidden)}</div>')
    parts += [_failure(group) for group in state.errors.all()[: view.settings.max_error_rows]]
    more = len(state.errors) - view.settings.max_error_rows
    if more > 0:
        parts.append(f"<div>... {more} more kinds of errors</div>")
    return "\n".join([*parts, "</div>"])


def _header(state: SweepState) -> str:
    bar = ""
    if state.total:
        shares = [(state.counts[status] / state.total, _COLOURS[status]) for status in ("TERMINATED", "ERROR")]
        filled = "".join(
            f'<div style="width: {100 * share:.2f}%; background: {c}"></div>' for share, c in shares if share
        )
        bar = f'<div class="bar">{filled}</div>'
    counts = " ".join(
        f'<span style="color: {_COLOURS[status]}">{state.counts[status]}&nbsp;{status}</span>'
        for status in SHOWN_ORDER
        if state.counts[status]
    )
    elapsed = f'<span class="dim">{duration(state.elapsed_s)}</span>'
    return f"<div>{bar}<b>{progress_text(state)}</b> &ensp; {elapsed} &ensp; {counts}</div>"


def _table(view: View, state: SweepState, rows: Sequence[Trial]) -> str:
    table = view.table(rows, state)
    classes = [' class="num"' if column.numeric else "" for column in table.columns]
    heads = [f"<th{kind}>{escape(c.title)}</th>" for c, kind in zip(table.columns, classes, strict=True)]
    lines = ["<table><thead><tr>", *heads, "</tr></thead><tbody>"]
    for trial, row in zip(rows, table.rows, strict=True):
        cells = [f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, classes, strict=True)]
        cells[0] = f'<td class="name">{escape(row[0])}</td>'
        cells[1] = f'<td style="color: {_COLOURS[trial.status]}">{trial.status}</td>'
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "".join([*lines, "</tbody></table>"])


def _failure(group: ErrorGroup) -> str:
    repeats = f"<div>{escape(group.repeats())}</div>" if group.count > 1 else ""
    text = f"<pre>{escape(group.text)}</pre>" if group.text else ""
    head = f"<summary><b style='color: {_COLOURS['ERROR']}'>{escape(str(group.first))} failed:</b> {escape(group.summary)}</summary>"
    opened = "" if group.number else " open"  # the first traceback; the others at a click
    return f"<details{opened}>{head}{text}{repeats}</details>"


def _as_text(view: View, state: SweepState) -> str:
    """What front ends without HTML show."""
    from rich.console import Console

    text = io.StringIO()
    print_final(Console(file=text, width=150, color_system=None, force_jupyter=False), view, state)
    return text.getvalue().strip()

"""The live view of a sweep in a terminal, refreshed in place."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mltoolkit.tune._screen.columns import duration
from mltoolkit.tune._screen.drawing import STYLES, fitted_table, print_errors, print_final, print_text
from mltoolkit.tune._screen.state import SHOWN_ORDER, SweepState
from mltoolkit.tune._screen.view import View, ViewSettings, best_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["TerminalView"]

_BAR_WIDTH = 40
_SPARE_LINES = 2  # under the table: the line of trials not shown, and the cursor's


class TerminalView(View):
    """A header and a table, drawn over each other; other output goes above them.

    Parameters
    ----------
    console : rich.console.Console
        A terminal.
    settings : ViewSettings
    """

    def __init__(self, console: Console, settings: ViewSettings) -> None:
        super().__init__(settings)
        self._console = console
        self._live: Any = None

    def update(self, state: SweepState, info: Sequence[str]) -> None:
        """Draw the state over the one before."""
        print_errors(self._console, self, state)
        if self._live is None:
            from rich.live import Live

            # No thread: this is drawn when the sweep has time for it. What the trials print goes through
            # sys.stdout and sys.stderr, which stand above the drawing as long as it is live.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
            atexit.register(self.close)
        self._live.update(self._render(state, info), refresh=True)

    def finish(self, state: SweepState, info: Sequence[str]) -> None:
        """Replace the live part by the final table and the summary."""
        self.close()
        print_errors(self._console, self, state)
        print_final(self._console, self, state)

    def line(self, text: str) -> None:
        """Print a line above the live part."""
        print_text(self._console, text)

    def close(self) -> None:
        """Take the live part away and give the cursor back."""
        if self._live is not None:
            live, self._live = self._live, None
            atexit.unregister(self.close)
            live.stop()

    def _render(self, state: SweepState, info: Sequence[str]) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        width, height = self._console.size
        header: list[RenderableType] = [Text(), self._counts(state), self._progress(state)]
        best = best_text(state)
        if best:
            header.append(Text.assemble(("best  ", "bold"), best, no_wrap=True, overflow="ellipsis"))
        header += [
            Text(line, style="dim", no_wrap=True, overflow="ellipsis") for text in info for line in text.splitlines()
        ]
        for group in state.errors.all()[-self.settings.max_error_rows :]:
            if group.count > 1:
                header.append(Text(f"{group.summary}: {group.repeats()}", "red", no_wrap=True, overflow="ellipsis"))
        if self.settings.tables is False:
            return Group(*header)
        room = max(3, height - len(header) - 3 - _SPARE_LINES)
        rows = state.rows(min(self.settings.max_progress_rows, room))
        parts = [*header, Text()]
        if rows:
            parts += fitted_table(self.table(rows, state), width)[0]
        hidden = state.not_shown(rows)
        if hidden:
            parts.append(Text(f"... {hidden}", style="dim"))
        return Group(*parts)

    def _counts(self, state: SweepState) -> RenderableType:
        from rich.text import Text

        text = Text(no_wrap=True, overflow="ellipsis")
        for status in SHOWN_ORDER:
            if state.counts[status]:
                text.append(f"{state.counts[status]} {status}  ", style=STYLES[status])
        return text

    def _progress(self, state: SweepState) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table as RichTable
        from rich.text import Text

        line = RichTable.grid(padding=(0, 2, 0, 0))
        elapsed = Text(duration(state.elapsed_s), style="dim")
        if state.total:
            bar = ProgressBar(
                total=state.total,
                completed=state.finished,
                width=_BAR_WIDTH,
                complete_style="green",  # rich's own is as red as a failure
                finished_style="green",
            )
            line.add_row(bar, f"{state.finished}/{state.total} trials", elapsed)
        else:
            line.add_row(f"{state.finished} trials finished", elapsed)
        return line

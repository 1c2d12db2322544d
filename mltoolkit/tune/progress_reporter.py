"""Reporters: what a sweep shows while it runs."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from mltoolkit.tune._screen.columns import DEFAULT_COLUMNS, TableSettings, infer_metrics
from mltoolkit.tune._screen.events import EventLines
from mltoolkit.tune._screen.state import SweepState
from mltoolkit.tune._screen.view import View, ViewSettings
from mltoolkit.tune.callback import Callback

if TYPE_CHECKING:
    from rich.console import Console

    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["CLIReporter", "JupyterNotebookReporter", "ProgressReporter", "TuneReporterBase", "default_reporter"]

# Of the views that are drawn in place.
_REFRESH_S = 0.5
_WIDE = 160
# Reports may take this share of the sweep's time, and come this often even if they are slow.
_SHARE = 0.01
_LONGEST_WAIT_S = 5.0


class ProgressReporter:
    """Base class of reporters.

    The sweep calls :meth:`setup` once, then after each event :meth:`should_report` and, where that says so,
    :meth:`report`; at the end :meth:`report` with ``done=True``, and :meth:`close` however the sweep ended.
    """

    def setup(
        self,
        start_time: float | None = None,
        total_samples: int | None = None,
        metric: str | None = None,
        mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Called before the first report.

        Parameters
        ----------
        start_time : float or None
            When the sweep began, in seconds since the epoch.
        total_samples : int or None
            Trials it will have, where that is known.
        metric : str or None
            What it is decided by.
        mode : {'min', 'max'} or None
        **kwargs
            For later versions.
        """

    def should_report(self, trials: list[Trial], done: bool = False) -> bool:
        """Whether to report now; ``done`` at the last time.

        Returns
        -------
        bool
        """
        raise NotImplementedError

    def report(self, trials: list[Trial], done: bool, *sys_info: str) -> None:
        """Report on the trials.

        Parameters
        ----------
        trials : list of Trial
            All trials so far.
        done : bool
            Whether the sweep is over.
        *sys_info : str
            Lines about the sweep as a whole, such as the resources in use.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Leave the screen in order; called at the end even if the sweep was interrupted."""

    def callbacks(self) -> list[Callback]:
        """Callbacks of the sweep that this reporter needs; asked for once, before the first trial."""
        return []


class _Silent(ProgressReporter):
    """Shows nothing."""

    def should_report(self, trials: list[Trial], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Trial], done: bool, *sys_info: str) -> None:
        pass


class TuneReporterBase(ProgressReporter):
    """A table of trials; the base of the reporters for terminals and notebooks.

    Parameters
    ----------
    metric_columns : list of str or dict of str to str, default=None
        Metrics to show, nested ones with ``/``; a dict gives each a title. By default the usual ones and the
        first ``infer_limit`` others that trials report.
    parameter_columns : list of str or dict of str to str, default=None
        Parameters to show; by default all that the search space draws.
    total_samples : int, default=None
        Trials the sweep will have; by default the sweep says so.
    max_progress_rows : int, default=20
        Rows of the table.
    max_error_rows : int, default=20
        Kinds of errors to show.
    max_column_length : int, default=20
        Characters of a title or a value, longer ones are cut off.
    max_report_frequency : float, default=5
        Seconds between reports, at least.
    infer_limit : int, default=3
        Metrics to show besides the usual ones when ``metric_columns`` is not given.
    print_intermediate_tables : bool, default=None
        Whether there are tables before the last one. By default there are where they are redrawn in place, and
        are not where lines are only ever added.
    metric : str, default=None
        Metric that says which trial is best; by default the sweep's.
    mode : {'min', 'max'}, default=None
    sort_by_metric : bool, default=False
        Of the finished trials show the best rather than the latest.

    Raises
    ------
    ValueError
        If ``mode`` is neither ``'min'`` nor ``'max'``, or a number of rows is negative.
    """

    DEFAULT_COLUMNS: ClassVar[dict[str, str]] = DEFAULT_COLUMNS

    def __init__(
        self,
        *,
        metric_columns: list[str] | dict[str, str] | None = None,
        parameter_columns: list[str] | dict[str, str] | None = None,
        total_samples: int | None = None,
        max_progress_rows: int = 20,
        max_error_rows: int = 20,
        max_column_length: int = 20,
        max_report_frequency: float = 5,
        infer_limit: int = 3,
        print_intermediate_tables: bool | None = None,
        metric: str | None = None,
        mode: str | None = None,
        sort_by_metric: bool = False,
    ) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")
        for name, value in (("max_progress_rows", max_progress_rows), ("max_error_rows", max_error_rows)):
            if value < 0:
                raise ValueError(f"`{name}` must not be negative, got {value}.")
        self._metric_columns = metric_columns
        self._parameter_columns = parameter_columns
        self._total_samples = total_samples
        self._max_progress_rows = max_progress_rows
        self._max_error_rows = max_error_rows
        self._max_column_length = max_column_length
        self._max_report_frequency = max_report_frequency
        self._infer_limit = infer_limit
        self._print_intermediate_tables = print_intermediate_tables
        self._metric = metric
        self._mode = mode
        self._sort_by_metric = sort_by_metric
        self._start_time: float | None = None
        self._last_report = -1e9
        self._report_cost_s = 0.0
        self._reported = False
        self._verbose = 1
        self._done = False
        self._state: SweepState | None = None
        self._view: View | None = None

    def setup(
        self,
        start_time: float | None = None,
        total_samples: int | None = None,
        metric: str | None = None,
        mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Take what the sweep knows; see :meth:`ProgressReporter.setup`.

        Raises
        ------
        ValueError
            If the sweep has another metric or mode than this reporter was made with.
        """
        self.set_start_time(start_time)
        if total_samples is not None:
            self.set_total_samples(total_samples)
        self.set_search_properties(metric=metric, mode=mode)
        if self._sort_by_metric and not (self._metric and self._mode):
            warnings.warn("`sort_by_metric` needs `metric` and `mode`; trials are not sorted.", stacklevel=2)

    def set_search_properties(self, metric: str | None, mode: str | None) -> bool:
        """Take metric and mode of the sweep; called by :meth:`setup`.

        Returns
        -------
        bool
            True.

        Raises
        ------
        ValueError
            If the sweep has another metric or mode than this reporter was made with.
        """
        for name, own, given in (("metric", self._metric, metric), ("mode", self._mode, mode)):
            if own and given and own != given:
                raise ValueError(
                    f"The reporter was made with `{name}={own!r}`, the sweep has {given!r}: give it to one."
                )
        self._metric = self._metric or metric
        self._mode = self._mode or mode
        return True

    def set_total_samples(self, total_samples: int) -> None:
        """Take the number of trials that the sweep will have; called by :meth:`setup` where it is known."""
        self._total_samples = total_samples

    def set_start_time(self, timestamp: float | None = None) -> None:
        """Take the time when the sweep began, in seconds since the epoch; now by default. Called by :meth:`setup`."""
        self._start_time = timestamp or time.time()

    def should_report(self, trials: list[Trial], done: bool = False) -> bool:
        """Whether the last report is long enough ago, or ``done``."""
        now = time.monotonic()
        wait = max(self._max_report_frequency, min(self._report_cost_s / _SHARE, _LONGEST_WAIT_S))
        if done or now - self._last_report >= wait:
            self._last_report = now
            return True
        return False

    def report(self, trials: list[Trial], done: bool, *sys_info: str) -> None:
        """Show the trials; see :meth:`ProgressReporter.report`."""
        if self._done:
            return
        state, view = self._prepare()
        started = time.perf_counter()
        state.update(trials)
        rows = state.rows(self._max_progress_rows)
        if self._metric_columns is None:
            infer_metrics(state, rows, self._infer_limit)
            if state.metric is None and self._mode and len(state.metrics) == 1:
                state.decide_by(next(iter(state.metrics)), trials)
        if done:
            self._done = True
            view.finish(state, sys_info)
        else:
            view.update(state, sys_info)
            cost_s = time.perf_counter() - started
            self._report_cost_s = cost_s if self._reported else 0.0  # the first one imports what it needs
            self._reported = True

    def close(self) -> None:
        """Leave the screen in order."""
        if self._view is not None:
            self._view.close()

    def callbacks(self) -> list[Callback]:
        """The callback that shows events of single trials, where that is asked for."""
        return [EventLines(self._prepare, self._verbose)] if self._verbose > 1 else []

    def add_metric_column(self, metric: str, representation: str | None = None) -> None:
        """Show another metric.

        Parameters
        ----------
        metric : str
        representation : str, optional
            Its title; only where columns were not given as a list.

        Raises
        ------
        ValueError
            If it is shown already, or has a title that a list of columns has no place for.
        """
        if self._metric_columns is None:
            self._metric_columns = dict(self.DEFAULT_COLUMNS)
        _add_column(self._metric_columns, "metric", metric, representation)

    def add_parameter_column(self, parameter: str, representation: str | None = None) -> None:
        """Show another parameter; see :meth:`add_metric_column`."""
        if self._parameter_columns is None:
            self._parameter_columns = []
        _add_column(self._parameter_columns, "parameter", parameter, representation)

    def _prepare(self) -> tuple[SweepState, View]:
        if self._state is None or self._view is None:
            self._state = SweepState(
                self._metric,
                self._mode,
                self._total_samples if self._total_samples and self._total_samples < 2**31 else None,
                max_rows=self._max_progress_rows,
                sort_by_metric=self._sort_by_metric,
            )
            self._state.started = self._start_time or self._state.started
            columns = TableSettings(
                self._metric_columns, self._parameter_columns, self._infer_limit, self._max_column_length
            )
            self._view = self._make_view(
                ViewSettings(columns, self._max_progress_rows, self._max_error_rows, self._print_intermediate_tables)
            )
        return self._state, self._view

    def _make_view(self, settings: ViewSettings) -> View:
        raise NotImplementedError


class CLIReporter(TuneReporterBase):
    """Reports on standard output: a table redrawn in place in a terminal, few lines in a file or a pipe.

    The parameters are those of :class:`TuneReporterBase`. ``NO_COLOR`` and ``COLUMNS`` are honoured.

    Examples
    --------
    >>> reporter = CLIReporter(metric_columns={"loss": "val. loss"}, max_report_frequency=1)
    >>> reporter.add_metric_column("accuracy", "acc")
    """

    _console: Console | None = None

    def _make_view(self, settings: ViewSettings) -> View:
        console = self._console or _console()
        # Not `is_terminal` alone: colours may be forced for output that goes to a file.
        if console.is_interactive and console.file.isatty():
            from mltoolkit.tune._screen.terminal import TerminalView

            return TerminalView(console, settings)
        from mltoolkit.tune._screen.plain import PlainView

        return PlainView(console, settings)


class JupyterNotebookReporter(TuneReporterBase):
    """Reports in the output of a notebook's cell: a table with a progress bar, updated in place.

    Parameters
    ----------
    overwrite : bool, default=True
        Clear the output of the cell first.
    metric_columns, parameter_columns, total_samples, max_progress_rows, max_error_rows, max_column_length, \
max_report_frequency, infer_limit, print_intermediate_tables, metric, mode, sort_by_metric
        See :class:`TuneReporterBase`.
    """

    def __init__(
        self,
        *,
        overwrite: bool = True,
        metric_columns: list[str] | dict[str, str] | None = None,
        parameter_columns: list[str] | dict[str, str] | None = None,
        total_samples: int | None = None,
        max_progress_rows: int = 20,
        max_error_rows: int = 20,
        max_column_length: int = 20,
        max_report_frequency: float = 5,
        infer_limit: int = 3,
        print_intermediate_tables: bool | None = None,
        metric: str | None = None,
        mode: str | None = None,
        sort_by_metric: bool = False,
    ) -> None:
        super().__init__(
            metric_columns=metric_columns,
            parameter_columns=parameter_columns,
            total_samples=total_samples,
            max_progress_rows=max_progress_rows,
            max_error_rows=max_error_rows,
            max_column_length=max_column_length,
            max_report_frequency=max_report_frequency,
            infer_limit=infer_limit,
            print_intermediate_tables=print_intermediate_tables,
            metric=metric,
            mode=mode,
            sort_by_metric=sort_by_metric,
        )
        self._overwrite = overwrite

    def _make_view(self, settings: ViewSettings) -> View:
        if not in_notebook():
            from mltoolkit.tune._screen.plain import PlainView

            warnings.warn("JupyterNotebookReporter is not in a notebook: it reports as CLIReporter.", stacklevel=4)
            return PlainView(_console(), settings)
        from mltoolkit.tune._screen.html import NotebookView

        return NotebookView(settings, overwrite=self._overwrite)


def default_reporter(
    verbose: int,
    *,
    metric: str | None = None,
    mode: str | None = None,
    total_samples: int | None = None,
    reporter: ProgressReporter | None = None,
) -> ProgressReporter:
    """The reporter of a sweep, set up.

    Parameters
    ----------
    verbose : {0, 1, 2, 3}
        0 shows nothing, 1 the table of trials, 2 also a line when a trial starts, finishes or fails (of very
        many in a short time, some are only counted), 3 also every result.
    metric, mode, total_samples
        See :meth:`ProgressReporter.setup`.
    reporter : ProgressReporter, optional
        The user's; by default the one that fits where the output goes.

    Returns
    -------
    ProgressReporter

    Raises
    ------
    ValueError
        If ``verbose`` is out of range.
    TypeError
        If ``reporter`` is no reporter.
    """
    if verbose not in (0, 1, 2, 3):
        raise ValueError(f"`verbose` must be 0, 1, 2 or 3, got {verbose!r}.")
    if reporter is not None and not isinstance(reporter, ProgressReporter):
        hint = f": write `{reporter.__name__}()`" if isinstance(reporter, type) else ""
        raise TypeError(f"`progress_reporter` must be a ProgressReporter, got {reporter!r}{hint}.")
    if verbose == 0:
        return _Silent()
    if reporter is None:
        if in_notebook():
            reporter = JupyterNotebookReporter(overwrite=False, max_report_frequency=_REFRESH_S)
        else:
            reporter = CLIReporter(max_report_frequency=_REFRESH_S)
    if isinstance(reporter, TuneReporterBase):
        reporter._verbose = int(verbose)
    reporter.setup(start_time=time.time(), total_samples=total_samples, metric=metric, mode=mode)
    return reporter


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    import sys

    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


def _console() -> Console:
    import os

    from rich.console import Console

    console = Console(force_jupyter=False)
    if not console.file.isatty() and "COLUMNS" not in os.environ:
        console.width = _WIDE  # files have no width; 80 characters would cut tables for no reason
    return console


def _add_column(columns: list[str] | dict[str, str], kind: str, name: str, title: str | None) -> None:
    if name in columns:
        raise ValueError(f"There is a column for the {kind} {name!r} already.")
    if isinstance(columns, dict):
        columns[name] = title or name
    elif title in (None, name):
        columns.append(name)
    else:
        raise ValueError(
            f"The title {title!r} has no place: the {kind} columns were given as a list. Give a dict of names and titles."
        )

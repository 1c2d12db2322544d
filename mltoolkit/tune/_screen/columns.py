"""Which columns a table of trials has, and how values look in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mltoolkit.tune._screen.numbers import format_values
from mltoolkit.tune._screen.state import lookup, parameters_of

if TYPE_CHECKING:
    from mltoolkit.tune._screen.state import SweepState
    from mltoolkit.tune.experiment.trial import Trial

__all__ = [
    "DEFAULT_COLUMNS",
    "Column",
    "Table",
    "TableSettings",
    "duration",
    "infer_metrics",
    "shorten",
]

# Metrics that are shown wherever they are reported, and what they are called there.
DEFAULT_COLUMNS = {
    "mean_accuracy": "acc",
    "mean_loss": "loss",
    "training_iteration": "iter",
    "time_total_s": "total time (s)",
    "timesteps_total": "ts",
    "episode_reward_mean": "reward",
}

# Keys that Tune adds to every result.
_AUTOMATIC = frozenset(
    {
        "checkpoint_dir_name",
        "config",
        "date",
        "done",
        "episodes_total",
        "episodes_this_iter",
        "experiment_id",
        "experiment_tag",
        "hostname",
        "iterations_since_restore",
        "node_ip",
        "pid",
        "should_checkpoint",
        "time_since_restore",
        "time_this_iter_s",
        "time_total_s",
        "timestamp",
        "timesteps_since_restore",
        "timesteps_this_iter",
        "timesteps_total",
        "training_iteration",
        "trial_id",
        "trial_log_path",
    }
)

_MISSING = object()  # what a trial does not have, unlike what it has as None


@dataclass(frozen=True)
class TableSettings:
    """What the user asked to see; ``None`` stands for what Tune finds."""

    metric_columns: Sequence[str] | Mapping[str, str] | None
    parameter_columns: Sequence[str] | Mapping[str, str] | None
    infer_limit: int
    max_column_length: int


@dataclass
class Column:
    """A column of a table.

    Attributes
    ----------
    title : str
    cells : list of str
    numeric : bool
        Whether it is aligned to the right.
    rank : int
        Columns of the highest rank go first when the screen is too narrow.
    """

    title: str
    cells: list[str]
    numeric: bool
    rank: int

    @cached_property
    def width(self) -> int:
        """Characters it takes."""
        from rich.cells import cell_len  # wide characters take two

        return max([cell_len(self.title), *map(cell_len, self.cells)])


class Table:
    """Rows of trials under columns.

    Parameters
    ----------
    trials : sequence of Trial
    state : SweepState
    settings : TableSettings
    """

    def __init__(self, trials: Sequence[Trial], state: SweepState, settings: TableSettings) -> None:
        self.trials = list(trials)
        self._settings = settings
        self.columns = [
            Column("trial", [str(trial) for trial in trials], False, 0),
            Column("status", [trial.status for trial in trials], False, 0),
            Column("loc", [trial.location for trial in trials], False, 9),
        ]
        parameters = _named(settings.parameter_columns) or _short_names(list(state.parameters))
        drawn = [parameters_of(trial) for trial in trials]
        for position, (name, title) in enumerate(parameters.items()):
            values = [
                known.get(name, lookup(trial.config, name, _MISSING))
                for trial, known in zip(trials, drawn, strict=True)
            ]
            self._add(title, values, rank=2 if position < 2 else 5)
        for name, title in self._metrics(state).items():
            values = [lookup(trial.last_result, name, _MISSING) for trial in trials]
            if settings.metric_columns is None and all(value is None or value is _MISSING for value in values):
                continue
            rank = {state.metric: 0, "training_iteration": 1, "time_total_s": 6}.get(name, 3)
            if name == "time_total_s":
                values = [f"{value:.2f}" if isinstance(value, float) else value for value in values]
            self._add(title, values, rank)
        if not any(self.columns[2].cells):
            del self.columns[2]

    def _metrics(self, state: SweepState) -> dict[str, str]:
        if self._settings.metric_columns is not None:
            return _named(self._settings.metric_columns)
        names = dict.fromkeys(state.metrics)
        if state.metric is not None:
            names = {state.metric: None, **names}
        user = {name: name for name in names if name not in DEFAULT_COLUMNS}
        lead = {name: DEFAULT_COLUMNS[name] for name in ("mean_accuracy", "mean_loss", "episode_reward_mean")}
        rest = {name: DEFAULT_COLUMNS[name] for name in ("training_iteration", "time_total_s", "timesteps_total")}
        return {**lead, **user, **rest}

    def _add(self, title: str, values: list[Any], rank: int) -> None:
        present = iter(format_values([value for value in values if value is not _MISSING]))
        texts = ["" if value is _MISSING else next(present) for value in values]
        cells = [shorten(text, self._settings.max_column_length) for text in texts]
        numeric = all(cell in ("", "None") or _is_number(cell) for cell in cells)
        self.columns.append(Column(shorten(title, self._settings.max_column_length), cells, numeric, rank))

    def fit(self, width: int, gap: int) -> int:
        """Drop columns that the least is lost with until the table fits; returns how many were dropped."""
        dropped = 0
        while len(self.columns) > 2 and sum(column.width + gap for column in self.columns) - gap > width:
            rank = max(column.rank for column in self.columns)
            if rank == 0:
                break
            position = max(i for i, column in enumerate(self.columns) if column.rank == rank)
            del self.columns[position]
            dropped += 1
        return dropped

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Cells, row by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))


def infer_metrics(state: SweepState, trials: Sequence[Trial], limit: int) -> None:
    """Note metrics of the user's that the trials report, the first ``limit`` of them."""
    if len(state.metrics) >= limit:
        return
    for trial in trials:
        for name, value in trial.last_result.items():
            if name in _AUTOMATIC or name in DEFAULT_COLUMNS or not isinstance(value, (int, float)):
                continue
            state.metrics[name] = None
            if len(state.metrics) >= limit:
                return


def _named(columns: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    if columns is None:
        return {}
    return dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}


def _short_names(names: list[str]) -> dict[str, str]:
    """The last part of nested names where that tells them apart: ``model/lr`` is ``lr``."""
    last = [last_part(name) for name in names]
    return {name: short if last.count(short) == 1 else name for name, short in zip(names, last, strict=True)}


def last_part(name: str) -> str:
    """The part of a nested name that says what it is: ``model/lr`` is ``lr``, ``model/layers/0`` is ``layers/0``.

    Examples
    --------
    >>> last_part("model/layers/0")
    'layers/0'
    """
    parts = name.split("/")
    start = len(parts) - 1
    while start and parts[start].isdigit():
        start -= 1
    return "/".join(parts[start:])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def shorten(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters, the last of which is then an ellipsis."""
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    Examples
    --------
    >>> duration(3725.4)
    '1:02:05'
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"

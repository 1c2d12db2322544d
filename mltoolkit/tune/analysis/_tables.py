"""Results and configurations as rows and columns with flat names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mltoolkit._optional import require
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.search._nested import flatten, get_value

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TrialTables", "config_columns", "flat_result", "make_table", "trial_row", "trial_table"]


def flat_result(result: dict[str, Any]) -> dict[str, Any]:
    """A result under flat names, nested ones last."""
    nested = {name: value for name, value in result.items() if isinstance(value, dict)}
    if not nested:
        return dict(result)
    return {name: value for name, value in result.items() if name not in nested} | flatten(nested)


def config_columns(config: dict[str, Any], drawn: Iterable[str]) -> dict[str, Any]:
    """A configuration under names such as ``"config/model/lr"``.

    A list is one value, as in Ray. The elements of one that the search space drew are there as well, under their
    positions, ``"config/model/layers/0"``: they are what the trials differ in.

    Parameters
    ----------
    config : dict
    drawn : iterable of str
        Flat names of what the search space drew, such as ``"model/layers/0"``.

    Returns
    -------
    dict
    """
    columns = flatten({"config": config}) if config else {}
    for name in drawn:
        column = f"config/{name}"
        if column in columns:
            continue
        try:
            columns[column] = get_value(config, _as_path(config, name))
        except (KeyError, IndexError, TypeError):
            continue  # a configuration that a scheduler changed may no longer have that place
    return columns


def _as_path(config: Any, name: str) -> tuple[Any, ...]:
    """Keys and positions of a flat name."""
    path: list[Any] = []
    node = config
    for key in name.split("/"):
        step: Any = int(key) if isinstance(node, (list, tuple)) and key.isdigit() else key
        node = node[step]
        path.append(step)
    return tuple(path)


def trial_table(trial: Trial, results: list[dict[str, Any]]) -> pd.DataFrame:
    """All results of a trial, one row each, and its configuration in each row."""
    if not results:
        return make_table([])
    rows = [flat_result(result) for result in results]
    if not any("config" in result for result in results):
        config = flatten({"config": trial.config}) if trial.config else {}
        rows = [row | config for row in rows]
    return make_table(rows)


class TrialTables(Mapping[str, "pd.DataFrame"]):
    """All results of each trial, by its id; a table is made when it is first looked at.

    Making one takes about a millisecond: ten thousand at once, to look at one of them, would be felt.
    """

    def __init__(self, trials: Iterable[Trial], make: Callable[[Trial], pd.DataFrame]) -> None:
        self._trials = {trial.trial_id: trial for trial in trials}
        self._make = make
        self._made: dict[str, pd.DataFrame] = {}

    def __getitem__(self, trial_id: str) -> pd.DataFrame:
        if trial_id not in self._made:
            self._made[trial_id] = self._make(self._trials[trial_id])
        return self._made[trial_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trials)

    def __len__(self) -> int:
        return len(self._trials)

    def __repr__(self) -> str:
        return f"<tables of {len(self)} trials: {', '.join(self._trials)}>"


def trial_row(
    trial: Trial, results: list[dict[str, Any]], metric: str | None, mode: str | None
) -> dict[str, Any] | None:
    """One result of a trial, flat, with the configuration that it came from; None if it reported nothing.

    It is the result with the best value of a metric; the last one without a mode, or where none has a number for that
    metric. All names that the trial ever reported are there, None where this result lacks them.
    """
    if not results:
        return None
    rows = [flat_result(result) for result in results]
    chosen = len(rows) - 1
    if metric is not None and mode is not None:
        scored = [number for number, row in enumerate(rows) if _is_number(row.get(metric))]
        if scored:
            chosen = (max if mode == "max" else min)(scored, key=lambda number: rows[number][metric])
    row = {name: rows[chosen].get(name) for row in rows for name in row if name != "config"}
    return row | config_columns(results[chosen].get("config") or trial.config, trial.evaluated_params)


def make_table(rows: Iterable[dict[str, Any]], index: str | None = None) -> pd.DataFrame:
    """A dataframe of rows."""
    pandas = require("pandas", purpose="A dataframe of results", extra="tune")
    table = pandas.DataFrame(list(rows))
    return table if index is None or index not in table else table.set_index(index)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)

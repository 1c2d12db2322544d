"""Results and configurations as rows and columns with flat names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mltoolkit._optional import require
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.search._nested import flatten, get_value

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["best_row", "config_columns", "flat_result", "make_table", "trial_table"]


def flat_result(result: dict[str, Any]) -> dict[str, Any]:
    """A result under flat names, nested ones last."""
    nested = {name: value for name, value in result.items() if isinstance(value, dict)}
    if not nested:
        return dict(result)
    return {name: value for name, value in result.items() if name not in nested} | flatten(nested)


def config_columns(trial: Trial) -> dict[str, Any]:
    """The configuration under names such as ``"config/model/lr"``.

    A list is one value, as in Ray. The elements of one that the search space drew are there as well, under their
    positions, ``"config/model/layers/0"``: they are what the trials differ in.
    """
    columns = flatten({"config": trial.config}) if trial.config else {}
    for name in trial.evaluated_params:
        column = f"config/{name}"
        if column in columns:
            continue
        try:
            columns[column] = get_value(trial.config, _as_path(trial.config, name))
        except (KeyError, IndexError, TypeError):
            continue  # the trainable's or a scheduler's configuration no longer has that place
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


def best_row(results: list[dict[str, Any]], metric: str | None, mode: str | None) -> dict[str, Any] | None:
    """The result with the best value of a metric, flat; the last one without a mode, or where none has that metric.

    All names that the trial ever reported are there, None where this result lacks them.
    """
    if not results:
        return None
    rows = [flat_result(result) for result in results]
    chosen = rows[-1]
    if metric is not None and mode is not None:
        scored = [row for row in rows if _is_number(row.get(metric))]
        if scored:
            chosen = (max if mode == "max" else min)(scored, key=lambda row: row[metric])
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: chosen.get(name) for name in names}


def make_table(rows: Iterable[dict[str, Any]], index: str | None = None) -> pd.DataFrame:
    """A dataframe of rows."""
    pandas = require("pandas", purpose="A dataframe of results", extra="tune")
    table = pandas.DataFrame(list(rows))
    return table if index is None or index not in table else table.set_index(index)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)

"""Results of a trial as its folder holds them: `result.json`, `progress.csv`, `params.json`. Reads data, runs nothing."""

from __future__ import annotations

import csv
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltoolkit._optional import require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["make_frame", "read_error", "read_json_lines", "read_params", "read_results"]

logger = logging.getLogger(__name__)

RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.csv"
PARAMS_FILE = "params.json"
ERROR_FILE = "error.txt"


def read_results(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All results of a trial, in the order in which they were reported.

    Parameters
    ----------
    folder : str or path
        Folder of the trial.

    Returns
    -------
    list of dict
        Nested as they were reported if ``result.json`` is there; flat, with names such as ``"a/b"``, if they had to be
        read from ``progress.csv``.

    Raises
    ------
    FileNotFoundError
        If neither file is there.
    """
    folder = Path(folder)
    if (folder / RESULT_FILE).exists():
        return read_json_lines(folder / RESULT_FILE)
    if (folder / PROGRESS_FILE).exists():
        with open(folder / PROGRESS_FILE, newline="") as file:
            return [_typed_row(row) for row in csv.DictReader(file) if None not in row.values()]
    if folder.is_dir():
        raise FileNotFoundError(f"No results of a trial: {folder} holds neither {RESULT_FILE} nor {PROGRESS_FILE}.")
    raise FileNotFoundError(
        f"No results of a trial: {folder} is not there; a trial's folder holds {RESULT_FILE} or {PROGRESS_FILE}."
    )


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; what was not written to its end is left out, with a line in the log.

    Such a line comes last, or where a run that was killed was taken up again.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    list of dict
    """
    records = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            logger.warning("Line %d of %s is damaged and left out: %s", number, path, error)
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def read_params(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of a trial, from ``params.json``; empty if that is not there or damaged."""
    file = Path(folder) / PARAMS_FILE
    try:
        params = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        logger.warning("%s is damaged; the trial's configuration is taken from its results.", file)
        return {}
    return params if isinstance(params, dict) else {}


def read_error(folder: str | os.PathLike[str]) -> str | None:
    """The traceback of a failed trial, from ``error.txt``; None if it did not fail."""
    file = Path(folder) / ERROR_FILE
    return file.read_text(errors="replace") if file.exists() else None


def make_frame(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Results as a table: one row each, nested metrics in columns such as ``"config/lr"``.

    Parameters
    ----------
    results : list of dict

    Returns
    -------
    pandas.DataFrame
    """
    pandas = require("pandas", purpose="A dataframe of results", extra="tune")
    if not results:
        return pandas.DataFrame()
    return pandas.json_normalize(results, sep="/")


def _typed_row(row: dict[str, str]) -> dict[str, Any]:
    return {name: text if name == "trial_id" else _typed(text) for name, text in row.items()}


def _typed(text: str) -> Any:
    """A number or truth value for what reads as one; None for an empty field, as a metric that was not reported."""
    if text == "":
        return None
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

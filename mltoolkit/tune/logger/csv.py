"""Results as CSV."""

from __future__ import annotations

import csv
import io
import os
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.logger._files import AppendFiles, storage_error
from mltoolkit.tune.logger._values import flatten
from mltoolkit.tune.logger.logger import LoggerCallback

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["CSVLoggerCallback"]

_FILE = "progress.csv"


class CSVLoggerCallback(LoggerCallback):
    """Write the results of each trial to ``progress.csv`` in its folder.

    Nested keys are joined: ``{"a": {"b": 1}}`` is the column ``a/b``. The first result decides the columns:
    keys that only later results have are left out. A file that exists is continued under its own header.
    """

    def __init__(self) -> None:
        self._files = AppendFiles(repair=_cut_torn_row)
        self._columns: dict[str, list[str]] = {}

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Add a row.

        Raises
        ------
        StorageError
            If the file cannot be written.
        """
        path = os.path.join(trial.path, _FILE)
        row = flatten({key: value for key, value in result.items() if key != "config"})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = self._columns.get(path)
        if columns is None:
            columns = _header(path)
            if columns is None:
                columns = list(row)
                writer.writerow(columns)
            self._columns[path] = columns
        writer.writerow([row.get(column) for column in columns])
        self._files.append(path, text.getvalue().encode())

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Close the trial's file."""
        path = os.path.join(trial.path, _FILE)
        self._columns.pop(path, None)
        self._files.close(path)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Close the files of trials that never ended."""
        self._columns.clear()
        self._files.close_all()


def _header(path: str) -> list[str] | None:
    """The columns of a file that exists, or None if there is no whole header in it."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            first = file.readline()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(path, error) from error
    return next(csv.reader([first])) if first.endswith("\n") else None


def _cut_torn_row(path: str) -> None:
    """Cut off a last row without its end. Quoted text may contain line ends: those inside of quotes end no row."""
    with open(path, "r+b") as file:
        data = file.read()
        end = len(data)
        while end and not (data.endswith(b"\n", 0, end) and data.count(b'"', 0, end) % 2 == 0):
            end = data.rfind(b"\n", 0, end - 1) + 1
        file.truncate(end)

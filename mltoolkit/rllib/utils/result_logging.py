"""Results of an algorithm that runs by itself as files: CSV, JSON and TensorBoard events, as Tune writes them."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mltoolkit.tune.error import StorageError
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.logger import CSVLoggerCallback, JsonLoggerCallback, LoggerCallback, TBXLoggerCallback
from mltoolkit.tune.logger._files import replace_file, storage_error
from mltoolkit.tune.logger._values import flatten

__all__ = ["ResultLog"]

_CSV = "progress.csv"


class ResultLog:
    """Writes each result of an algorithm to a folder.

    There are ``progress.csv`` (a row per iteration, nested names joined with ``/``), ``result.json`` (a line per
    iteration), ``params.json`` (the configuration) and ``events.out.tfevents...`` for TensorBoard. Files that are there
    are continued, so a restored algorithm goes on in the folder that it wrote to before.

    Parameters
    ----------
    log_dir : path-like
        Made if need be; ``~`` is the home folder.
    config : dict
        The algorithm's configuration.
    name : str, default='algorithm'
        What errors and TensorBoard call it.

    Raises
    ------
    StorageError
        If the folder cannot be written.

    Notes
    -----
    A column that first comes with a later result, such as those of an evaluation every ten iterations, is added to the
    table; earlier rows are empty there.
    """

    def __init__(self, log_dir: str | os.PathLike[str], config: dict[str, Any], *, name: str = "algorithm") -> None:
        self.log_dir = Path(log_dir).expanduser().absolute()
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"`log_dir` must be a folder that can be written, got {os.fspath(log_dir)!r}: {error.strerror or error}."
            ) from error
        self._run = Trial(name, name, config, experiment_path=self.log_dir.parent, dirname=self.log_dir.name)
        self._csv = CSVLoggerCallback()
        self._loggers: tuple[LoggerCallback, ...] = (self._csv, JsonLoggerCallback(), TBXLoggerCallback())
        self._columns: list[str] | None = None

    def write(self, result: dict[str, Any]) -> None:
        """Add a result to all files.

        Parameters
        ----------
        result : dict
            As ``train()`` returns it. The configuration in it is left out: it is in ``params.json``.

        Raises
        ------
        StorageError
            If a file cannot be written.
        """
        shown = {key: value for key, value in result.items() if key != "config"}
        self._add_columns(list(flatten(shown)))
        for logger in self._loggers:
            logger.log_trial_result(int(result.get("training_iteration", 0)), self._run, shown)

    def close(self) -> None:
        """Close the files; harmless when they are closed."""
        for logger in self._loggers:
            logger.log_trial_end(self._run)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add_columns(self, names: list[str]) -> None:
        path = os.path.join(self._run.path, _CSV)
        if self._columns is None:
            self._columns = _header(path)
            if self._columns is None:
                self._columns = names
                return
        missing = [name for name in names if name not in set(self._columns)]
        if missing:
            self._columns += missing
            self._csv.log_trial_end(self._run)  # it reads the header again
            try:
                _widen(path, self._columns, len(missing))
            except OSError as error:
                raise storage_error(path, error) from error


def _header(path: str) -> list[str] | None:
    """The columns of a table that is there."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            first = file.readline()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(path, error) from error
    return next(csv.reader([first])) if first.endswith("\n") else None


def _widen(path: str, columns: list[str], by: int) -> None:
    """Give the table another header, and its rows `by` empty cells more."""
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(columns)
    parts = [header.getvalue().encode()]
    row = b""
    with open(path, "rb") as file:
        file.readline()
        for line in file:
            row += line
            if row.count(b'"') % 2 == 0:  # line ends inside of quotes end no row
                parts.append(row.removesuffix(b"\n") + b"," * by + b"\n" if row.endswith(b"\n") else row)
                row = b""
    replace_file(path, b"".join(parts))

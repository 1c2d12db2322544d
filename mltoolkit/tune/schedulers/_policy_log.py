"""Files in which Population Based Training keeps the schedules that it finds."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from mltoolkit.tune._torn_lines import cut_torn_line

__all__ = ["PolicyLog", "read_policy"]


class PolicyLog:
    """``pbt_global.txt`` and ``pbt_policy_<trial>.txt`` in the folder of the experiment.

    A line is a JSON list: tag of the trial that gave up its weights, tag of the trial that it cloned, iteration of
    each, configuration of the latter, new configuration of the former. A trial's own file tells how the weights that it
    has now came about, so it begins with the lines of the trial that it cloned last.

    Entries are numbered. Those that the files have already, as when events are replayed after a crash, are left as
    they are.
    """

    def __init__(self) -> None:
        self._lines: dict[Path, int] = {}

    def write(self, folder: Path, number: int, trial_id: str, cloned_id: str, entry: list[Any]) -> None:
        """Write entry `number`, counted from 0."""
        everything = folder / "pbt_global.txt"
        if everything not in self._lines:
            self._lines[everything] = _count_lines(everything)
        if number < self._lines[everything]:
            return
        line = f"{json.dumps(entry, default=_plain)}\n"
        source = folder / f"pbt_policy_{cloned_id}.txt"
        history = source.read_text() if source.exists() else ""
        # The trial's own file first, and at once: if a crash comes before the other line, this is done once more.
        _write_at_once(folder / f"pbt_policy_{trial_id}.txt", history + line)
        with open(everything, "a") as file:
            file.write(line)
        self._lines[everything] += 1

    def __getstate__(self) -> dict[str, Any]:
        return {"_lines": {}}  # the files are what counts


def read_policy(policy_file: str | os.PathLike[str]) -> tuple[dict[str, Any] | None, list[tuple[int, dict[str, Any]]]]:
    """The schedule that led to the weights that a trial had in the end.

    Returns
    -------
    config : dict or None
        What the schedule begins with; None if the file is empty.
    changes : list of (int, dict)
        Training iteration at which the configuration changes, and what it changes to.

    Raises
    ------
    ValueError
        If the file is missing or not such a log.
    """
    path = Path(policy_file).expanduser()
    if not path.exists():
        raise ValueError(f"There is no policy file {path}. PBT writes pbt_policy_<trial id>.txt with log_config=True.")
    try:
        entries = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        rows = [(old_tag, new_tag, new_step, old, new) for old_tag, new_tag, _, new_step, old, new in entries]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is no policy file of PBT: each line must be a JSON list of two tags, two iterations and two "
            f"configurations ({error})."
        ) from None
    config, changes, cloned = None, [], None
    for old_tag, new_tag, new_step, old_config, new_config in reversed(rows):
        if cloned is not None and old_tag != cloned:
            break  # what the trial did before was overwritten with the clone
        cloned, config = new_tag, old_config
        changes.append((new_step, new_config))
    return config, changes[::-1]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _count_lines(path: Path) -> int:
    """Number of complete lines; a torn last one is cut off."""
    if not path.exists():
        return 0
    cut_torn_line(path)
    return path.read_bytes().count(b"\n")


def _write_at_once(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".pbt-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise

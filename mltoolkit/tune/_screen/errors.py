"""Errors of trials, each kind of which is shown once."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["ErrorGroup", "ErrorGroups", "traceback_of"]

_LOCATION = re.compile(r'^\s*File "(.+)", line (\d+)', re.MULTILINE)
_VARYING = re.compile(r"0x[0-9a-fA-F]+|[0-9]+")
_KEPT_NAMES = 5


@dataclass
class ErrorGroup:
    """Trials that failed in the same way.

    Attributes
    ----------
    first : Trial
        The one whose error is shown.
    summary : str
        Type and message of the error, on one line.
    text : str
        Traceback.
    number : int
        Groups that came up before it.
    count : int
        Trials, the first included.
    others : list of str
        Names of some of the others.
    """

    first: Trial
    summary: str
    text: str
    number: int
    count: int = 1
    others: list[str] = field(default_factory=list)

    def repeats(self) -> str:
        """``"3 more trials failed the same way: ..."``, or nothing if no other did."""
        if self.count == 1:
            return ""
        more = self.count - 1
        names = ", ".join(self.others) + (", ..." if more > len(self.others) else "")
        return f"{more} more trial{'s' if more > 1 else ''} failed the same way: {names}"


class ErrorGroups:
    """Errors grouped by type and by the line that raised; where no line is known, by type and message."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], ErrorGroup] = {}

    def add(self, trial: Trial) -> ErrorGroup:
        """Count a failed trial; the group it belongs to has ``count`` 1 if its error is a new one."""
        summary, text, key = _described(trial.get_error())
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = ErrorGroup(trial, summary, text, len(self._groups))
        else:
            group.count += 1
            if len(group.others) < _KEPT_NAMES:
                group.others.append(str(trial))
        return group

    def find(self, trial: Trial) -> ErrorGroup | None:
        """The group of trials that failed like this one, if there is one already."""
        return self._groups.get(_described(trial.get_error())[2])

    def __len__(self) -> int:
        return len(self._groups)

    def all(self) -> list[ErrorGroup]:
        """The groups, in the order in which they came up."""
        return list(self._groups.values())


def traceback_of(error: BaseException | None) -> str:
    """The traceback of a trial's error where it was raised, which may have been in another process."""
    if error is None:
        return ""
    remote = getattr(error, "traceback_str", "")
    if isinstance(remote, str) and remote.strip():
        return remote.strip()
    if error.__traceback__ is None and error.__cause__ is None:
        return "".join(traceback.format_exception_only(error)).strip()
    return "".join(traceback.format_exception(error)).strip()


def _described(error: BaseException | None) -> tuple[str, str, tuple[str, str]]:
    """Summary and traceback of an error, and what it has in common with others of its kind."""
    text = traceback_of(error)
    summary = _summary(error, text)
    places = _LOCATION.findall(text)
    kind = summary.partition(":")[0]
    return summary, text, (kind, ":".join(places[-1]) if places else _VARYING.sub("#", summary))


def _summary(error: BaseException | None, text: str) -> str:
    if error is None:
        return "error not recorded"
    if getattr(error, "traceback_str", ""):
        lines = [line for line in text.splitlines() if line and not line[0].isspace()]
        return lines[-1].strip() if lines else type(error).__name__
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__

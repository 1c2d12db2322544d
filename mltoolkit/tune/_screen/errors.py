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
# What stands between a trainable and the process that runs it says nothing about the error.
_OWN_FRAME = re.compile(r'  File ".*[/\\]mltoolkit[/\\](?:core|train|tune)[/\\]')


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

    def repeats(self, *, named: bool = True) -> str:
        """``"3 more trials failed the same way: ..."``, or nothing if no other did."""
        if self.count == 1:
            return ""
        more = self.count - 1
        text = f"{more} more trial{'s' if more > 1 else ''} failed the same way"
        names = ", ".join(self.others) + (", ..." if more > len(self.others) else "")
        return f"{text}: {names}" if named else text


class ErrorGroups:
    """Errors grouped by type and by the line that raised; where no line is known, by type and message."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], ErrorGroup] = {}

    def add(self, trial: Trial) -> ErrorGroup:
        """Count a failed trial; the group it belongs to has ``count`` 1 if its error is a new one."""
        error = trial.get_error()
        kind = _kind(error)
        group = self._groups.get(kind)
        if group is None:
            group = ErrorGroup(trial, _summary(error), traceback_of(error), len(self._groups))
            self._groups[kind] = group
        else:
            group.count += 1
            if len(group.others) < _KEPT_NAMES:
                group.others.append(str(trial))
        return group

    def find(self, trial: Trial) -> ErrorGroup | None:
        """The group of trials that failed like this one, if there is one already."""
        return self._groups.get(_kind(trial.get_error()))

    def __len__(self) -> int:
        return len(self._groups)

    def all(self) -> list[ErrorGroup]:
        """The groups, in the order in which they came up."""
        return list(self._groups.values())


def traceback_of(error: BaseException | None) -> str:
    """The traceback of a trial's error where it was raised, which may have been in another process.

    It begins at the user's code: the frames above, which run it, are left out.
    """
    if error is None:
        return ""
    remote = _remote(error)
    if remote:
        return _from_users_code(remote)
    if error.__traceback__ is None and error.__cause__ is None:
        return "".join(traceback.format_exception_only(error)).strip()
    return _from_users_code("".join(traceback.format_exception(error)).strip())


def _from_users_code(text: str) -> str:
    lines = text.splitlines()
    kept: list[str] = []
    position = 0
    while position < len(lines):
        kept.append(lines[position])
        position += 1
        if not kept[-1].startswith("Traceback (most recent call last)"):
            continue
        start = position
        while position < len(lines) and _OWN_FRAME.match(lines[position]):
            position += 1
            while position < len(lines) and lines[position].startswith("    "):
                position += 1
        if position < len(lines) and not lines[position].startswith("  File "):
            position = start  # all frames are this package's own: then they are what there is to see
    return "\n".join(kept)


def _kind(error: BaseException | None) -> tuple[str, str]:
    """What errors of one kind have in common: the type, and the line that raised or else the message."""
    if error is None:
        return "", ""
    remote = _remote(error)
    if remote:
        places = _LOCATION.findall(remote)
        if places:
            return type(error).__name__, ":".join(places[-1])
    step = error.__traceback__
    if step is None:
        return type(error).__name__, _VARYING.sub("#", _summary(error))
    while step.tb_next is not None:
        step = step.tb_next
    return type(error).__name__, f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"


def _remote(error: BaseException) -> str:
    text = getattr(error, "traceback_str", "")
    return text.strip() if isinstance(text, str) else ""


def _summary(error: BaseException | None) -> str:
    if error is None:
        return "error not recorded"
    remote = _remote(error)
    if remote:
        lines = remote.splitlines()
        # The line after the last frame: a message may go on over more lines.
        frames = [i for i, line in enumerate(lines) if _LOCATION.match(line)]
        after = lines[frames[-1] + 1 :] if frames else lines
        unindented = [line.strip() for line in after if line and not line[0].isspace()]
        return unindented[0 if frames else -1] if unindented else type(error).__name__
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__

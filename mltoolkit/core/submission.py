"""What a task must see of its caller's process: taken when it is submitted, not at ``init``."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any

from mltoolkit.core.ids import new_id


@dataclass(frozen=True)
class Submission:
    """State of the driver that a task must see: taken when it is submitted, not at ``init``.

    Parameters
    ----------
    key : bytes
        Names this snapshot; equal snapshots share it.
    """

    key: bytes
    cwd: str
    path: tuple[str, ...]
    environ: tuple[tuple[str, str], ...] = field(repr=False)


class SubmissionTracker:
    """Give equal states of this process the same `Submission`; a look costs some microseconds."""

    def __init__(self) -> None:
        self._last: Submission | None = None
        self._environ: dict[Any, Any] = {}

    def current(self) -> Submission:
        """Return the present state."""
        last = self._last
        environ: Any = os.environ
        raw = environ._data  # a plain dict of bytes: comparing it decodes nothing
        try:
            cwd = os.getcwd()
        except OSError:  # deleted under our feet
            cwd = "/"
        if last is None or last.cwd != cwd or list(last.path) != sys.path or raw != self._environ:
            self._environ = dict(raw)
            last = self._last = Submission(new_id(), cwd, tuple(sys.path), tuple(os.environ.items()))
        return last

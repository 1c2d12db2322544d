"""What executors print, on the driver's own streams."""

from __future__ import annotations

import contextlib
import sys
import threading

_CYAN, _RESET = "\033[36m", "\033[0m"


class OutputPrinter:
    """Print lines with their origin in front, as Ray does.

    Parameters
    ----------
    enabled : bool
        False drops everything.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._lock = threading.Lock()

    def print_lines(self, label: str, pid: int | None, is_stderr: bool, lines: list[str]) -> None:
        """Print lines of one executor."""
        if not self.enabled or not lines:
            return
        stream = sys.stderr if is_stderr else sys.stdout
        if stream is None:
            return
        prefix = f"({label} pid={pid})"
        with contextlib.suppress(Exception):
            if stream.isatty():
                prefix = f"{_CYAN}{prefix}{_RESET}"
        text = "".join(f"{prefix} {line}\n" for line in lines)
        with self._lock, contextlib.suppress(Exception):  # a closed or broken stdout of the driver is not our error
            stream.write(text)
            stream.flush()

    def flush(self) -> None:
        """Write out what is buffered."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()

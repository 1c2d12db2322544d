"""Files of lines that only grow, and whose writer may have been killed in the middle of one."""

from __future__ import annotations

import os

__all__ = ["cut_torn_line"]

_STEP_BYTES = 65536


def cut_torn_line(path: str | os.PathLike[str]) -> None:
    """Remove a last line without an end, so that the next one does not continue it.

    Only the end of the file is read, however long it is.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    """
    with open(path, "rb+") as file:
        size = position = file.seek(0, os.SEEK_END)
        while position:
            step = min(position, _STEP_BYTES)
            file.seek(position - step)
            end = file.read(step).rfind(b"\n")
            if end >= 0:
                position = position - step + end + 1
                break
            position -= step
        if position != size:
            file.truncate(position)

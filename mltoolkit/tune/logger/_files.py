"""Files that many trials append to, of which few are open at a time."""

from __future__ import annotations

import errno
import io
import os
from collections import OrderedDict
from collections.abc import Callable

from mltoolkit.tune.error import StorageError

__all__ = ["AppendFiles", "replace_file", "storage_error"]

# Schedulers may pause hundreds of trials, each of which has its files: more than a process may hold open.
_MAX_OPEN = 64


class AppendFiles:
    """Files opened at their first write, closed when told to or when many others are in use.

    Each write goes straight to the operating system: what was written survives the death of the driver.

    Parameters
    ----------
    repair : callable, optional
        Called with the path before a file that exists is opened for the first time.
    """

    def __init__(self, repair: Callable[[str], None] | None = None) -> None:
        self._repair = repair
        self._open: OrderedDict[str, io.FileIO] = OrderedDict()
        self._seen: set[str] = set()

    def append(self, path: str, data: bytes) -> None:
        """Add ``data`` to the end of the file at ``path``, whose folder is made if need be.

        Raises
        ------
        StorageError
            If it cannot be written, or was deleted while it was open.
        """
        file = self._open.get(path)
        try:
            if file is None:
                file = self._reopen(path)
            else:
                self._open.move_to_end(path)
            if os.fstat(file.fileno()).st_nlink == 0:  # writing would succeed, into nowhere
                raise FileNotFoundError("it was deleted while results were written to it")
            written = file.write(data)
            while written is not None and written < len(data):
                data = data[written:]
                written = file.write(data)
        except OSError as error:
            self.close(path)
            raise storage_error(path, error) from error

    def _reopen(self, path: str) -> io.FileIO:
        if path not in self._seen:
            if self._repair is not None and os.path.exists(path):
                self._repair(path)
            self._seen.add(path)
            file = _in_folder(path, lambda: io.FileIO(path, "a"))
        elif os.path.exists(path):
            file = io.FileIO(path, "a")
        else:
            raise FileNotFoundError("it was deleted while results were written to it")
        while len(self._open) >= _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        self._open[path] = file
        return file

    def close(self, path: str) -> None:
        """Close the file at ``path`` if it is open, and forget it."""
        self._seen.discard(path)
        file = self._open.pop(path, None)
        if file is not None:
            file.close()

    def close_all(self) -> None:
        """Close whatever is open."""
        for path in list(self._open):
            self.close(path)
        self._seen.clear()

    def __del__(self) -> None:
        for file in self._open.values():
            file.close()

    def __getstate__(self) -> dict[str, object]:
        # Callbacks are part of a sweep's settings, which are stored: a copy opens its files anew.
        return {"_repair": self._repair, "_open": OrderedDict(), "_seen": set()}


def replace_file(path: str, data: bytes) -> None:
    """Write a whole file so that readers see the old one or the new one.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.tmp")
    try:
        with _in_folder(path, lambda: io.FileIO(temporary, "w")) as file:
            if (written := file.write(data)) != len(data):
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {written} of {len(data)} bytes were written")
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(path, error) from error


def _in_folder(path: str, open_file: Callable[[], io.FileIO]) -> io.FileIO:
    """Open a file, making the folder of ``path`` if need be: most often it is there, and asking costs as much."""
    try:
        return open_file()
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open_file()


def storage_error(path: str, error: OSError) -> StorageError:
    """The error of a file that cannot be written, with its cause."""
    reason = error.strerror or str(error)
    return StorageError(
        f"Cannot write {path!r}: {reason}. What was written before is intact; the sweep can be restored."
    )

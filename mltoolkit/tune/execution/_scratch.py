"""Temporary folders of processes that may be killed at any moment."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shutil
import tempfile

__all__ = ["Scratch"]


class Scratch:
    """A temporary folder of this process, for what a trial does where the experiment's folder cannot be seen.

    It is locked as long as the process lives: the next process of the experiment on this host removes those that
    nobody holds any longer.

    Parameters
    ----------
    experiment_path : str
        Tells the experiments' folders apart.
    """

    def __init__(self, experiment_path: str) -> None:
        self._prefix = f"tune-{hashlib.blake2s(experiment_path.encode(), digest_size=8).hexdigest()}-"
        self._folder: str | None = None
        self._lock = -1

    def folder(self) -> str:
        """The folder, made at the first call."""
        while self._folder is None:
            folder = tempfile.mkdtemp(prefix=self._prefix)
            try:
                lock = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:
                continue  # another process took it for an abandoned one
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.isdir(folder):
                self._folder, self._lock = folder, lock
            else:
                os.close(lock)
        return self._folder

    def remove(self) -> None:
        """Remove the folder, if there is one; the next call of :meth:`folder` makes another."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._folder, self._lock = None, -1

    def remove_abandoned(self) -> None:
        """Remove the folders of this experiment's processes on this host that were killed."""
        for folder in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), self._prefix + "*")):
            try:
                lock = os.open(folder, os.O_RDONLY)
            except OSError:
                continue  # gone, or another user's
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # its process lives
            else:
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)

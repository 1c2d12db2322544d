"""Checkpoints on their way from a trial's process to the experiment's folder and back.

A process that sees the driver's folder copies into it. One that does not (another host, no shared filesystem) puts the
files into the object store, from where the driver writes them: no shared filesystem is needed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mltoolkit
from mltoolkit.train import Checkpoint
from mltoolkit.tune.error import StorageError, TuneError

__all__ = [
    "INCOMING",
    "FilesLostError",
    "PackedFolder",
    "StorageMarker",
    "appear",
    "install",
    "pack",
    "persist",
    "remove_torn",
    "unpack",
]

INCOMING = ".incoming-"
"""Prefix of folders that are being written and get their name when they are complete."""

_CHUNK_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class StorageMarker:
    """Tells a process whether it sees the same folder as the driver: a file with a random name.

    Equal paths are no proof, since every host has its own ``/home`` or ``/tmp``.
    """

    path: str

    @classmethod
    def create(cls, experiment_path: Path) -> StorageMarker:
        """Leave a marker in the folder, where those of drivers that died are taken away.

        Raises
        ------
        StorageError
            If the folder cannot be written.
        """
        path = experiment_path / f".seen-{uuid.uuid4().hex}"
        try:
            for old in experiment_path.glob(".seen-*"):
                old.unlink(missing_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise StorageError(f"{experiment_path} cannot be written: {error}.") from error
        return cls(str(path))

    def is_visible(self) -> bool:
        """Whether this process sees the folder."""
        return os.path.exists(self.path)

    def remove(self) -> None:
        """Take the marker away."""
        try:
            os.unlink(self.path)
        except OSError:
            pass


class FilesLostError(TuneError):
    """A checkpoint was on its way when its host died."""


@dataclass(frozen=True)
class PackedFolder:
    """The files of a folder in the object store.

    Attributes
    ----------
    files : list of (str, list of ObjectRef)
        Relative path and contents, in chunks.
    """

    files: list[tuple[str, list[mltoolkit.ObjectRef]]]


def pack(folder: str | os.PathLike[str]) -> PackedFolder:
    """Put a folder's files into the object store."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"The checkpoint {os.fspath(folder)} is gone.")
    files = []
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            path = os.path.join(root, name)
            chunks = []
            with open(path, "rb") as file:
                while data := file.read(_CHUNK_BYTES):
                    chunks.append(mltoolkit.put(data))
            files.append((os.path.relpath(path, folder), chunks))
    return PackedFolder(files)


def unpack(packed: PackedFolder, folder: str | os.PathLike[str]) -> None:
    """Write a packed folder; it appears complete or not at all.

    Raises
    ------
    FilesLostError
        If the host that packed it is gone.
    """

    def write(target: str) -> None:
        for relative, chunks in packed.files:
            path = os.path.normpath(os.path.join(target, relative))
            if not path.startswith(target + os.sep):
                raise ValueError(f"A packed checkpoint holds the path {relative!r}, which leads out of its folder.")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                for chunk in chunks:
                    file.write(_fetch(chunk))

    appear(folder, write)


def _fetch(chunk: mltoolkit.ObjectRef) -> bytes:
    try:
        data: bytes = mltoolkit.get(chunk)
    except (mltoolkit.exceptions.RayError, OSError) as error:  # a broken connection is no fault of the folder
        raise FilesLostError(f"The files of a checkpoint are lost with their host: {error}") from error
    return data


def install(source: str | os.PathLike[str], folder: str | os.PathLike[str], *, link: bool = False) -> None:
    """Copy a folder; it appears complete or not at all.

    With ``link`` its files are hard links where the filesystem has them: for copies of kept checkpoints, which nobody
    changes.
    """
    copy = _link_or_copy if link else shutil.copy2

    def write(target: str) -> None:
        with os.scandir(source) as found:
            entries = list(found)
        for entry in entries:
            destination = os.path.join(target, entry.name)
            if entry.is_dir():
                shutil.copytree(entry.path, destination, symlinks=True, copy_function=copy)
            else:
                copy(entry.path, destination)

    appear(folder, write)


def persist(checkpoint: Checkpoint, folder: str, *, shared: bool, own: bool = False) -> PackedFolder | None:
    """Keep a reported checkpoint in ``folder``, or pack it where the process cannot see the experiment.

    One of the process' ``own`` making, which is an incoming folder beside ``folder``, needs no copy.
    """
    with checkpoint.as_directory() as source:
        if not os.path.isdir(source):
            raise FileNotFoundError(
                f"The reported checkpoint {source} is no folder. Write the files first, then report "
                "`Checkpoint.from_directory(folder)`."
            )
        if not shared:
            return pack(source)
        if own:
            _publish(source, folder)
        else:
            install(source, folder)
        return None


def _link_or_copy(source: str, destination: str) -> str:
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)
    return destination


def appear(folder: str | os.PathLike[str], write: Callable[[str], None]) -> None:
    """Write beside the folder's place and rename, so that a crash leaves no half of it."""
    folder = os.path.abspath(folder)
    parent = os.path.dirname(folder)
    os.makedirs(parent, exist_ok=True)
    incoming = tempfile.mkdtemp(prefix=INCOMING, dir=parent)
    try:
        write(incoming)
        _publish(incoming, folder)
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise


def _publish(incoming: str, folder: str) -> None:
    """Give a complete folder its name."""
    os.chmod(incoming, 0o755 & ~_umask())
    if os.path.lexists(folder):  # of a run that died between writing it and noting it down
        shutil.rmtree(folder)
    os.rename(incoming, folder)


def remove_torn(folder: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed have left half written in a trial's folder."""
    for torn in Path(folder).glob(INCOMING + "*"):
        shutil.rmtree(torn, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

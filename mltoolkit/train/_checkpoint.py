"""A checkpoint: a folder with whatever it takes to go on, or to use a model."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._trust import dump_pickle, load_pickle

__all__ = ["Checkpoint"]

_METADATA_FILE = ".metadata.json"
_DICT_FILE = "dict_checkpoint.pkl"
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


class Checkpoint:
    """A folder of checkpointed data, on a local disk or on any filesystem that fsspec reaches.

    The object is a reference: it holds where the data lie, not the data.

    Parameters
    ----------
    path : str or path
        Folder that holds the data, or a URL such as ``"s3://bucket/folder"``.
    filesystem : fsspec.AbstractFileSystem or pyarrow.fs.FileSystem, optional
        Where `path` is, then without the scheme of a URL; the local disk, or what the URL says, if not given.

    Attributes
    ----------
    path : str
        The folder on its filesystem: absolute for a local one, without the scheme for a URL.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(os.path.join(folder, "epoch.txt"), "w") as file:
    ...         written = file.write("7")
    ...     checkpoint = Checkpoint.from_directory(folder)
    ...     with checkpoint.as_directory() as local:
    ...         print(os.listdir(local))
    ['epoch.txt']
    """

    def __init__(self, path: str | os.PathLike[str], filesystem: Any = None) -> None:
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise TypeError(f"`path` of a Checkpoint must be a folder or a URL, got {path!r}.")
        text = os.fspath(path)
        self._filesystem: Any = None  # None: the local disk, so that fsspec need not be imported
        if filesystem is not None:
            if _URL.match(text):
                raise ValueError(
                    f"`path` must not be a URL when `filesystem` is given, got {text!r}. "
                    f"Give {_URL.sub('', text)!r}, or leave `filesystem` out."
                )
            self._filesystem = _fsspec_filesystem(filesystem)
        elif _URL.match(text):
            self._filesystem, text = _from_url(text)
        self.path = os.path.abspath(os.path.expanduser(text)) if self._filesystem is None else text.rstrip("/")

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem that `path` is on."""
        if self._filesystem is not None:
            return self._filesystem
        return local_filesystem()

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Refer to a local folder.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Checkpoint
        """
        if _URL.match(os.fspath(path)):
            raise ValueError(f"`from_directory` takes a local folder, got {os.fspath(path)!r}. Use `Checkpoint(path)`.")
        return cls(path)

    def to_directory(self, path: str | os.PathLike[str] | None = None) -> str:
        """Copy the data into a local folder.

        Parameters
        ----------
        path : str or path, optional
            Made if it is not there; files of the same names are overwritten. None for a new folder for temporary
            files, which is the caller's to remove.

        Returns
        -------
        str
            The folder.

        Raises
        ------
        FileNotFoundError
            If the checkpoint's folder is not there (any more).
        """
        self._check_exists()
        if path is None:
            target = tempfile.mkdtemp(prefix="checkpoint_")
            is_new = True
        else:
            target = os.path.abspath(os.path.expanduser(os.fspath(path)))
            is_new = not os.path.exists(target)
        try:
            self._copy_to(target)
        except BaseException:
            if is_new:  # half a checkpoint must not pass for one
                shutil.rmtree(target, ignore_errors=True)
            raise
        return target

    @contextlib.contextmanager
    def as_directory(self) -> Iterator[str]:
        """The data in a local folder, for the length of a ``with`` block; only to be read.

        A local checkpoint's own folder is given, without a copy; a remote one is copied to temporary files, which are
        removed at the end of the block.

        Yields
        ------
        str
            The folder.

        Raises
        ------
        FileNotFoundError
            If the checkpoint's folder is not there (any more).
        """
        if self._filesystem is None:
            self._check_exists()
            yield self.path
            return
        folder = self.to_directory()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Checkpoint:
        """Checkpoint of a dict: the older form, of Ray 2.0 to 2.6.

        The dict is pickled into a temporary folder that goes with this object; reporting the checkpoint copies it.
        New code writes files of its own choice and uses :meth:`from_directory`.

        Parameters
        ----------
        data : dict

        Returns
        -------
        Checkpoint

        Examples
        --------
        >>> Checkpoint.from_dict({"epoch": 7}).to_dict()
        {'epoch': 7}
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"`from_dict` takes a dict, got {data!r}. For a folder use `from_directory`.")
        return cls._from_payload(dict(data))

    @classmethod
    def _from_payload(cls, data: dict[str, Any]) -> Checkpoint:
        folder = tempfile.mkdtemp(prefix="checkpoint_dict_")
        try:
            dump_pickle(data, os.path.join(folder, _DICT_FILE))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        checkpoint = cls(folder)
        checkpoint._keep_while_used(folder)
        return checkpoint

    def _keep_while_used(self, folder: str) -> None:
        weakref.finalize(self, _remove_own, folder, os.getpid())
        self._is_temporary = True

    _is_temporary = False

    def to_dict(self) -> dict[str, Any]:
        """The dict of a checkpoint that :meth:`from_dict` made.

        This reads a pickle, **which runs the code in it**. A file that another user owns or may write is refused; do
        not use this on checkpoints that came from somebody you would not run a program of.

        Returns
        -------
        dict

        Raises
        ------
        UntrustedFileError
            If another user owns the file or its folder or may write there.
        ValueError
            If the checkpoint was not made by :meth:`from_dict`, or was not written to its end.
        """
        with self.as_directory() as folder:
            file = os.path.join(folder, _DICT_FILE)
            if not os.path.exists(file):
                raise ValueError(
                    f"{self!r} was not made by `Checkpoint.from_dict`: it holds {sorted(os.listdir(folder))}. "
                    "Use `as_directory()` and read those files."
                )
            data = load_pickle(file)
        if not isinstance(data, dict):
            raise ValueError(f"{file} does not hold a dict, but a {type(data).__name__}.")
        return data

    def get_metadata(self) -> dict[str, Any]:
        """What was stored with :meth:`set_metadata`; an empty dict if nothing was.

        Returns
        -------
        dict
        """
        file = f"{self.path}/{_METADATA_FILE}"
        try:
            if self._filesystem is None:
                text = Path(file).read_bytes()
            else:
                text = self._filesystem.cat_file(file)
        except (FileNotFoundError, NotADirectoryError):
            self._check_exists()
            return {}
        try:
            metadata = json.loads(text)
        except ValueError as error:
            raise ValueError(f"The metadata of {self!r} are damaged: {file} is not JSON ({error}).") from error
        if not isinstance(metadata, dict):
            raise ValueError(f"The metadata of {self!r} are damaged: {file} holds no dict.")
        return metadata

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Store a dict with the checkpoint, in place of the one it has.

        Parameters
        ----------
        metadata : dict
            Of what JSON can hold: texts, numbers, lists, dicts.
        """
        if not isinstance(metadata, Mapping):
            raise TypeError(f"`metadata` must be a dict, got {metadata!r}.")
        for key, value in metadata.items():
            try:
                json.dumps({key: value})
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"`metadata` must hold what JSON can: key {key!r} has {value!r} ({error}). "
                    "Write other data to a file in the checkpoint."
                ) from error
        self._check_exists()
        file, text = f"{self.path}/{_METADATA_FILE}", json.dumps(dict(metadata)).encode()
        if self._filesystem is not None:
            self._filesystem.pipe_file(file, text)
            return
        scratch = f"{file}.{os.getpid()}"
        Path(scratch).write_bytes(text)
        os.replace(scratch, file)

    def update_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Add to the metadata; keys that are there already are replaced.

        Parameters
        ----------
        metadata : dict
        """
        if not isinstance(metadata, Mapping):
            raise TypeError(f"`metadata` must be a dict, got {metadata!r}.")
        self.set_metadata({**self.get_metadata(), **metadata})

    def _check_exists(self) -> None:
        if self._filesystem is None:
            if os.path.isdir(self.path):
                return
            what = "is not a folder" if os.path.exists(self.path) else "is not there"
        else:
            if self._filesystem.isdir(self.path):
                return
            what = "is not a folder, or not there"
        raise FileNotFoundError(
            f"{self!r}: {self.path} {what}. A checkpoint is a folder; it may have been removed "
            "(`CheckpointConfig.num_to_keep`), be on another machine, or have been a temporary one."
        )

    def _copy_to(self, target: str) -> None:
        if self._filesystem is None:
            if os.path.realpath(target) != os.path.realpath(self.path):
                shutil.copytree(self.path, target, dirs_exist_ok=True)
            return
        os.makedirs(target, exist_ok=True)
        prefix = self.path + "/"
        for file in self._filesystem.find(self.path):
            local = os.path.join(target, file.removeprefix(prefix))
            os.makedirs(os.path.dirname(local), exist_ok=True)
            self._filesystem.get_file(file, local)

    def __fspath__(self) -> str:
        raise TypeError("A Checkpoint is not a path. Use `with checkpoint.as_directory() as folder:`.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Checkpoint):
            return NotImplemented
        return self.path == other.path and bool(self._filesystem == other._filesystem)

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"Checkpoint(filesystem={self._filesystem_name()}, path={self.path})"

    def _filesystem_name(self) -> str:
        if self._filesystem is None:
            return "local"
        protocol = self._filesystem.protocol
        return str(protocol if isinstance(protocol, str) else protocol[0])

    def __reduce__(self) -> Any:
        if self._is_temporary and os.path.isdir(self.path):
            # Its folder ends with this object and may be out of reach of the process that reads it: send what it holds.
            return (_temporary, (type(self), _read_files(self.path)))
        return (_refer, (type(self), self.path, self._filesystem))


def _remove_own(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked copy of the object must not take the folder from under the original
        shutil.rmtree(folder, ignore_errors=True)


def _refer(cls: type[Checkpoint], path: str, filesystem: Any) -> Checkpoint:
    return cls(path, filesystem)


def _temporary(cls: type[Checkpoint], files: dict[str, bytes]) -> Checkpoint:
    folder = tempfile.mkdtemp(prefix="checkpoint_dict_")
    for name, content in files.items():
        with open(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(content)
    checkpoint = cls(folder)
    checkpoint._keep_while_used(folder)
    return checkpoint


def _read_files(folder: str) -> dict[str, bytes]:
    return {entry.name: Path(entry.path).read_bytes() for entry in os.scandir(folder) if entry.is_file()}


def _from_url(url: str) -> tuple[Any, str]:
    """Filesystem and path of a URL; None for the local disk."""
    try:
        filesystem, path = _fsspec("fsspec.core").url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise type(error)(f"Cannot reach the checkpoint at {url!r}: {error}") from error
    return (None if _is_local(filesystem) else filesystem), path


def _fsspec_filesystem(filesystem: Any) -> Any:
    """What was given as a filesystem, as fsspec's; None for the local disk."""
    if type(filesystem).__module__.partition(".")[0] == "pyarrow":
        if filesystem.type_name == "local":
            return None
        return _fsspec("fsspec.implementations.arrow").ArrowFSWrapper(filesystem)
    if not isinstance(filesystem, _fsspec("fsspec").AbstractFileSystem):
        raise TypeError(f"`filesystem` of a Checkpoint must be one of fsspec or pyarrow, got {filesystem!r}.")
    return None if _is_local(filesystem) else filesystem


def local_filesystem() -> Any:
    """The local disk as a filesystem of fsspec's."""
    return _fsspec("fsspec.implementations.local").LocalFileSystem()


def _is_local(filesystem: Any) -> bool:
    return isinstance(filesystem, _fsspec("fsspec.implementations.local").LocalFileSystem)


def _fsspec(module: str) -> Any:
    return require(module, purpose="A checkpoint's filesystem", extra="tune")

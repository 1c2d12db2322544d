"""Algorithms on disk: weights and arrays that no reader executes, settings as data, a manifest that tells a torn one.

A checkpoint is a folder::

    rllib_checkpoint.json     kind, versions, and length and digest of the other files; written last
    algorithm_state.json      settings, counters, where environments and generators are
    arrays.npz                the arrays that the state refers to
    module_state.pt           weights, for ``torch.load(..., weights_only=True)``
    learner_state.pt          optimizer and schedules, likewise
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mltoolkit.rllib.utils.data_codec import decode, encode

__all__ = ["CheckpointError", "SavedCheckpoint", "find_checkpoint", "read_checkpoint", "write_checkpoint"]

MANIFEST = "rllib_checkpoint.json"
_STATE, _ARRAYS, _MODULE, _LEARNER = "algorithm_state.json", "arrays.npz", "module_state.pt", "learner_state.pt"
_FILES = (_STATE, _ARRAYS, _MODULE, _LEARNER)
_FORMAT = 1
_NUMBERED = re.compile(r"checkpoint_(\d+)$")


class CheckpointError(ValueError):
    """A checkpoint is not there, is torn, or is one of something else."""


class SavedCheckpoint(str):
    """The path of a checkpoint, as older programs take it, with the attributes of newer ones.

    Attributes
    ----------
    checkpoint : Checkpoint
    metrics : dict
        The newest result.
    """

    metrics: dict[str, Any]

    def __new__(cls, path: str, metrics: dict[str, Any] | None = None) -> SavedCheckpoint:
        self = super().__new__(cls, path)
        self.metrics = metrics or {}
        return self

    @property
    def path(self) -> str:
        """The folder."""
        return str(self)

    @property
    def checkpoint(self) -> Any:
        """The folder as a checkpoint."""
        from mltoolkit.train import Checkpoint

        return Checkpoint.from_directory(str(self))


def write_checkpoint(
    folder: str, kind: str, state: dict[str, Any], module_state: dict[str, Any], learner_state: dict[str, Any]
) -> None:
    """Write a checkpoint so that it is whole or not there.

    Parameters
    ----------
    folder : str
        Replaced if it holds a checkpoint; it may hold other files as well, which stay.
    kind : str
        Name of the algorithm.
    state : dict
        Plain data and arrays.
    module_state : dict of str to ndarray
    learner_state : dict
        Plain data, arrays and tensors.
    """
    import torch

    from mltoolkit import __version__

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    old_names = _names_in(target)
    # Beside the files of a checkpoint that is there already; it stays whole until the manifest names the new ones.
    suffix = ".b" if any(name in old_names for name in _FILES) else ""
    names = {name: name.replace(".", f"{suffix}.", 1) for name in _FILES}
    scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=target))
    try:
        data, arrays = encode(state)
        (scratch / names[_STATE]).write_text(json.dumps(data))
        with open(scratch / names[_ARRAYS], "wb") as file:
            np.savez(file, **arrays)
        torch.save({k: torch.from_numpy(np.array(v)) for k, v in module_state.items()}, scratch / names[_MODULE])
        torch.save(_tensors(learner_state), scratch / names[_LEARNER])
        manifest = {
            "type": "Algorithm",
            "algorithm": kind,
            "format": _FORMAT,
            "mltoolkit_version": __version__,
            "files": {name: [names[name], *_digest(scratch / names[name])] for name in _FILES},
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for name in [*names.values(), MANIFEST]:
            os.replace(scratch / name, target / name)
        for name in old_names:
            (target / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_numbered_checkpoint(parent: str, iteration: int, write: Callable[[str], None]) -> str:
    """Let `write` fill ``parent/checkpoint_000012``, which appears when it is whole, and return its path."""
    os.makedirs(parent, exist_ok=True)
    target = Path(parent, f"checkpoint_{iteration:06d}")
    scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=parent))
    try:
        scratch.chmod(0o755)
        write(os.fspath(scratch))
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=".outgoing-", dir=parent))
            os.replace(target, old / target.name)
            os.replace(scratch, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return os.fspath(target)


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The folder of a checkpoint: `path` itself, that of a file in it, or the newest ``checkpoint_*`` within.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    given = Path(path)
    if (given / MANIFEST).exists():
        return given
    if given.is_file() and (given.parent / MANIFEST).exists():
        return given.parent
    numbered = [p for p in given.glob("checkpoint_*") if (p / MANIFEST).exists() and _NUMBERED.search(p.name)]
    if numbered:
        return max(numbered, key=lambda p: int(_NUMBERED.search(p.name)[1]))  # type: ignore[index]
    if not given.exists():
        raise CheckpointError(f"There is no checkpoint at {given}.")
    if (given / "algorithm_state.pkl").exists():
        raise CheckpointError(
            f"{given} is a checkpoint that Ray's RLlib wrote: pickles of its own classes, which only Ray can read."
        )
    raise CheckpointError(
        f"{given} holds no checkpoint of an algorithm: no {MANIFEST} in it. It is another folder, or its writing was "
        "cut off; give what `save` returned."
    )


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises
    ------
    CheckpointError
        If it is torn or written by a newer release.
    """
    folder = find_checkpoint(path)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        kind, files, version = manifest["algorithm"], manifest["files"], manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is torn or not from mltoolkit: {error!r}.") from error
    if not isinstance(kind, str) or not isinstance(files, dict):
        raise CheckpointError(f"{folder / MANIFEST} is not from mltoolkit.")
    if version != _FORMAT:
        raise CheckpointError(
            f"{folder} has format {version}, this release reads {_FORMAT}: it was written by another release of "
            f"mltoolkit ({manifest.get('mltoolkit_version')})."
        )
    return dict(manifest)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Returns
    -------
    dict
        ``algorithm`` (name), ``state``, ``module_state`` (dict of arrays), ``learner_state``.

    Raises
    ------
    CheckpointError
        If it is torn, not there or of another format.
    """
    import torch

    folder = find_checkpoint(path)
    manifest = read_manifest(folder)
    paths = {}
    for name in _FILES:
        try:
            actual, *digest = manifest["files"][name]
            file = paths[name] = folder / os.path.basename(actual)
            whole = file.is_file() and _digest(file) == digest
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise CheckpointError(
                f"The checkpoint {folder} is torn: {name} is missing or not what was written. Use an earlier one."
            )
    try:
        with np.load(paths[_ARRAYS], allow_pickle=False) as arrays:
            state = decode(json.loads(paths[_STATE].read_text()), dict(arrays))
        module_state = torch.load(paths[_MODULE], weights_only=True, map_location="cpu")
        learner_state = torch.load(paths[_LEARNER], weights_only=True, map_location="cpu")
        module_state = {name: tensor.numpy() for name, tensor in module_state.items()}
    except Exception as error:
        raise CheckpointError(f"The checkpoint {folder} cannot be read: {error}") from error
    return {
        "algorithm": manifest["algorithm"],
        "state": state,
        "module_state": module_state,
        "learner_state": _arrays(learner_state),
    }


def _digest(path: Path) -> list[Any]:
    with open(path, "rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _names_in(folder: Path) -> list[str]:
    """The files of the checkpoint that a folder holds; none if it holds none that can be told."""
    try:
        return [os.path.basename(entry[0]) for entry in json.loads((folder / MANIFEST).read_text())["files"].values()]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return []


def _tensors(value: Any) -> Any:
    """Arrays as tensors, since ``weights_only`` reads these alone."""
    import torch

    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))  # a copy: those from other processes cannot be written to
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_tensors(item) for item in value)
    return value


def _arrays(value: Any) -> Any:
    """Tensors as the arrays they were."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_arrays(item) for item in value)
    return value

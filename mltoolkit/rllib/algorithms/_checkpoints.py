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
from pathlib import Path
from typing import Any

import numpy as np

from mltoolkit.rllib.utils.data_codec import decode, encode

__all__ = ["CheckpointError", "SavedCheckpoint", "find_checkpoint", "read_checkpoint", "write_checkpoint"]

MANIFEST = "rllib_checkpoint.json"
_STATE, _ARRAYS = "algorithm_state.json", "arrays.npz"
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
    scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=target))
    try:
        data, arrays = encode(state)
        (scratch / _STATE).write_text(json.dumps(data))
        np.savez(scratch / _ARRAYS, **arrays)  # type: ignore[arg-type]
        torch.save({k: torch.from_numpy(np.array(v)) for k, v in module_state.items()}, scratch / "module_state.pt")
        torch.save(_tensors(learner_state), scratch / "learner_state.pt")
        manifest = {
            "type": "Algorithm",
            "algorithm": kind,
            "format": _FORMAT,
            "mltoolkit_version": __version__,
            "files": {path.name: _digest(path) for path in sorted(scratch.iterdir())},
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1))
        # The manifest goes first and comes last: between the two moments there is none, and no half-new checkpoint.
        (target / MANIFEST).unlink(missing_ok=True)
        for name in [*manifest["files"], MANIFEST]:  # type: ignore[misc]
            os.replace(scratch / name, target / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_numbered_checkpoint(parent: str, iteration: int, **parts: Any) -> str:
    """Write ``parent/checkpoint_000012``, which appears when it is whole, and return its path."""
    os.makedirs(parent, exist_ok=True)
    target = Path(parent, f"checkpoint_{iteration:06d}")
    scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=parent))
    try:
        scratch.chmod(0o755)
        write_checkpoint(os.fspath(scratch), **parts)
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
    for name, digest in manifest["files"].items():
        if os.path.basename(name) != name or not (folder / name).is_file() or _digest(folder / name) != digest:
            raise CheckpointError(
                f"The checkpoint {folder} is torn: {name} is missing or not what was written. Use an earlier one."
            )
    try:
        with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
            state = decode(json.loads((folder / _STATE).read_text()), dict(arrays))
        module_state = torch.load(folder / "module_state.pt", weights_only=True, map_location="cpu")
        learner_state = torch.load(folder / "learner_state.pt", weights_only=True, map_location="cpu")
        module_state = {name: tensor.numpy() for name, tensor in module_state.items()}
    except Exception as error:
        raise CheckpointError(f"The checkpoint {folder} cannot be read: {error}") from error
    return {
        "algorithm": manifest["algorithm"],
        "state": state,
        "module_state": module_state,
        "learner_state": learner_state,
    }


def _digest(path: Path) -> list[Any]:
    with open(path, "rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _tensors(value: Any) -> Any:
    """Arrays as tensors, since ``weights_only`` reads these alone."""
    import torch

    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_tensors(item) for item in value)
    return value

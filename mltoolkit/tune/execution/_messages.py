"""What the controller and the processes of its trials say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mltoolkit
from mltoolkit.tune.context import TuneContext
from mltoolkit.tune.execution._checkpoint_io import PackedFolder

__all__ = ["Assignment", "Outcome", "SavedCheckpoint", "SlotInfo"]


@dataclass(frozen=True)
class SlotInfo:
    """Where a process runs.

    Attributes
    ----------
    pid, hostname, node_id
    shares_storage : bool
        Whether it sees the experiment's folder.
    """

    pid: int
    hostname: str
    node_id: str
    shares_storage: bool


@dataclass(frozen=True)
class Assignment:
    """A trial for a process to run.

    Attributes
    ----------
    trainable : ObjectRef
        The function or class; fetched once per process.
    checkpoint : str, PackedFolder or None
        Where to go on from: a folder, or its files when the process does not see it.
    progress : dict
        Counters at that checkpoint.
    checkpoint_index : int
        Number of the next checkpoint; its folder is named after it.
    checkpoint_frequency : int
        Iterations between two checkpoints of a class trainable; 0 for none.
    reuse : bool
        Whether an instance that is there may become this trial through `reset_config`.
    """

    context: TuneContext
    trainable: mltoolkit.ObjectRef
    config: dict[str, Any]
    metric: str | None = None
    checkpoint: str | PackedFolder | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    checkpoint_index: int = 0
    checkpoint_frequency: int = 0
    checkpoint_at_end: bool = False
    log_files: tuple[str | None, str | None] = (None, None)
    change_directory: bool = True
    reuse: bool = False


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that a trial gave.

    Attributes
    ----------
    name : str
        Its folder within the trial's.
    packed : PackedFolder or None
        Its files, when the process could not write them itself.
    """

    name: str
    packed: PackedFolder | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of letting a trial run on.

    Attributes
    ----------
    result : dict or None
        None: it ended without another result.
    checkpoint : SavedCheckpoint or None
    returned : bool
        Whether the trial's function has come to its end, so that the process is free.
    """

    result: dict[str, Any] | None = None
    checkpoint: SavedCheckpoint | None = None
    returned: bool = False

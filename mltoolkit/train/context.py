"""Who a worker is: what ``train.get_context()`` gives in a training function."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from mltoolkit.train._session import get_context

__all__ = ["StorageContext", "TrainContext", "get_context"]


@dataclass(frozen=True)
class StorageContext:
    """Where a run is kept: folders on the host that directs it.

    Attributes
    ----------
    storage_fs_path : str
        The folder that holds the folders of runs.
    experiment_dir_name, trial_dir_name : str
        Names of the run's folder in it, and of the trial's in that; the latter is empty where there is none.
    """

    storage_fs_path: str
    experiment_dir_name: str
    trial_dir_name: str = ""

    @property
    def storage_filesystem(self) -> Any:
        """The fsspec filesystem that the folders are on."""
        from mltoolkit.train._checkpoint import local_filesystem

        return local_filesystem()

    @property
    def experiment_fs_path(self) -> str:
        """The folder of the run."""
        return os.path.join(self.storage_fs_path, self.experiment_dir_name)

    @property
    def trial_fs_path(self) -> str:
        """The folder with results and checkpoints."""
        return os.path.join(self.experiment_fs_path, self.trial_dir_name).rstrip(os.sep)

    @property
    def local_working_directory(self) -> str:
        """Where relative paths of this worker lead."""
        return os.getcwd()


@dataclass(frozen=True)
class TrainContext:
    """Identity of a worker among the workers of a training run, and of the trial that they belong to.

    Attributes
    ----------
    world_size, world_rank : int
        Number of workers, and which of them this is.
    local_world_size, local_rank : int
        The same among those on this node.
    node_rank : int
        Number of this node among those that have workers.
    """

    world_size: int = 1
    world_rank: int = 0
    local_world_size: int = 1
    local_rank: int = 0
    node_rank: int = 0
    experiment_name: str = ""
    trial_id: str = ""
    trial_name: str = ""
    trial_dir: str = ""
    trial_resources: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def get_world_size(self) -> int:
        """Number of workers."""
        return self.world_size

    def get_world_rank(self) -> int:
        """Number of this worker among all, from 0."""
        return self.world_rank

    def get_local_world_size(self) -> int:
        """Number of workers on this node."""
        return self.local_world_size

    def get_local_rank(self) -> int:
        """Number of this worker among those on its node, from 0."""
        return self.local_rank

    def get_node_rank(self) -> int:
        """Number of this node among those that have workers, from 0."""
        return self.node_rank

    def get_experiment_name(self) -> str:
        """Name of the run, which is also the name of its folder."""
        return self.experiment_name

    def get_trial_id(self) -> str:
        """Id of the trial."""
        return self.trial_id

    def get_trial_name(self) -> str:
        """Name of the trial."""
        return self.trial_name

    def get_trial_dir(self) -> str:
        """Folder of the trial on the host that directs the run: results and checkpoints."""
        return self.trial_dir

    def get_trial_resources(self) -> Any:
        """What the trial was given, as a PlacementGroupFactory."""
        return self.trial_resources

    def get_storage(self) -> StorageContext:
        """Where the run is kept."""
        folder, name = os.path.split(self.trial_dir)
        if name == self.experiment_name:
            return StorageContext(folder, name)
        return StorageContext(os.path.dirname(folder), os.path.basename(folder), name)

    def get_metadata(self) -> dict[str, Any]:
        """The trainer's `metadata`."""
        return dict(self.metadata)

"""How a Trainer in a training function learns its rank."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from mltoolkit.lightning._package import PackageClass
from mltoolkit.train._session import get_context

__all__ = ["RayLightningEnvironment"]


class RayLightningEnvironment(PackageClass):
    """Ranks and sizes of the worker that this process is, from ``train.get_context()``."""

    _base_in_package: ClassVar[tuple[str, str]] = ("{fabric}.plugins.environments", "LightningEnvironment")

    @property
    def creates_processes_externally(self) -> bool:
        """Whether somebody else starts the processes: TorchTrainer does."""
        return True

    @property
    def main_address(self) -> str:
        """Address of rank 0, which the workers have met at already."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Port of rank 0."""
        return int(os.environ.get("MASTER_PORT", "0"))

    @staticmethod
    def detect() -> bool:
        """Never chosen by itself."""
        return False

    def world_size(self) -> int:
        """Number of workers."""
        return int(get_context().get_world_size())

    def global_rank(self) -> int:
        """Number of this worker among all."""
        return int(get_context().get_world_rank())

    def local_rank(self) -> int:
        """Number of this worker among those on its node."""
        return int(get_context().get_local_rank())

    def node_rank(self) -> int:
        """Number of this node."""
        return int(get_context().get_node_rank())

    def set_world_size(self, size: int) -> None:
        """Nothing to do: the workers are there."""

    def set_global_rank(self, rank: int) -> None:
        """Nothing to do: the workers are there."""

    def teardown(self) -> None:
        """Nothing to do: the trainer outside goes on."""

    def __getstate__(self) -> Any:
        return dict(vars(self))

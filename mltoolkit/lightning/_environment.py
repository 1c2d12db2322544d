"""How a rank learns who it is."""

from __future__ import annotations

from typing import Any, ClassVar

from mltoolkit.lightning._package import PackageClass
from mltoolkit.train._internal.worker_group import Ranks

__all__ = ["RankEnvironment"]


class RankEnvironment(PackageClass):
    """Ranks and sizes as the launcher has given them; in the driver those of rank 0.

    Parameters
    ----------
    num_workers : int
    """

    _base_in_package: ClassVar[tuple[str, str]] = ("{fabric}.plugins.environments", "ClusterEnvironment")

    def __init__(self, num_workers: int) -> None:
        self.ranks = Ranks(num_workers, 0, num_workers, 0, 0)
        self.is_worker = False

    def become(self, ranks: Ranks) -> None:
        """Take the place of a worker."""
        self.ranks, self.is_worker = ranks, True

    @property
    def creates_processes_externally(self) -> bool:
        """Whether somebody else starts the processes."""
        return True

    @property
    def main_address(self) -> str:
        """Address of rank 0, which the workers have met at before they ask."""
        import os

        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Port of rank 0."""
        import os

        return int(os.environ.get("MASTER_PORT", "0"))

    @staticmethod
    def detect() -> bool:
        """Never chosen by itself."""
        return False

    def world_size(self) -> int:
        """Number of workers."""
        return self.ranks.world_size

    def global_rank(self) -> int:
        """Number of this worker among all."""
        return self.ranks.world_rank

    def local_rank(self) -> int:
        """Number of this worker among those on its node."""
        return self.ranks.local_rank

    def node_rank(self) -> int:
        """Number of this node."""
        return self.ranks.node_rank

    def set_world_size(self, size: int) -> None:
        """Nothing to do: the launcher knows."""

    def set_global_rank(self, rank: int) -> None:
        """Nothing to do: the launcher knows."""

    def __repr__(self) -> Any:
        return f"{type(self).__name__}({self.ranks})"

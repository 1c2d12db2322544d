"""Datasets for LightGBM, under the names of ``lightgbm_ray``."""

from __future__ import annotations

from typing import Any

from mltoolkit._boosting.matrix import RayDMatrix as _RayDMatrix
from mltoolkit._boosting.matrix import Shard
from mltoolkit._boosting.sharding import RayShardingMode, combine_data
from mltoolkit._boosting.sources import RayFileType

__all__ = [
    "Data",
    "RayDMatrix",
    "RayDeviceQuantileDMatrix",
    "RayFileType",
    "RayShardingMode",
    "ReplicatedMatrix",
    "combine_data",
]

#: What ``RayDMatrix(data=...)`` takes, for annotations.
Data = Any


class RayDMatrix(_RayDMatrix):  # noqa: D101 - the docstring is the base class's
    __doc__ = _RayDMatrix.__doc__

    _module = "lightgbm"


class RayDeviceQuantileDMatrix(RayDMatrix):
    """The same as :class:`RayDMatrix`; LightGBM builds and keeps its bins on the device by itself."""


class ReplicatedMatrix(RayDMatrix):
    """A dataset of which every rank has all rows, as LightGBM's feature-parallel learner wants it.

    Data in memory is written to shared memory once, where all ranks map it; files are read by each rank.

    Parameters
    ----------
    matrix : RayDMatrix
        Stays as it is.
    """

    def __init__(self, matrix: _RayDMatrix) -> None:
        self.__dict__.update(matrix.__dict__)
        self._given_num_actors = None
        self._shards = self._rows = None
        self.num_actors = None

    def load_data(self, num_actors: int | None = None, rank: int | None = None) -> None:
        """Keep the data in one piece."""
        super().load_data(1)

    def shard(self, rank: int) -> Shard:
        """The piece."""
        return super().shard(0)

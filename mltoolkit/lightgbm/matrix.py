"""Datasets for LightGBM, under the names of ``lightgbm_ray``."""

from __future__ import annotations

from typing import Any

from mltoolkit._boosting.matrix import RayDMatrix as _RayDMatrix
from mltoolkit._boosting.sharding import RayShardingMode, combine_data
from mltoolkit._boosting.sources import RayFileType

__all__ = [
    "Data",
    "RayDMatrix",
    "RayDeviceQuantileDMatrix",
    "RayFileType",
    "RayShardingMode",
    "combine_data",
]

#: What ``RayDMatrix(data=...)`` takes, for annotations.
Data = Any


class RayDMatrix(_RayDMatrix):  # noqa: D101 - the docstring is the base class's
    __doc__ = _RayDMatrix.__doc__

    _module = "lightgbm"


class RayDeviceQuantileDMatrix(RayDMatrix):
    """The same as :class:`RayDMatrix`; LightGBM builds and keeps its bins on the device by itself."""

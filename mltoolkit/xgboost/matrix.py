"""Datasets for XGBoost, under the names of ``xgboost_ray.matrix``."""

from __future__ import annotations

from typing import Any

from mltoolkit._boosting.block import Schema
from mltoolkit._boosting.matrix import RayDMatrix as _RayDMatrix
from mltoolkit._boosting.sharding import RayShardingMode, combine_data
from mltoolkit._boosting.sources import RayFileType

__all__ = [
    "Data",
    "RayDMatrix",
    "RayDeviceQuantileDMatrix",
    "RayFileType",
    "RayQuantileDMatrix",
    "RayShardingMode",
    "combine_data",
]

#: What ``RayDMatrix(data=...)`` takes, for annotations.
Data = Any


class RayDMatrix(_RayDMatrix):  # noqa: D101 - the docstring is the base class's
    __doc__ = _RayDMatrix.__doc__

    # XGBoost computes with single precision: so do the shards, at half the memory of float64.
    _float32 = True
    _module = "xgboost"

    def check_schema(self, schema: Schema) -> None:
        """Refuse columns that XGBoost cannot use."""
        super().check_schema(schema)
        types = self.feature_types or schema.types or []
        if "c" in types and not self.enable_categorical:
            names = [name for name, kind in zip(schema.names or types, types, strict=True) if kind == "c"]
            raise ValueError(
                f"The columns {', '.join(map(repr, names))} are categorical. Give `enable_categorical=True` to RayDMatrix to use "
                "them as such, or encode them as numbers."
            )


class RayQuantileDMatrix(RayDMatrix):
    """The same as :class:`RayDMatrix`, which keeps quantised values wherever the tree method allows it."""


class RayDeviceQuantileDMatrix(RayDMatrix):
    """The same as :class:`RayDMatrix`: with ``device="cuda"`` its quantised values are built and kept on the GPU.

    Raises
    ------
    ValueError
        If label bounds are given, which ``xgboost.DeviceQuantileDMatrix`` did not take.
    """

    def __init__(self, data: Any, label: Any = None, *args: Any, **kwargs: Any) -> None:
        for name in ("label_lower_bound", "label_upper_bound"):
            if kwargs.get(name) is not None:
                raise ValueError(f"RayDeviceQuantileDMatrix takes no `{name}`. Use RayDMatrix.")
        super().__init__(data, label, *args, **kwargs)

"""Distributed LightGBM with the API of ``lightgbm_ray``.

Estimators and functions load at first use, since they bring LightGBM and scikit-learn along.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit._boosting.session import get_actor_rank, put_queue
    from mltoolkit.lightgbm.main import RayParams, predict, train
    from mltoolkit.lightgbm.matrix import (
        Data,
        RayDeviceQuantileDMatrix,
        RayDMatrix,
        RayFileType,
        RayShardingMode,
        combine_data,
    )
    from mltoolkit.lightgbm.sklearn import RayLGBMClassifier, RayLGBMRanker, RayLGBMRegressor

__all__ = [
    "Data",
    "RayDMatrix",
    "RayDeviceQuantileDMatrix",
    "RayFileType",
    "RayLGBMClassifier",
    "RayLGBMRanker",
    "RayLGBMRegressor",
    "RayParams",
    "RayShardingMode",
    "combine_data",
    "get_actor_rank",
    "predict",
    "put_queue",
    "train",
]

_HOME = {
    "Data": "matrix",
    "RayDMatrix": "matrix",
    "RayDeviceQuantileDMatrix": "matrix",
    "RayFileType": "matrix",
    "RayShardingMode": "matrix",
    "combine_data": "matrix",
    "RayParams": "main",
    "predict": "main",
    "train": "main",
    "get_actor_rank": "session",
    "put_queue": "session",
    "RayLGBMClassifier": "sklearn",
    "RayLGBMRanker": "sklearn",
    "RayLGBMRegressor": "sklearn",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"mltoolkit.lightgbm.{_HOME[name]}"), name)
    if name == "__version__":  # the release whose API this is
        return "0.1.9"
    raise AttributeError(f"module 'mltoolkit.lightgbm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

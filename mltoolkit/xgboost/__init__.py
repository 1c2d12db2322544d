"""Distributed XGBoost with the API of ``xgboost_ray``.

Estimators and functions load at first use, since they bring XGBoost and scikit-learn along.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit._boosting.params import RayParams
    from mltoolkit._boosting.session import get_actor_rank, put_queue
    from mltoolkit.xgboost.main import predict, train
    from mltoolkit.xgboost.matrix import (
        Data,
        RayDeviceQuantileDMatrix,
        RayDMatrix,
        RayFileType,
        RayQuantileDMatrix,
        RayShardingMode,
        combine_data,
    )
    from mltoolkit.xgboost.sklearn import (
        RayXGBClassifier,
        RayXGBRanker,
        RayXGBRegressor,
        RayXGBRFClassifier,
        RayXGBRFRegressor,
    )

__all__ = [
    "Data",
    "RayDMatrix",
    "RayDeviceQuantileDMatrix",
    "RayFileType",
    "RayParams",
    "RayQuantileDMatrix",
    "RayShardingMode",
    "RayXGBClassifier",
    "RayXGBRFClassifier",
    "RayXGBRFRegressor",
    "RayXGBRanker",
    "RayXGBRegressor",
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
    "RayQuantileDMatrix": "matrix",
    "RayShardingMode": "matrix",
    "combine_data": "matrix",
    "RayParams": "main",
    "predict": "main",
    "train": "main",
    "get_actor_rank": "session",
    "put_queue": "session",
    "RayXGBClassifier": "sklearn",
    "RayXGBRFClassifier": "sklearn",
    "RayXGBRFRegressor": "sklearn",
    "RayXGBRanker": "sklearn",
    "RayXGBRegressor": "sklearn",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"mltoolkit.xgboost.{_HOME[name]}"), name)
    if name == "__version__":  # the release whose API this is
        return "0.1.19"
    raise AttributeError(f"module 'mltoolkit.xgboost' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""The base class of callbacks, under the name of ``xgboost_ray.compat``, which had one for each release of XGBoost."""

from __future__ import annotations

from typing import Any

from mltoolkit._optional import require

__all__ = ["LEGACY_CALLBACK", "TrainingCallback"]

LEGACY_CALLBACK = False

TrainingCallback: Any = require("xgboost", purpose="TrainingCallback", extra="xgboost").callback.TrainingCallback

"""Checkpoints that hold a model of XGBoost."""

from __future__ import annotations

from mltoolkit.train._internal.model_checkpoint import BoosterCheckpoint

__all__ = ["XGBoostCheckpoint"]


class XGBoostCheckpoint(BoosterCheckpoint):
    """A checkpoint that holds a model of XGBoost."""

    MODEL_FILENAME = "model.json"
    _library = "xgboost"

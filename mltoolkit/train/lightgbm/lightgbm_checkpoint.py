"""Checkpoints that hold a model of LightGBM."""

from __future__ import annotations

from mltoolkit.train._internal.model_checkpoint import BoosterCheckpoint

__all__ = ["LightGBMCheckpoint"]


class LightGBMCheckpoint(BoosterCheckpoint):
    """A checkpoint that holds a model of LightGBM."""

    MODEL_FILENAME = "model.txt"
    _library = "lightgbm"

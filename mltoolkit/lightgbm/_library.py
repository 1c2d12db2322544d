"""LightGBM, as the driver knows it, and its errors."""

from __future__ import annotations

import logging

from mltoolkit._boosting.actor import BoostingActor
from mltoolkit._boosting.library import Library
from mltoolkit.lightgbm._rank import LightGBMRank

__all__ = ["LIGHTGBM", "RayLightGBMActor", "RayLightGBMTrainingError"]


class RayLightGBMTrainingError(RuntimeError):
    """Training cannot go on: actors were lost, or code of the user raised, which is the ``__cause__`` then."""


class RayLightGBMActor(BoostingActor):
    """An actor that is one rank of LightGBM's distributed training."""


LIGHTGBM = Library(
    name="LightGBM",
    module="lightgbm",
    actor=RayLightGBMActor,
    rank=LightGBMRank,
    training_error=RayLightGBMTrainingError,
    prefix="RXGB",
    logger=logging.getLogger("mltoolkit.lightgbm"),
)

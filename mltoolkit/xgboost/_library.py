"""XGBoost, as the driver knows it, and its errors."""

from __future__ import annotations

import logging

from mltoolkit._boosting.actor import BoostingActor
from mltoolkit._boosting.library import Library
from mltoolkit.xgboost._rank import XGBoostRank

__all__ = [
    "XGBOOST",
    "RayXGBoostActor",
    "RayXGBoostActorAvailable",
    "RayXGBoostTrainingError",
    "RayXGBoostTrainingStopped",
]


class RayXGBoostTrainingError(RuntimeError):
    """Training cannot go on: actors were lost, or code of the user raised, which is the ``__cause__`` then."""


class RayXGBoostTrainingStopped(RuntimeError):
    """Named for programs that catch it: training was stopped on purpose."""


class RayXGBoostActorAvailable(RuntimeError):
    """Named for programs that catch it: in elastic training, a replacement is ready. It is taken in without an error."""


class RayXGBoostActor(BoostingActor):
    """An actor that is one rank of XGBoost's distributed training."""


XGBOOST = Library(
    name="XGBoost",
    module="xgboost",
    actor=RayXGBoostActor,
    rank=XGBoostRank,
    training_error=RayXGBoostTrainingError,
    prefix="RXGB",
    logger=logging.getLogger("mltoolkit.xgboost"),
    preload=("scipy.sparse", "mltoolkit.xgboost._rank"),
)

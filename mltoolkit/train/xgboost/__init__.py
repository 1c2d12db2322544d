"""XGBoost on the workers of a trainer: in the user's training function, or from parameters in the older form.

::

    def loop(config):
        shard = train.get_dataset_shard("train")
        data = xgboost.DMatrix(shard.drop(columns="y"), shard["y"])
        xgboost.train(config, data, evals=[(data, "train")], callbacks=[RayTrainReportCallback()])

    XGBoostTrainer(loop, scaling_config=ScalingConfig(num_workers=2), datasets={"train": frame}).fit()

To train without a run around it, see :mod:`mltoolkit.xgboost`.
"""

from __future__ import annotations

from mltoolkit.train.xgboost._callback import RayTrainReportCallback
from mltoolkit.train.xgboost.config import XGBoostConfig
from mltoolkit.train.xgboost.xgboost_checkpoint import XGBoostCheckpoint
from mltoolkit.train.xgboost.xgboost_trainer import XGBoostTrainer

__all__ = ["RayTrainReportCallback", "XGBoostCheckpoint", "XGBoostConfig", "XGBoostTrainer"]

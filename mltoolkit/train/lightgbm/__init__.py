"""LightGBM on the workers of a trainer: in the user's training function, or from parameters in the older form.

::

    def loop(config):
        shard = train.get_dataset_shard("train")
        data = lightgbm.Dataset(shard.drop(columns="y"), shard["y"])
        params = {"objective": "regression", "tree_learner": "data", **get_network_params()}
        lightgbm.train(params, data, valid_sets=[data], callbacks=[RayTrainReportCallback()])

    LightGBMTrainer(loop, scaling_config=ScalingConfig(num_workers=2), datasets={"train": frame}).fit()

To train without a run around it, see :mod:`mltoolkit.lightgbm`.
"""

from __future__ import annotations

from mltoolkit.train.lightgbm._callback import RayTrainReportCallback
from mltoolkit.train.lightgbm._frames import normalize_pandas_for_lightgbm
from mltoolkit.train.lightgbm.config import LightGBMConfig, get_network_params
from mltoolkit.train.lightgbm.lightgbm_checkpoint import LightGBMCheckpoint
from mltoolkit.train.lightgbm.lightgbm_trainer import LightGBMTrainer

__all__ = [
    "LightGBMCheckpoint",
    "LightGBMConfig",
    "LightGBMTrainer",
    "RayTrainReportCallback",
    "get_network_params",
    "normalize_pandas_for_lightgbm",
]

"""Lightning inside training functions: in a function given to `TorchTrainer`, whose workers are there already.

::

    def loop():
        trainer = Trainer(
            strategy=RayDDPStrategy(),
            plugins=[RayLightningEnvironment()],
            callbacks=[RayTrainReportCallback()],
            devices="auto",
            accelerator="auto",
        )
        prepare_trainer(trainer).fit(model, loader)

    TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=2)).fit()

To have a Trainer start the workers itself, see :mod:`mltoolkit.lightning`.
"""

from __future__ import annotations

from mltoolkit.train.lightning._callback import RayTrainReportCallback
from mltoolkit.train.lightning._environment import RayLightningEnvironment
from mltoolkit.train.lightning._prepare import prepare_trainer
from mltoolkit.train.lightning._strategies import RayDDPStrategy, RayDeepSpeedStrategy, RayFSDPStrategy

__all__ = [
    "RayDDPStrategy",
    "RayDeepSpeedStrategy",
    "RayFSDPStrategy",
    "RayLightningEnvironment",
    "RayTrainReportCallback",
    "prepare_trainer",
]

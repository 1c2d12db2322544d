"""Checks of a Trainer before it runs on workers."""

from __future__ import annotations

from typing import Any

from mltoolkit.train.lightning._environment import RayLightningEnvironment
from mltoolkit.train.lightning._strategies import RayDDPStrategy, RayDeepSpeedStrategy, RayFSDPStrategy

__all__ = ["prepare_trainer"]


def prepare_trainer(trainer: Any) -> Any:
    """Check that a Trainer fits the workers of a training function.

    Parameters
    ----------
    trainer : lightning.pytorch.Trainer

    Returns
    -------
    Trainer
        The same one.

    Raises
    ------
    RuntimeError
        If its strategy or its environment would start processes of its own.
    """
    allowed = (RayDDPStrategy, RayFSDPStrategy, RayDeepSpeedStrategy)
    if not isinstance(trainer.strategy, allowed):
        names = ", ".join(cls.__name__ for cls in allowed)
        raise RuntimeError(
            f"In a training function the Trainer's strategy must be one of {names}, got {type(trainer.strategy).__name__}. "
            "Write `Trainer(strategy=RayDDPStrategy(), ...)`."
        )
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is not None and not isinstance(environment, RayLightningEnvironment):
        raise RuntimeError(
            f"The Trainer's cluster environment must be RayLightningEnvironment, got {type(environment).__name__}. "
            "Write `Trainer(plugins=[RayLightningEnvironment()], ...)`, or leave plugins out."
        )
    return trainer

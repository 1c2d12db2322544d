"""Configurations, checkpoints and results under the paths that programs for Ray 2.0 to 2.6 import them from."""

from mltoolkit.air import session
from mltoolkit.air.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from mltoolkit.train import Checkpoint, Result

__all__ = ["Checkpoint", "CheckpointConfig", "FailureConfig", "Result", "RunConfig", "ScalingConfig", "session"]

"""Configurations under the path that older programs import them from."""

from mltoolkit.train._config import CheckpointConfig, FailureConfig, RunConfig
from mltoolkit.train._scaling import ScalingConfig

__all__ = ["CheckpointConfig", "FailureConfig", "RunConfig", "ScalingConfig"]

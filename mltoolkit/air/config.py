"""Configurations under the path that older programs import them from."""

from mltoolkit.train._config import CheckpointConfig, FailureConfig, RunConfig

__all__ = ["CheckpointConfig", "FailureConfig", "RunConfig"]

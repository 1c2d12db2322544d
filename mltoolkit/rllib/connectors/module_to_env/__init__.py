"""Connectors between module and environments: actions."""

from mltoolkit.rllib.connectors.module_to_env.module_to_env_pipeline import ModuleToEnvPipeline
from mltoolkit.rllib.connectors.module_to_env.normalize_and_clip_actions import NormalizeAndClipActions

__all__ = ["ModuleToEnvPipeline", "NormalizeAndClipActions"]

"""The pipelines between environments and module, by their names."""

from mltoolkit.rllib.connectors.build import build_pipelines
from mltoolkit.rllib.connectors.env_to_module.env_to_module_pipeline import EnvToModulePipeline, ObservationStream
from mltoolkit.rllib.connectors.module_to_env.module_to_env_pipeline import ModuleToEnvPipeline

__all__ = ["EnvToModulePipeline", "ModuleToEnvPipeline", "ObservationStream", "build_pipelines"]

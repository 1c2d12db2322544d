"""Connectors between environments and module: observations and rewards."""

from mltoolkit.rllib.connectors.env_to_module.clip_rewards import ClipRewards
from mltoolkit.rllib.connectors.env_to_module.env_to_module_pipeline import EnvToModulePipeline, ObservationStream
from mltoolkit.rllib.connectors.env_to_module.flatten_observations import FlattenObservations
from mltoolkit.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from mltoolkit.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
from mltoolkit.rllib.connectors.env_to_module.normalize_rewards import NormalizeRewards
from mltoolkit.rllib.connectors.env_to_module.observation_preprocessor import SingleAgentObservationPreprocessor
from mltoolkit.rllib.connectors.env_to_module.prepare_images import PrepareImages
from mltoolkit.rllib.connectors.env_to_module.prev_actions_prev_rewards import PrevActionsPrevRewards
from mltoolkit.rllib.connectors.env_to_module.write_observations_to_episodes import WriteObservationsToEpisodes

__all__ = [
    "ClipRewards",
    "EnvToModulePipeline",
    "FlattenObservations",
    "FrameStackingEnvToModule",
    "MeanStdFilter",
    "NormalizeRewards",
    "ObservationStream",
    "PrepareImages",
    "PrevActionsPrevRewards",
    "SingleAgentObservationPreprocessor",
    "WriteObservationsToEpisodes",
]

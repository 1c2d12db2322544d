"""Custom models under RLlib's older contract."""

from mltoolkit.rllib.models.action_dist import ActionDistribution
from mltoolkit.rllib.models.catalog import MODEL_DEFAULTS, ModelCatalog
from mltoolkit.rllib.models.modelv2 import ModelV2

__all__ = ["MODEL_DEFAULTS", "ActionDistribution", "ModelCatalog", "ModelV2"]

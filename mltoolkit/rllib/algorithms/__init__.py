"""Algorithms and their settings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm import Algorithm
    from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig
    from mltoolkit.rllib.algorithms.ppo import PPO, PPOConfig

__all__ = ["PPO", "Algorithm", "AlgorithmConfig", "PPOConfig"]

_WHERE = {
    "Algorithm": "mltoolkit.rllib.algorithms.algorithm",
    "AlgorithmConfig": "mltoolkit.rllib.algorithms.algorithm_config",
    "PPO": "mltoolkit.rllib.algorithms.ppo",
    "PPOConfig": "mltoolkit.rllib.algorithms.ppo",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in ("ppo", "callbacks", "registry"):
        return importlib.import_module(f"mltoolkit.rllib.algorithms.{name}")
    raise AttributeError(f"module 'mltoolkit.rllib.algorithms' has no attribute {name!r}")

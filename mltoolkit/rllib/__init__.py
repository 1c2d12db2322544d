"""Reinforcement learning: RLlib's interface with PPO, on the tasks and actors of the facade.

Nothing heavy is imported here: torch and gymnasium come when an algorithm is built.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm import Algorithm
    from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig
    from mltoolkit.rllib.algorithms.ppo import PPO, PPOConfig
    from mltoolkit.rllib.callbacks.callbacks import RLlibCallback
    from mltoolkit.rllib.core.rl_module.rl_module import RLModule
    from mltoolkit.rllib.policy.policy import Policy
    from mltoolkit.rllib.policy.sample_batch import SampleBatch

__all__ = [
    "PPO",
    "Algorithm",
    "AlgorithmConfig",
    "PPOConfig",
    "Policy",
    "RLModule",
    "RLlibCallback",
    "SampleBatch",
    "register_env",
]

_WHERE = {
    "Algorithm": "mltoolkit.rllib.algorithms.algorithm",
    "AlgorithmConfig": "mltoolkit.rllib.algorithms.algorithm_config",
    "PPO": "mltoolkit.rllib.algorithms.ppo",
    "PPOConfig": "mltoolkit.rllib.algorithms.ppo",
    "Policy": "mltoolkit.rllib.policy.policy",
    "RLModule": "mltoolkit.rllib.core.rl_module.rl_module",
    "RLlibCallback": "mltoolkit.rllib.callbacks.callbacks",
    "SampleBatch": "mltoolkit.rllib.policy.sample_batch",
    "register_env": "mltoolkit.tune.registry",
}
_PACKAGES = ("agents", "algorithms", "callbacks", "connectors", "core", "env", "models", "policy", "utils", "vec_env")


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"mltoolkit.rllib.{name}")
    raise AttributeError(f"module 'mltoolkit.rllib' has no attribute {name!r}; it has {', '.join(__all__)}.")

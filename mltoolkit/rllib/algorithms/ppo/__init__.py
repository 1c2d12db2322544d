"""Proximal Policy Optimization, under its names of today and of RLlib's first years."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mltoolkit.rllib.algorithms.ppo.ppo_config import DEFAULT_CONFIG, PPOConfig

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.ppo.ppo import PPO
    from mltoolkit.rllib.algorithms.ppo.ppo import PPO as PPOTrainer

__all__ = ["DEFAULT_CONFIG", "PPO", "PPOConfig", "PPOTrainer"]


def __getattr__(name: str) -> Any:
    # A configuration can be written, and sent to a cluster, without loading what trains it.
    if name in ("PPO", "PPOTrainer"):
        from mltoolkit.rllib.algorithms.ppo.ppo import PPO

        return PPO
    raise AttributeError(f"module 'mltoolkit.rllib.algorithms.ppo' has no attribute {name!r}")

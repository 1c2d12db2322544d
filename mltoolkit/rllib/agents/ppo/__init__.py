"""The older place of PPO: ``PPOTrainer`` and ``DEFAULT_CONFIG``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mltoolkit.rllib.algorithms.ppo import DEFAULT_CONFIG, PPOConfig

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.ppo import PPO, PPOTrainer

__all__ = ["DEFAULT_CONFIG", "PPO", "PPOConfig", "PPOTrainer"]


def __getattr__(name: str) -> Any:
    if name in ("PPO", "PPOTrainer"):
        from mltoolkit.rllib.algorithms.ppo import PPO

        return PPO
    raise AttributeError(f"module 'mltoolkit.rllib.agents.ppo' has no attribute {name!r}")

"""Algorithms under the names of RLlib's first years."""

from __future__ import annotations

from typing import Any

from mltoolkit.rllib.algorithms.callbacks import DefaultCallbacks

__all__ = ["DefaultCallbacks", "ppo", "trainer"]


def __getattr__(name: str) -> Any:
    if name in ("ppo", "trainer", "callbacks"):
        import importlib

        return importlib.import_module(f"mltoolkit.rllib.agents.{name}")
    raise AttributeError(f"module 'mltoolkit.rllib.agents' has no attribute {name!r}")

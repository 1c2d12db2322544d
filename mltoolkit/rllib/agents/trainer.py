"""The older name of algorithms."""

from __future__ import annotations

from mltoolkit.rllib.algorithms.algorithm import Algorithm as Trainer

__all__ = ["Trainer"]

"""The older place of callbacks."""

from __future__ import annotations

from mltoolkit.rllib.algorithms.callbacks import DefaultCallbacks

__all__ = ["DefaultCallbacks"]

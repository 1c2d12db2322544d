"""Callbacks under the name that RLlib gave them first."""

from __future__ import annotations

from mltoolkit.rllib.callbacks.callbacks import RLlibCallback

__all__ = ["DefaultCallbacks"]

DefaultCallbacks = RLlibCallback

from __future__ import annotations

from mltoolkit.rllib.callbacks.callbacks import RLlibCallback

__all__ = ["RLlibCallback"]

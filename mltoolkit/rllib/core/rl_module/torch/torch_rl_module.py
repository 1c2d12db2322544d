"""The name under which custom torch modules are derived."""

from __future__ import annotations

from mltoolkit.rllib.core.rl_module.rl_module import RLModule

__all__ = ["TorchRLModule"]


class TorchRLModule(RLModule):
    """Base class of custom modules: the same as RLModule, which is a torch module itself."""

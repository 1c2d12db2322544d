"""Policies and value functions, and what they are built from.

The modules themselves import torch; their names are therefore loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mltoolkit.rllib.core.rl_module._spec import RLModuleSpec
from mltoolkit.rllib.core.rl_module.default_model_config import DefaultModelConfig

if TYPE_CHECKING:
    from mltoolkit.rllib.core.rl_module.rl_module import RLModule

__all__ = ["DefaultModelConfig", "RLModule", "RLModuleSpec"]


def __getattr__(name: str) -> Any:
    if name == "RLModule":
        from mltoolkit.rllib.core.rl_module.rl_module import RLModule

        return RLModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

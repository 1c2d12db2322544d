"""Training with torch: process groups, models and data loaders for the workers of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mltoolkit.train.torch.config import TorchConfig
from mltoolkit.train.torch.torch_checkpoint import TorchCheckpoint
from mltoolkit.train.torch.torch_trainer import TorchTrainer

if TYPE_CHECKING:
    from mltoolkit.train.torch.train_loop_utils import (
        accelerate,
        backward,
        enable_reproducibility,
        get_device,
        get_devices,
        prepare_data_loader,
        prepare_model,
        prepare_optimizer,
    )

__all__ = [
    "TorchCheckpoint",
    "TorchConfig",
    "TorchTrainer",
    "accelerate",
    "backward",
    "enable_reproducibility",
    "get_device",
    "get_devices",
    "prepare_data_loader",
    "prepare_model",
    "prepare_optimizer",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # What runs in training functions needs torch itself; the program that starts them need not have it loaded.
    from mltoolkit.train.torch import train_loop_utils

    return getattr(train_loop_utils, name)

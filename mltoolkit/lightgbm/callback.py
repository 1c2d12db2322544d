"""Hooks inside the actors, under the names of ``lightgbm_ray.callback``."""

from __future__ import annotations

from mltoolkit._boosting.callback import (
    DistributedCallback,
    DistributedCallbackContainer,
    EnvironmentCallback,
)

__all__ = ["DistributedCallback", "DistributedCallbackContainer", "EnvironmentCallback"]

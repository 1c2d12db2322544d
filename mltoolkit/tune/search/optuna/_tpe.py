"""The default sampler."""

from __future__ import annotations

from typing import Any


def make_tpe_sampler(seed: int) -> Any:
    """TPE with Optuna's defaults."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed)

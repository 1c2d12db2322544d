"""States of optimizers as plain data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mltoolkit.rllib.core.learner.flat_adam import FlatAdam

__all__ = ["arrays_of", "load_optimizer_state"]


def arrays_of(optimizer: Any) -> dict[str, Any]:
    """An optimizer's state with arrays in place of tensors."""
    if isinstance(optimizer, FlatAdam):
        return optimizer.get_state()
    saved = optimizer.state_dict()
    return {
        "type": type(optimizer).__name__,
        "state": {str(index): _plain(entry) for index, entry in saved["state"].items()},
        "param_groups": _plain(saved["param_groups"]),
    }


def load_optimizer_state(optimizer: Any, state: dict[str, Any], device: torch.device) -> None:
    """Take up what :func:`arrays_of` gave.

    Raises
    ------
    ValueError
        If it is the state of another kind of optimizer, or of another network.
    """
    if isinstance(optimizer, FlatAdam):
        optimizer.set_state(state)
        return
    kind = type(optimizer).__name__
    if state.get("type") != kind or "param_groups" not in state:
        raise ValueError(
            f"The state is of the optimizer {state.get('type')!r}, this learner has {kind!r}. Restore it with the "
            "`optimizer` it was saved with."
        )
    optimizer.load_state_dict(
        {
            "state": {int(index): _tensors(entry, device) for index, entry in state["state"].items()},
            "param_groups": state["param_groups"],
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy().copy()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _tensors(value: Any, device: torch.device) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()).to(device)
    if isinstance(value, dict):
        return {key: _tensors(each, device) for key, each in value.items()}
    return value

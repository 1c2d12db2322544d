"""What a module needs for learning with a value function."""

from __future__ import annotations

import abc
from typing import Any

__all__ = ["ValueFunctionAPI"]


class ValueFunctionAPI(abc.ABC):
    """A module that estimates values of observations. PPO requires it of custom modules."""

    @abc.abstractmethod
    def compute_values(self, batch: dict[str, Any], embeddings: Any | None = None) -> Any:
        """Estimate the value of each observation.

        Parameters
        ----------
        batch : dict
            As ``_forward_train`` gets it: ``"obs"`` of shape (B, ...), or (B, T, ...) with ``"state_in"`` for modules
            with state.
        embeddings : object, optional
            What ``_forward_train`` returned as ``"embeddings"`` for this batch, to save a second pass.

        Returns
        -------
        Tensor of shape (B,) or (B, T)
        """

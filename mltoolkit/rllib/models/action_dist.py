"""Action distributions of older custom models."""

from __future__ import annotations

from typing import Any

__all__ = ["ActionDistribution"]


class ActionDistribution:
    """A distribution over actions, built from a model's outputs.

    Parameters
    ----------
    inputs : Tensor of shape (B, K)
        What the model computed.
    model : ModelV2
        The model itself.
    """

    def __init__(self, inputs: Any, model: Any) -> None:
        self.inputs = inputs
        self.model = model

    def sample(self) -> Any:
        """Draw actions."""
        raise NotImplementedError(f"`{type(self).__name__}` must implement `sample()`.")

    def deterministic_sample(self) -> Any:
        """Return the most probable actions."""
        raise NotImplementedError(f"`{type(self).__name__}` must implement `deterministic_sample()`.")

    def sampled_action_logp(self) -> Any:
        """Return the log-probability of the last sample."""
        raise NotImplementedError(f"`{type(self).__name__}` must implement `sampled_action_logp()`.")

    def logp(self, x: Any) -> Any:
        """Return the log-probability of actions."""
        raise NotImplementedError(f"`{type(self).__name__}` must implement `logp(x)`.")

    def kl(self, other: Any) -> Any:
        """Return the divergence KL(self || other)."""
        raise NotImplementedError(f"`{type(self).__name__}` must implement `kl(other)`.")

    def entropy(self) -> Any:
        """Return the entropy."""
        raise NotImplementedError(f"`{type(self).__name__}` must implement `entropy()`.")

    def multi_kl(self, other: Any) -> Any:
        """Return the divergence per component."""
        return self.kl(other)

    def multi_entropy(self) -> Any:
        """Return the entropy per component."""
        return self.entropy()

    @staticmethod
    def required_model_output_shape(action_space: Any, model_config: dict[str, Any]) -> Any:
        """How many outputs the model needs for ``action_space``."""
        raise NotImplementedError(
            "A custom action distribution must implement `required_model_output_shape(action_space, model_config)`."
        )

"""Action distributions of older custom models, to use or to derive from."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.distributions.kl import kl_divergence

from mltoolkit.rllib.core.distribution import torch_distribution as ours
from mltoolkit.rllib.core.distribution._layout import action_layout
from mltoolkit.rllib.models.action_dist import ActionDistribution

__all__ = [
    "TorchBeta",
    "TorchCategorical",
    "TorchDeterministic",
    "TorchDiagGaussian",
    "TorchDistributionWrapper",
    "TorchMultiCategorical",
    "TorchSquashedGaussian",
]


class TorchDistributionWrapper(ActionDistribution):
    """Base class of distributions that keep one of ``torch.distributions`` in ``self.dist``.

    Parameters
    ----------
    inputs : Tensor of shape (B, K)
    model : TorchModelV2
    """

    dist: Any

    def __init__(self, inputs: Any, model: Any) -> None:
        super().__init__(inputs if isinstance(inputs, Tensor) else torch.as_tensor(inputs), model)
        self.last_sample: Any = None

    def logp(self, actions: Any) -> Any:
        """Return the log-probability of actions."""
        return self.dist.log_prob(actions)

    def entropy(self) -> Any:
        """Return the entropy."""
        return self.dist.entropy()

    def kl(self, other: Any) -> Any:
        """Return the divergence KL(self || other)."""
        return kl_divergence(self.dist, other.dist)

    def sample(self) -> Any:
        """Draw actions."""
        self.last_sample = self.dist.sample()
        return self.last_sample

    def sampled_action_logp(self) -> Any:
        """Return the log-probability of the last sample."""
        if self.last_sample is None:
            raise RuntimeError("There is no sample yet: call `sample()` first.")
        return self.logp(self.last_sample)


class _Known(TorchDistributionWrapper):
    """One of the usual distributions; ``self.dist`` is its newer form."""

    dist: ours.TorchDistribution

    def logp(self, actions: Any) -> Any:
        """Return the log-probability of actions."""
        return self.dist.logp(actions)

    def kl(self, other: Any) -> Any:
        """Return the divergence KL(self || other)."""
        return self.dist.kl(other.dist)

    def deterministic_sample(self) -> Any:
        """Return the most probable actions."""
        self.last_sample = self.dist.mode()
        return self.last_sample

    @staticmethod
    def required_model_output_shape(action_space: Any, model_config: dict[str, Any]) -> int:
        """How many outputs the model needs for ``action_space``."""
        return action_layout(action_space).num_inputs


class TorchCategorical(_Known):
    """One choice; ``temperature`` divides the logits."""

    def __init__(self, inputs: Any, model: Any = None, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise ValueError(f"`temperature` must be > 0, got {temperature!r}.")
        super().__init__(inputs if temperature == 1.0 else inputs / temperature, model)
        self.dist = ours.TorchCategorical(self.inputs)


class TorchMultiCategorical(_Known):
    """Several choices, of ``input_lens`` logits each."""

    def __init__(self, inputs: Any, model: Any, input_lens: Any, action_space: Any = None) -> None:
        super().__init__(inputs, model)
        layout = None if action_space is None else action_layout(action_space)
        starts, shape = (None, None) if layout is None else (layout.starts, layout.shape)
        self.dist = ours.TorchMultiCategorical(self.inputs, input_lens, starts, shape)


class TorchDiagGaussian(_Known):
    """Independent normal distributions, from means and then logarithms of standard deviations."""

    def __init__(self, inputs: Any, model: Any, *, action_space: Any = None) -> None:
        super().__init__(inputs, model)
        shape = None if action_space is None else tuple(action_space.shape)
        self.dist = ours.TorchDiagGaussian.from_logits(self.inputs, action_shape=shape)


class TorchSquashedGaussian(_Known):
    """The hyperbolic tangent of a Gaussian, scaled to [low, high]."""

    def __init__(self, inputs: Any, model: Any, low: float = -1.0, high: float = 1.0) -> None:
        if not low < high:
            raise ValueError(f"`low` must be below `high`, got {low!r} and {high!r}.")
        super().__init__(inputs, model)
        self.low, self.high = low, high
        self.dist = ours.TorchSquashedGaussian.from_logits(self.inputs)

    @property
    def _half(self) -> float:
        return 0.5 * (self.high - self.low)

    def sample(self) -> Any:
        """Draw actions."""
        self.last_sample = (self.dist.sample() + 1.0) * self._half + self.low
        return self.last_sample

    def deterministic_sample(self) -> Any:
        """Return the squashed means."""
        self.last_sample = (self.dist.mode() + 1.0) * self._half + self.low
        return self.last_sample

    def logp(self, actions: Any) -> Any:
        """Return the log-density of actions."""
        squashed = (actions - self.low) / self._half - 1.0
        return self.dist.logp(squashed) - squashed.shape[-1] * math.log(self._half)

    def entropy(self) -> Any:
        """Return the entropy, integrated numerically."""
        return self.dist.entropy() + self.inputs.shape[-1] // 2 * math.log(self._half)


class TorchBeta(TorchDistributionWrapper):
    """Independent Beta distributions over [low, high], from inputs for alpha and then beta, both made > 1."""

    def __init__(self, inputs: Any, model: Any, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(inputs, model)
        if not low < high:
            raise ValueError(f"`low` must be below `high`, got {low!r} and {high!r}.")
        self.low, self.high = low, high
        alpha, beta = (torch.nn.functional.softplus(self.inputs) + 1.0).chunk(2, -1)
        self.dist = Beta(alpha, beta)

    def sample(self) -> Any:
        """Draw actions."""
        self.last_sample = self.dist.sample() * (self.high - self.low) + self.low
        return self.last_sample

    def deterministic_sample(self) -> Any:
        """Return the means."""
        self.last_sample = self.dist.mean * (self.high - self.low) + self.low
        return self.last_sample

    def logp(self, actions: Any) -> Any:
        """Return the log-density of actions."""
        scale = self.high - self.low
        unit = ((actions - self.low) / scale).clamp(1e-6, 1.0 - 1e-6)
        return (self.dist.log_prob(unit) - math.log(scale)).sum(-1)

    def entropy(self) -> Any:
        """Return the entropy."""
        return (self.dist.entropy() + math.log(self.high - self.low)).sum(-1)

    def kl(self, other: Any) -> Any:
        """Return the divergence KL(self || other)."""
        return kl_divergence(self.dist, other.dist).sum(-1)

    @staticmethod
    def required_model_output_shape(action_space: Any, model_config: dict[str, Any]) -> int:
        """How many outputs the model needs for ``action_space``."""
        return 2 * math.prod(action_space.shape)


class TorchDeterministic(TorchDistributionWrapper):
    """The model's outputs are the actions."""

    def sample(self) -> Any:
        """Return the actions."""
        return self.inputs

    def deterministic_sample(self) -> Any:
        """Return the actions."""
        return self.inputs

    def sampled_action_logp(self) -> Any:
        """Return zeros."""
        return self.inputs.new_zeros(len(self.inputs))

    @staticmethod
    def required_model_output_shape(action_space: Any, model_config: dict[str, Any]) -> int:
        """How many outputs the model needs for ``action_space``."""
        return math.prod(action_space.shape)

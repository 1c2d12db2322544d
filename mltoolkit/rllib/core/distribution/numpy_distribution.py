"""Action distributions in numpy: what environment runners sample from, so that they need no torch.

Each has a twin in :mod:`mltoolkit.rllib.core.distribution.torch_distribution` that computes the same numbers.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.core.distribution._layout import (
    QUADRATURE_NODES,
    QUADRATURE_WEIGHTS,
    SQUASH_LIMIT,
    ActionLayout,
    action_layout,
    padding_index,
)

if TYPE_CHECKING:
    from gymnasium.spaces import Space
    from numpy.typing import NDArray

__all__ = [
    "NumpyCategorical",
    "NumpyDiagGaussian",
    "NumpyDistribution",
    "NumpyMultiCategorical",
    "NumpySquashedGaussian",
    "make_numpy_distribution",
]

_LOG_2PI = math.log(2 * math.pi)
_LOWEST = float(np.finfo(np.float32).min)


class NumpyDistribution(abc.ABC):
    """The distribution of actions given a policy's outputs; holds no batch itself, so one object serves all steps.

    Parameters
    ----------
    layout : ActionLayout
        From :func:`action_layout`.

    Attributes
    ----------
    num_inputs : int
        K, the policy's outputs per action.
    action_shape : tuple of int
        Shape of one action.
    action_dtype : numpy.dtype
        Data type of the actions.
    """

    def __init__(self, layout: ActionLayout) -> None:
        self.layout = layout
        self.num_inputs = layout.num_inputs
        self.action_shape = layout.shape
        self.action_dtype = np.dtype(layout.dtype)

    @abc.abstractmethod
    def sample(self, inputs: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw one action per row.

        Parameters
        ----------
        inputs : ndarray of shape (N, K), dtype=float32
        rng : numpy.random.Generator

        Returns
        -------
        actions : ndarray of shape (N, *action_shape)
        logp : ndarray of shape (N,)
            Their log-probabilities, as :meth:`logp` would give them.
        """

    @abc.abstractmethod
    def mode(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Most probable action of each row; of a squashed Gaussian the squashed mean."""

    @abc.abstractmethod
    def logp(self, inputs: NDArray[Any], actions: NDArray[Any]) -> NDArray[Any]:
        """Log-probability (density) of ``actions``, shape (...,), for inputs of shape (..., K)."""

    @abc.abstractmethod
    def entropy(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Entropy in nats, shape (...,)."""

    @abc.abstractmethod
    def kl(self, inputs: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        """Kullback-Leibler divergence KL(inputs || other) in nats, shape (...,)."""


class NumpyCategorical(NumpyDistribution):
    """One choice out of ``n``, given its logits.

    Examples
    --------
    >>> from gymnasium.spaces import Discrete
    >>> distribution = make_numpy_distribution(Discrete(3))
    >>> distribution.mode(np.array([[0.0, 2.0, 1.0]], np.float32))
    array([1])
    """

    def __init__(self, layout: ActionLayout) -> None:
        super().__init__(layout)
        self._start = layout.starts[0]

    def sample(self, inputs: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw one action per row."""
        if self.num_inputs == 2:
            actions, logp = _sample_two(inputs, rng)
        else:
            actions, logp = _sample_choice(inputs, rng)
        if self._start:
            actions += self._start
        return actions, logp

    def mode(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the most probable action of each row."""
        actions: NDArray[Any] = inputs.argmax(-1)
        return actions + self._start if self._start else actions

    def logp(self, inputs: NDArray[Any], actions: NDArray[Any]) -> NDArray[Any]:
        """Return the log-probability of actions, in nats."""
        index = actions.astype(np.int64)
        if self._start:
            index -= self._start
        result: NDArray[Any] = np.take_along_axis(_log_softmax(inputs), index[..., None], -1)[..., 0]
        return result

    def entropy(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the entropy in nats."""
        return _categorical_entropy(inputs)

    def kl(self, inputs: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        """Return the divergence KL(inputs || other) in nats."""
        return _categorical_kl(inputs, other)


class NumpyMultiCategorical(NumpyDistribution):
    """Several independent choices, given their logits side by side."""

    def __init__(self, layout: ActionLayout) -> None:
        super().__init__(layout)
        self._table = (len(layout.sizes), max(layout.sizes))
        self._padding = padding_index(layout.sizes)
        self._starts = np.array(layout.starts) if any(layout.starts) else None

    def sample(self, inputs: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw one action per row."""
        components, size = self._table
        index, logp = _sample_choice(self._logits(inputs).reshape(-1, size), rng)
        return self._actions(index.reshape(-1, components)), logp.reshape(-1, components).sum(-1)

    def mode(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the most probable action of each row."""
        return self._actions(self._logits(inputs).argmax(-1))

    def logp(self, inputs: NDArray[Any], actions: NDArray[Any]) -> NDArray[Any]:
        """Return the log-probability of actions, in nats."""
        logits = self._logits(inputs)
        index = actions.astype(np.int64).reshape(logits.shape[:-1])
        if self._starts is not None:
            index -= self._starts
        result: NDArray[Any] = np.take_along_axis(_log_softmax(logits), index[..., None], -1)[..., 0].sum(-1)
        return result

    def entropy(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the entropy in nats."""
        result: NDArray[Any] = _categorical_entropy(self._logits(inputs)).sum(-1)
        return result

    def kl(self, inputs: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        """Return the divergence KL(inputs || other) in nats."""
        result: NDArray[Any] = _categorical_kl(self._logits(inputs), self._logits(other)).sum(-1)
        return result

    def _logits(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the logits as (..., components, largest size); cells that are no choice have probability 0."""
        if self._padding is not None:
            index, valid = self._padding
            table = inputs[..., index].reshape(*inputs.shape[:-1], *self._table)
            result: NDArray[Any] = np.where(valid, table, np.asarray(_LOWEST, inputs.dtype))
            return result
        return inputs.reshape(*inputs.shape[:-1], *self._table)

    def _actions(self, index: NDArray[Any]) -> NDArray[Any]:
        if self._starts is not None:
            index = index + self._starts
        return index if len(self.action_shape) == 1 else index.reshape(*index.shape[:-1], *self.action_shape)


class NumpyDiagGaussian(NumpyDistribution):
    """Independent normal distributions; the inputs are all means, then the logarithms of all standard deviations."""

    def __init__(self, layout: ActionLayout) -> None:
        super().__init__(layout)
        self._size = layout.num_inputs // 2
        self._constant = 0.5 * self._size * _LOG_2PI

    def sample(self, inputs: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw one action per row."""
        size = self._size
        log_std = inputs[:, size:]
        noise = rng.standard_normal((len(inputs), size), dtype=np.float32)
        actions = np.exp(log_std)
        actions *= noise
        actions += inputs[:, :size]
        noise *= noise
        noise *= -0.5
        noise -= log_std
        logp = np.add.reduce(noise, axis=-1)
        logp -= self._constant
        return self._shaped(actions), logp

    def mode(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the most probable action of each row."""
        return self._shaped(inputs[..., : self._size].copy())

    def logp(self, inputs: NDArray[Any], actions: NDArray[Any]) -> NDArray[Any]:
        """Return the log-probability of actions, in nats."""
        mean, log_std = inputs[..., : self._size], inputs[..., self._size :]
        z = (actions.reshape(mean.shape) - mean) * np.exp(-log_std)
        result: NDArray[Any] = -(0.5 * z * z + log_std).sum(-1) - self._constant
        return result

    def entropy(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the entropy in nats."""
        result: NDArray[Any] = inputs[..., self._size :].sum(-1) + (self._constant + 0.5 * self._size)
        return result

    def kl(self, inputs: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        """Return the divergence KL(inputs || other) in nats."""
        mean, log_std = inputs[..., : self._size], inputs[..., self._size :]
        delta = log_std - other[..., self._size :]
        z = (mean - other[..., : self._size]) * np.exp(-other[..., self._size :])
        # exp(2d) - 1 - 2d by expm1: no cancellation between two almost equal distributions
        result: NDArray[Any] = 0.5 * (np.expm1(2 * delta) - 2 * delta + z * z).sum(-1)
        return result

    def _shaped(self, actions: NDArray[Any]) -> NDArray[Any]:
        return actions if len(self.action_shape) == 1 else actions.reshape(*actions.shape[:-1], *self.action_shape)


class NumpySquashedGaussian(NumpyDiagGaussian):
    """The hyperbolic tangent of a diagonal Gaussian: actions in [-1, 1].

    ``logp`` contains the exact correction for the change of variables, ``- sum log(1 - a^2)``. The divergence equals
    that of the Gaussians, since both are squashed alike. The entropy has no closed form; it is integrated numerically
    (Gauss-Hermite), without sampling.

    References
    ----------
    Haarnoja et al., Soft Actor-Critic, arXiv:1801.01290, Appendix C.
    """

    def sample(self, inputs: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw one action per row."""
        size = self._size
        actions = np.exp(inputs[:, size:])
        actions *= rng.standard_normal((len(inputs), size), dtype=np.float32)
        actions += inputs[:, :size]
        np.tanh(actions, out=actions)
        np.minimum(actions, SQUASH_LIMIT, out=actions)
        np.maximum(actions, -SQUASH_LIMIT, out=actions)
        # From the rounded action, not from the noise: a learner that is given the action finds this very value.
        return self._shaped(actions), self.logp(inputs, actions)

    def mode(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the most probable action of each row."""
        actions = np.tanh(inputs[..., : self._size])
        return self._shaped(np.clip(actions, -SQUASH_LIMIT, SQUASH_LIMIT))

    def logp(self, inputs: NDArray[Any], actions: NDArray[Any]) -> NDArray[Any]:
        """Return the log-probability of actions, in nats."""
        mean, log_std = inputs[..., : self._size], inputs[..., self._size :]
        squashed = np.clip(actions.reshape(mean.shape), -SQUASH_LIMIT, SQUASH_LIMIT)
        upper, lower = np.log1p(squashed), np.log1p(-squashed)
        z = (0.5 * (upper - lower) - mean) * np.exp(-log_std)
        result: NDArray[Any] = -(0.5 * z * z + log_std + upper + lower).sum(-1) - self._constant
        return result

    def entropy(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the entropy in nats."""
        mean, log_std = inputs[..., : self._size], inputs[..., self._size :]
        u = mean[..., None] + np.exp(log_std)[..., None] * QUADRATURE_NODES
        size = np.abs(u)
        log_slope = (2.0 * (math.log(2.0) - size - np.log1p(np.exp(-2.0 * size)))) @ QUADRATURE_WEIGHTS
        result: NDArray[Any] = super().entropy(inputs) + log_slope.sum(-1)
        return result


def make_numpy_distribution(action_space: Space[Any], *, squash: bool = False) -> NumpyDistribution:
    """Return the distribution over the actions of ``action_space``.

    Parameters
    ----------
    action_space : gymnasium.spaces.Discrete, MultiDiscrete, MultiBinary or Box
        Actions are in the space's own numbers (``Discrete(n, start=...)`` included); continuous ones are unbounded,
        or in [-1, 1] with ``squash``: the caller scales them to the space's bounds.
    squash : bool, default=False
        For a Box of floats: a Gaussian squashed by tanh.

    Raises
    ------
    ValueError
        If the space is of another kind.
    """
    layout = action_layout(action_space, squash=squash)
    return _CLASSES[layout.kind](layout)


_CLASSES: dict[str, type[NumpyDistribution]] = {
    "categorical": NumpyCategorical,
    "multi_categorical": NumpyMultiCategorical,
    "gaussian": NumpyDiagGaussian,
    "squashed_gaussian": NumpySquashedGaussian,
}


def _sample_two(logits: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw one of two choices: half the cost of the general way, and the most common case of all."""
    margin = logits[:, 1] - logits[:, 0]
    odds = np.exp(np.minimum(-margin, 80.0))  # beyond 80 float32 would overflow, and the odds are nil anyway
    odds += 1.0
    actions = rng.random(len(logits)) * odds < 1.0
    return actions.astype(np.int64), -np.logaddexp(np.float32(0.0), np.where(actions, -margin, margin))


def _sample_choice(logits: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw one choice per row by inverting its cumulative distribution."""
    shifted = logits - np.maximum.reduce(logits, axis=-1, keepdims=True)
    cumulative = np.add.accumulate(np.exp(shifted), axis=-1)
    total = cumulative[:, -1]
    threshold = rng.random(len(logits)) * total
    # `<=` and u < 1: a choice of probability 0 is never drawn, the last one included
    actions = np.add.reduce(cumulative <= threshold[:, None], axis=-1, dtype=np.int64)
    return actions, shifted[np.arange(len(logits)), actions] - np.log(total)


def _log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shifted = logits - np.maximum.reduce(logits, axis=-1, keepdims=True)
    result: NDArray[Any] = shifted - np.log(np.add.reduce(np.exp(shifted), axis=-1, keepdims=True))
    return result


def _categorical_entropy(logits: NDArray[Any]) -> NDArray[Any]:
    log_p = np.maximum(_log_softmax(logits), _LOWEST)  # a logit of -inf: probability 0 times a finite number
    result: NDArray[Any] = -(np.exp(log_p) * log_p).sum(-1)
    return result


def _categorical_kl(logits: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    log_p = np.maximum(_log_softmax(logits), _LOWEST)
    log_q = np.maximum(_log_softmax(other), _LOWEST)
    p = np.exp(log_p)
    # Where p is 0 the term is 0, even if the difference of the two overflows.
    result: NDArray[Any] = (p * np.subtract(log_p, log_q, where=p > 0, out=np.zeros_like(p))).sum(-1)
    return result

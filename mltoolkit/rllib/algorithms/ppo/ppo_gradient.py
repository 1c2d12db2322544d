"""Gradients of PPO's loss with respect to what a policy and a value function return, in closed form."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.distribution._layout import ActionLayout

__all__ = ["Coefficients", "PolicyGradient", "make_policy_gradient", "value_gradient"]

Array: TypeAlias = NDArray[Any]

_LOG_2PI = math.log(2 * math.pi)
_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Coefficients:
    """What weighs the parts of the loss during one update."""

    clip_param: float
    entropy_coeff: float
    kl_coeff: float
    use_kl_loss: bool
    vf_loss_coeff: float
    vf_clip_param: float


class PolicyGradient(abc.ABC):
    """The policy's part of the loss for one kind of action distribution.

    Arrays of actions and distributions are laid out with steps on the last axis, so that sums over the few choices
    or dimensions of an action run over long rows.
    """

    old_columns: tuple[str, ...]
    """What :meth:`prepare` adds to the columns of a batch."""

    @abc.abstractmethod
    def prepare(self, columns: dict[str, Array]) -> dict[str, Array]:
        """Columns, one row a step, of what depends on the old policy and the actions alone."""

    @abc.abstractmethod
    def logp(self, inputs: Array, columns: dict[str, Array]) -> Array:
        """Log-probability of the actions, shape (B,), for inputs of shape (K, B)."""

    @abc.abstractmethod
    def backward(self, weight: Array, columns: dict[str, Array], entropy: float, kl: float) -> Array:
        """Gradient with respect to the inputs of the last :meth:`logp`, shape (K, B).

        Parameters
        ----------
        weight : ndarray of shape (B,)
            Gradient with respect to each log-probability.
        entropy, kl : float
            Gradients with respect to each entropy and divergence.
        """

    @abc.abstractmethod
    def entropy(self) -> Array:
        """Entropy at the last :meth:`logp`, shape (B,)."""

    @abc.abstractmethod
    def kl(self, columns: dict[str, Array]) -> Array:
        """Divergence of the last :meth:`logp`'s policy from the old one, KL(old || new), shape (B,)."""

    def surrogate(self, columns: dict[str, Array], coefficients: Coefficients) -> Array:
        """The clipped objective of the paper's equation 7 at the last :meth:`logp`, shape (B,)."""
        advantages, clip = columns[Columns.ADVANTAGES], coefficients.clip_param
        return np.minimum(advantages * self._ratio, advantages * self._ratio.clip(1.0 - clip, 1.0 + clip))

    def gradient(self, inputs: Array, columns: dict[str, Array], coefficients: Coefficients) -> Array:
        """Gradient of the mean loss with respect to the policy's outputs.

        Parameters
        ----------
        inputs : ndarray of shape (K, B)
            Inputs of the action distribution.
        columns : dict of str to ndarray of shape (B, ...)
            A minibatch.
        coefficients : Coefficients

        Returns
        -------
        ndarray of shape (K, B)
        """
        count, clip = len(columns[Columns.ACTION_LOGP]), coefficients.clip_param
        advantages = columns[Columns.ADVANTAGES]
        logp = self.logp(inputs, columns)
        np.subtract(logp, columns[Columns.ACTION_LOGP], out=logp)
        ratio = self._ratio = np.exp(logp, out=logp)
        # The objective is flat where the policy has moved beyond the clip range in the direction of the advantage.
        moving = np.where(advantages > 0, ratio <= 1.0 + clip, ratio >= 1.0 - clip)
        weight = advantages * ratio
        np.multiply(weight, moving, out=weight)
        np.multiply(weight, np.float32(-1.0 / count), out=weight)
        kl = coefficients.kl_coeff / count if coefficients.use_kl_loss else 0.0
        return self.backward(weight, columns, -coefficients.entropy_coeff / count, kl)


class CategoricalGradient(PolicyGradient):
    """One or several independent choices."""

    old_columns = ("old_probs", "old_negative_entropy", "choices")

    def __init__(self, layout: ActionLayout) -> None:
        self._starts = np.array(layout.starts)
        ends = np.cumsum(layout.sizes)
        self._parts = [slice(int(end - size), int(end)) for size, end in zip(layout.sizes, ends, strict=True)]
        # Choices as indices of the rows of all components.
        self._first = np.array([part.start for part in self._parts])
        self._steps: NDArray[np.intp] = np.arange(0)

    def prepare(self, columns: dict[str, Array]) -> dict[str, Array]:
        """Columns, one row a step, of what depends on the old policy and the actions alone."""
        old = np.ascontiguousarray(columns[Columns.ACTION_DIST_INPUTS].T, np.float32)
        log_probs, probs = self._softmax(old)
        actions = columns[Columns.ACTIONS].reshape(len(columns[Columns.ACTION_LOGP]), -1).astype(np.intp)
        return {
            "old_probs": probs.T,
            "old_negative_entropy": (probs * log_probs).sum(0),
            "choices": actions - self._starts + self._first,
        }

    def _softmax(self, logits: Array) -> tuple[Array, Array]:
        log_probs, probs = np.empty_like(logits), np.empty_like(logits)
        for part in self._parts:
            rows = logits[part]
            shifted = np.subtract(rows, np.maximum.reduce(rows, 0), out=log_probs[part])
            exps = np.exp(shifted, out=probs[part])
            total = np.add.reduce(exps, 0)
            np.divide(exps, total, out=exps)
            np.subtract(shifted, np.log(total, out=total), out=shifted)
        # 0 * -inf is no number; a choice that is forbidden adds nothing to any sum.
        np.maximum(log_probs, np.float32(_LOWEST / 4), out=log_probs)
        return log_probs, probs

    def logp(self, inputs: Array, columns: dict[str, Array]) -> Array:
        """Log-probability of the actions, shape (B,), for inputs of shape (K, B)."""
        self._log_probs, self._probs = self._softmax(inputs)
        if len(self._steps) != inputs.shape[1]:
            self._steps = np.arange(inputs.shape[1])
        choices = columns["choices"]
        logp: Array = self._log_probs[choices[:, 0], self._steps]
        for component in range(1, choices.shape[1]):
            logp += self._log_probs[choices[:, component], self._steps]
        return logp

    def backward(self, weight: Array, columns: dict[str, Array], entropy: float, kl: float) -> Array:
        """Gradient with respect to the inputs of the last :meth:`logp`, shape (K, B)."""
        # Of log p[a]: 1[a] - p. Of the entropy H: -p (log p + H). Of KL(old || new): p - p_old.
        gradient = np.empty_like(self._probs)
        if entropy:
            for part in self._parts:
                rows, probs = self._log_probs[part], self._probs[part]
                negative = np.add.reduce(probs * rows, 0)
                np.subtract(negative, rows, out=gradient[part])
            np.multiply(gradient, np.float32(entropy), out=gradient)
            np.add(gradient, np.float32(kl) - weight, out=gradient)
        else:
            gradient[:] = np.float32(kl) - weight
        np.multiply(gradient, self._probs, out=gradient)
        if kl:
            np.subtract(gradient, columns["old_probs"].T * np.float32(kl), out=gradient)
        choices = columns["choices"]
        for component in range(choices.shape[1]):
            gradient[choices[:, component], self._steps] += weight
        return gradient

    def entropy(self) -> Array:
        """Entropy at the last :meth:`logp`, shape (B,)."""
        return -(self._probs * self._log_probs).sum(0)

    def kl(self, columns: dict[str, Array]) -> Array:
        """KL(old || new) at the last :meth:`logp`, shape (B,)."""
        return columns["old_negative_entropy"] - (columns["old_probs"].T * self._log_probs).sum(0)


class DiagGaussianGradient(PolicyGradient):
    """Independent normal distributions: means, then logarithms of standard deviations."""

    old_columns = ("old_inputs", "flat_actions")

    def __init__(self, layout: ActionLayout) -> None:
        self._size = layout.num_inputs // 2

    def prepare(self, columns: dict[str, Array]) -> dict[str, Array]:
        """Columns, one row a step, of what depends on the old policy and the actions alone."""
        actions = columns[Columns.ACTIONS]
        return {
            "old_inputs": columns[Columns.ACTION_DIST_INPUTS].astype(np.float32, copy=False),
            "flat_actions": actions.reshape(len(actions), -1).astype(np.float32, copy=False),
        }

    def logp(self, inputs: Array, columns: dict[str, Array]) -> Array:
        """Log-probability of the actions, shape (B,), for inputs of shape (K, B)."""
        self._mean, self._log_std = inputs[: self._size], inputs[self._size :]
        self._precision = np.exp(-self._log_std)  # root of it
        self._z = (columns["flat_actions"].T - self._mean) * self._precision
        self._squares = self._z * self._z
        total = np.add.reduce(np.float32(0.5) * self._squares + self._log_std, 0)
        return np.subtract(np.float32(-0.5 * _LOG_2PI * self._size), total, out=total)

    def backward(self, weight: Array, columns: dict[str, Array], entropy: float, kl: float) -> Array:
        """Gradient with respect to the inputs of the last :meth:`logp`, shape (K, B)."""
        # Of log p: z / std and z^2 - 1. Of the entropy: 0 and 1. Of KL(old || new): (mean - old mean) / std^2 and
        # 1 - (old std^2 + (mean - old mean)^2) / std^2.
        gradient: Array = np.empty((2 * self._size, len(weight)), np.float32)
        means, log_stds = gradient[: self._size], gradient[self._size :]
        np.multiply(self._z, self._precision, out=means)
        np.multiply(means, weight, out=means)
        np.subtract(self._squares, np.float32(1), out=log_stds)
        np.multiply(log_stds, weight, out=log_stds)
        if kl:
            distance, ratio = self._from_old(columns)
            means += np.float32(kl) * distance * self._precision
            log_stds += np.float32(kl) * (np.float32(1) - np.exp(ratio) - distance * distance)
        if entropy:
            log_stds += np.float32(entropy)
        return gradient

    def _from_old(self, columns: dict[str, Array]) -> tuple[Array, Array]:
        """(mean - old mean) / std and log(old variance / variance)."""
        old = columns["old_inputs"].T
        distance = (self._mean - old[: self._size]) * self._precision
        return distance, np.float32(2) * (old[self._size :] - self._log_std)

    def entropy(self) -> Array:
        """Entropy at the last :meth:`logp`, shape (B,)."""
        result: Array = self._log_std.sum(0) + np.float32(0.5 * (_LOG_2PI + 1.0) * self._size)
        return result

    def kl(self, columns: dict[str, Array]) -> Array:
        """KL(old || new) at the last :meth:`logp`, shape (B,)."""
        distance, ratio = self._from_old(columns)
        # By expm1: no digits are lost between two almost equal distributions.
        result: Array = np.float32(0.5) * (np.expm1(ratio) - ratio + distance * distance).sum(0)
        return result


def make_policy_gradient(layout: ActionLayout) -> PolicyGradient | None:
    """The closed form for an action space; None for squashed Gaussians, whose entropy has none."""
    if layout.kind in ("categorical", "multi_categorical"):
        return CategoricalGradient(layout)
    return DiagGaussianGradient(layout) if layout.kind == "gaussian" else None


def value_gradient(errors: Array, coefficients: Coefficients) -> Array:
    """Gradient of the value function's mean loss with respect to its values.

    Parameters
    ----------
    errors : ndarray of shape (B,)
        Values minus targets.
    coefficients : Coefficients
    """
    bounded = np.abs(errors) <= np.float32(coefficients.vf_clip_param**0.5)
    return np.multiply(errors, bounded) * np.float32(2.0 * coefficients.vf_loss_coeff / len(errors))

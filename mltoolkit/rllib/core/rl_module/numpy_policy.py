"""A multilayer perceptron as data, and its forward pass in numpy.

Processes that only step environments run their policy with this: importing torch takes seconds, and on the few rows of
a vector environment a torch operation costs more than its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ACTIVATIONS", "MLPDescription", "NumpyPolicy", "describe"]


@dataclass(frozen=True)
class MLPDescription:
    """A policy network that is a plain multilayer perceptron, without its weights.

    Attributes
    ----------
    layers : tuple of (str, str, str)
        Per dense layer: the names of its weight, of shape (outputs, inputs), and bias in the weights, and its activation,
        one of ACTIVATIONS.
    num_inputs : int
        Numbers per observation.
    num_outputs : int
        K, the inputs of the action distribution.
    log_std : str or None
        Name of the logarithms of standard deviations among the weights, where these are parameters of their own.
    log_std_clip : float or None
        For continuous actions, the bound of the logarithms of standard deviations; None for no bound.
    squash : bool
        Whether the action distribution is a squashed Gaussian.
    """

    layers: tuple[tuple[str, str, str], ...]
    num_inputs: int
    num_outputs: int
    log_std: str | None = None
    log_std_clip: float | None = None
    squash: bool = False


def describe(module: Any) -> MLPDescription | None:
    """Describe the policy network of ``module``.

    Parameters
    ----------
    module : RLModule

    Returns
    -------
    MLPDescription or None
        None if the network is anything else than a plain multilayer perceptron with known activations, has state, or
        belongs to a class of the user's own.
    """
    describe_policy = getattr(type(module), "describe_policy", None)
    return None if describe_policy is None else describe_policy(module)


class NumpyPolicy:
    """The forward pass of a described network.

    Parameters
    ----------
    description : MLPDescription

    Examples
    --------
    >>> policy = NumpyPolicy(MLPDescription(layers=(("w", "b", "relu"),), num_inputs=2, num_outputs=1))
    >>> policy.set_weights({"w": np.array([[1.0, 2.0]]), "b": np.array([-1.0])})
    >>> policy(np.array([[1.0, 1.0], [0.0, 0.0]], np.float32))
    array([[2.],
           [0.]], dtype=float32)
    """

    def __init__(self, description: MLPDescription) -> None:
        self.description = description
        self._activations = [_activation(name) for _, _, name in description.layers]
        self._clip = description.log_std_clip
        self._weights: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._log_std: NDArray[Any] | None = None
        self._rows = -1
        self._hidden: list[
            tuple[NDArray[Any], NDArray[Any], Callable[[NDArray[Any]], object] | None, NDArray[Any]]
        ] = []
        self._result: NDArray[Any] = np.empty((0, description.num_outputs), np.float32)

    def set_weights(self, weights: dict[str, Any]) -> None:
        """Take over weights, by copy.

        Parameters
        ----------
        weights : dict of str to ndarray
            Those named in the description; others are left alone.

        Raises
        ------
        KeyError
            If one is missing.
        """
        names = {name for weight, bias, _ in self.description.layers for name in (weight, bias)}
        if self.description.log_std is not None:
            names.add(self.description.log_std)
        missing = sorted(names - weights.keys())
        if missing:
            raise KeyError(f"The weights lack {missing}; they have {sorted(weights)}.")
        self._weights = [
            (np.array(np.asarray(weights[weight]).T, np.float32, order="C"), np.array(weights[bias], np.float32))
            for weight, bias, _ in self.description.layers
        ]
        if self.description.log_std is not None:
            log_std = np.array(weights[self.description.log_std], np.float32)
            self._log_std = log_std if self._clip is None else np.clip(log_std, -self._clip, self._clip)
        self._rows = -1

    def __call__(self, obs: NDArray[Any]) -> NDArray[Any]:
        """Compute the inputs of the action distribution.

        Parameters
        ----------
        obs : ndarray of shape (N, ...)
            Observations; all but float32 is converted.

        Returns
        -------
        ndarray of shape (N, num_outputs), dtype=float32
            A buffer that the next call overwrites: copy what is to be kept.

        Raises
        ------
        RuntimeError
            If :meth:`set_weights` has not been called.
        """
        rows = len(obs)
        if rows != self._rows:
            self._allocate(rows)
        x = obs if obs.ndim == 2 else obs.reshape(rows, self.description.num_inputs)
        if x.dtype != np.float32:
            x = x.astype(np.float32)
        for weight, bias, activation, buffer in self._hidden:
            np.dot(x, weight, out=buffer)
            buffer += bias
            if activation is not None:
                activation(buffer)
            x = buffer
        result = self._result
        if self._log_std is not None:
            result[:, : x.shape[1]] = x
        elif self._clip is not None:
            log_std = result[:, result.shape[1] // 2 :]
            np.minimum(log_std, self._clip, out=log_std)
            np.maximum(log_std, -self._clip, out=log_std)
        return result

    def _allocate(self, rows: int) -> None:
        if not self._weights:
            raise RuntimeError("The policy has no weights yet: call `set_weights(weights)` first.")
        self._hidden = [
            (weight, bias, activation, np.empty((rows, len(bias)), np.float32))
            for (weight, bias), activation in zip(self._weights, self._activations, strict=True)
        ]
        self._result = self._hidden[-1][3]
        if self._log_std is not None:
            self._result = np.empty((rows, self.description.num_outputs), np.float32)
            self._result[:, -len(self._log_std) :] = self._log_std
        self._rows = rows


def _tanh(x: NDArray[Any]) -> None:
    np.tanh(x, out=x)


def _relu(x: NDArray[Any]) -> None:
    np.maximum(x, np.float32(0), out=x)


def _elu(x: NDArray[Any]) -> None:
    negative = np.minimum(x, np.float32(0))
    np.expm1(negative, out=negative)
    np.maximum(x, np.float32(0), out=x)
    x += negative


def _leaky_relu(x: NDArray[Any]) -> None:
    np.maximum(x, np.float32(0.01) * x, out=x)


def _sigmoid(x: NDArray[Any]) -> None:
    x *= np.float32(0.5)  # by tanh: exp would overflow
    np.tanh(x, out=x)
    x += np.float32(1)
    x *= np.float32(0.5)


def _swish(x: NDArray[Any]) -> None:
    gate = x.copy()
    _sigmoid(gate)
    x *= gate


# In place; the names are those that DefaultPPOTorchRLModule gives to the classes of torch.nn.
ACTIVATIONS: dict[str, Callable[[NDArray[Any]], object] | None] = {
    "linear": None,
    "tanh": _tanh,
    "relu": _relu,
    "elu": _elu,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "swish": _swish,
}


def _activation(name: str) -> Callable[[NDArray[Any]], object] | None:
    try:
        return ACTIVATIONS[name]
    except KeyError:
        raise ValueError(f"Unknown activation {name!r}. Allowed are {sorted(ACTIVATIONS)}.") from None

"""Dense layers and their gradients in NumPy, on the memory of a torch module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["DenseStack", "dense_layers_of"]

Array: TypeAlias = NDArray[np.float32]

_ONE = np.float32(1)
_HALF = np.float32(0.5)
_SLOPE = np.float32(0.01)  # of torch.nn.LeakyReLU


class DenseStack:
    """Dense layers one after the other.

    A torch operation with its gradient costs ten microseconds to start, as much as the arithmetic of a layer of 64
    units. These do the same arithmetic without a graph: results go to buffers that all minibatches share, gradients
    straight to where the optimizer reads them.

    Parameters
    ----------
    layers : sequence of (torch.nn.Linear, str)
        Layers with their activations: "linear", "tanh", "relu", "leaky_relu", "elu" or "sigmoid". Weights and their
        ``grad`` must be float32 on the CPU; arrays here are views of them.
    """

    def __init__(self, layers: Sequence[tuple[torch.nn.Linear, str]]) -> None:
        self._layers = [
            (
                layer.weight.detach().numpy(),
                layer.bias.detach().numpy(),
                _gradient(layer.weight),
                _gradient(layer.bias),
                *ACTIVATIONS[activation],
            )
            for layer, activation in layers
        ]
        self._rows = -1
        self._inputs: list[Array] = []
        self._outputs: list[Array] = []
        self._gradients: list[Array] = []
        self._scratch: list[Array] = []
        self._ones: Array = np.ones(0, np.float32)

    def __len__(self) -> int:
        return len(self._layers)

    def forward(self, inputs: Array) -> Array:
        """Outputs of shape (B, outputs): a buffer that the next call overwrites."""
        if len(inputs) != self._rows:
            self._allocate(len(inputs))
        x = inputs
        self._inputs = []
        for (weight, bias, _, _, activation, _), out in zip(self._layers, self._outputs, strict=True):
            self._inputs.append(x)
            np.dot(x, weight.T, out=out)
            np.add(out, bias, out=out)
            if activation is not None:
                activation(out)
            x = out
        return x

    def backward(self, gradient: Array, *, to_inputs: bool = False) -> Array | None:
        """Write the gradients of all weights for that of the outputs of the last :meth:`forward`.

        Parameters
        ----------
        gradient : ndarray of shape (B, outputs)
            Overwritten.
        to_inputs : bool, default=False
            Return the gradient of the inputs.
        """
        for index in range(len(self._layers) - 1, -1, -1):
            weight, _, weight_gradient, bias_gradient, _, derivative = self._layers[index]
            if derivative is not None:
                derivative(gradient, self._outputs[index], self._scratch[index])
            np.dot(gradient.T, self._inputs[index], out=weight_gradient)
            np.dot(self._ones, gradient, out=bias_gradient)
            if index:
                gradient = np.dot(gradient, weight, out=self._gradients[index - 1])
            elif to_inputs:
                return np.dot(gradient, weight)
        return gradient if to_inputs else None

    def _allocate(self, rows: int) -> None:
        self._rows = rows
        shapes = [(rows, len(bias)) for _, bias, *_ in self._layers]
        self._outputs = [np.empty(shape, np.float32) for shape in shapes]
        self._gradients = [np.empty(shape, np.float32) for shape in shapes]
        self._scratch = [np.empty(shape, np.float32) for shape in shapes]
        self._ones = np.ones(rows, np.float32)


def dense_layers_of(stack: torch.nn.Sequential) -> list[tuple[torch.nn.Linear, str]] | None:
    """The layers of a network with their activations; None if it has any that :class:`DenseStack` does not."""
    layers: list[tuple[torch.nn.Linear, str]] = []
    for part in stack:
        if isinstance(part, torch.nn.Linear) and part.bias is not None:
            layers.append((part, "linear"))
            continue
        name = _NAMES.get(type(part))
        if name is None or not layers or layers[-1][1] != "linear":
            return None
        if getattr(part, "negative_slope", 0.01) != 0.01 or getattr(part, "alpha", 1.0) != 1.0:
            return None
        layers[-1] = (layers[-1][0], name)
    return layers


def _gradient(parameter: torch.Tensor) -> Array:
    gradient = parameter.grad
    assert gradient is not None
    return gradient.numpy()


def _tanh(x: Array) -> None:
    np.tanh(x, out=x)


def _tanh_derivative(gradient: Array, output: Array, scratch: Array) -> None:
    np.multiply(output, output, out=scratch)
    np.subtract(_ONE, scratch, out=scratch)
    np.multiply(gradient, scratch, out=gradient)


def _relu(x: Array) -> None:
    np.maximum(x, np.float32(0), out=x)


def _relu_derivative(gradient: Array, output: Array, scratch: Array) -> None:
    np.multiply(gradient, output > 0, out=gradient)


def _leaky_relu(x: Array) -> None:
    np.maximum(x, _SLOPE * x, out=x)


def _leaky_relu_derivative(gradient: Array, output: Array, scratch: Array) -> None:
    np.multiply(gradient, np.where(output > 0, _ONE, _SLOPE), out=gradient)


def _elu(x: Array) -> None:
    negative = np.minimum(x, np.float32(0))
    np.expm1(negative, out=negative)
    np.maximum(x, np.float32(0), out=x)
    np.add(x, negative, out=x)


def _elu_derivative(gradient: Array, output: Array, scratch: Array) -> None:
    np.minimum(output, np.float32(0), out=scratch)
    np.add(scratch, _ONE, out=scratch)
    np.multiply(gradient, scratch, out=gradient)


def _sigmoid(x: Array) -> None:
    np.multiply(x, _HALF, out=x)  # by tanh: exp would overflow
    np.tanh(x, out=x)
    np.add(x, _ONE, out=x)
    np.multiply(x, _HALF, out=x)


def _sigmoid_derivative(gradient: Array, output: Array, scratch: Array) -> None:
    np.subtract(_ONE, output, out=scratch)
    np.multiply(scratch, output, out=scratch)
    np.multiply(gradient, scratch, out=gradient)


_NAMES: dict[type[torch.nn.Module], str] = {
    torch.nn.Tanh: "tanh",
    torch.nn.ReLU: "relu",
    torch.nn.LeakyReLU: "leaky_relu",
    torch.nn.ELU: "elu",
    torch.nn.Sigmoid: "sigmoid",
}

ACTIVATIONS: dict[str, tuple[Callable[[Array], None] | None, Callable[[Array, Array, Array], None] | None]] = {
    "linear": (None, None),
    "tanh": (_tanh, _tanh_derivative),
    "relu": (_relu, _relu_derivative),
    "leaky_relu": (_leaky_relu, _leaky_relu_derivative),
    "elu": (_elu, _elu_derivative),
    "sigmoid": (_sigmoid, _sigmoid_derivative),
}
"""In place; and, also in place, from the gradient of the output and the output to the gradient of the input."""

"""Layers that older custom models are built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mltoolkit.rllib.core.rl_module._networks import activation_class

__all__ = ["AppendBiasLayer", "Reshape", "SlimConv2d", "SlimFC", "normc_initializer", "same_padding", "valid_padding"]

Size = int | tuple[int, int]


def normc_initializer(std: float = 1.0) -> Callable[[Tensor], None]:
    """Return an initializer after which each row (the weights of one output) has the norm ``std``.

    Examples
    --------
    >>> weight = torch.empty(2, 3)
    >>> normc_initializer(0.5)(weight)
    >>> weight.norm(dim=1)
    tensor([0.5000, 0.5000])
    """

    def initializer(tensor: Tensor) -> None:
        with torch.no_grad():
            tensor.normal_()
            tensor.mul_(std / tensor.norm(dim=1, keepdim=True))

    return initializer


def same_padding(
    in_size: tuple[int, int], filter_size: Size, stride_size: Size
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Return the padding (left, right, top, bottom) for outputs of ceil(size / stride), and their (height, width)."""
    pads, outs = [], []
    for size, kernel, stride in zip(in_size, _pair(filter_size), _pair(stride_size), strict=True):
        out = -(-size // stride)
        total = max((out - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
        outs.append(out)
    (top, bottom), (left, right) = pads
    return (left, right, top, bottom), (outs[0], outs[1])


def valid_padding(in_size: tuple[int, int], filter_size: Size, stride_size: Size) -> tuple[int, int]:
    """Return the output's (height, width) without padding."""
    height, width = (
        (size - kernel) // stride + 1
        for size, kernel, stride in zip(in_size, _pair(filter_size), _pair(stride_size), strict=True)
    )
    return height, width


class SlimFC(nn.Module):
    """A dense layer with its initialisation and activation.

    Parameters
    ----------
    in_size, out_size : int
    initializer : callable, optional
        Changes the weight in place; Xavier's uniform one by default.
    activation_fn : str or type, optional
    use_bias : bool, default=True
    bias_init : float, default=0.0
    """

    def __init__(
        self,
        in_size: int,
        out_size: int,
        initializer: Callable[[Tensor], Any] | None = None,
        activation_fn: Any = None,
        use_bias: bool = True,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        layer = nn.Linear(in_size, out_size, bias=use_bias)
        (initializer or nn.init.xavier_uniform_)(layer.weight)
        if use_bias:
            nn.init.constant_(layer.bias, bias_init)
        activation = activation_class(activation_fn)
        self._model = nn.Sequential(layer) if activation is None else nn.Sequential(layer, activation())

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_size) to (B, out_size)."""
        result: Tensor = self._model(x)
        return result


class SlimConv2d(nn.Module):
    """A convolution with its padding, initialisation and activation.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel, stride : int or tuple of int
    padding : int or tuple (left, right, top, bottom), or None
    initializer : callable, None or 'default'
        ``'default'`` is Xavier's uniform one, None torch's own.
    activation_fn : str, type or None
        ``'default'`` is ReLU.
    bias_init : float, default=0
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Size,
        stride: Size,
        padding: Any,
        initializer: Any = "default",
        activation_fn: Any = "default",
        bias_init: float = 0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ZeroPad2d(padding)] if padding else []
        layer = nn.Conv2d(in_channels, out_channels, kernel, stride)
        if initializer is not None:
            (nn.init.xavier_uniform_ if initializer == "default" else initializer)(layer.weight)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, bias_init)
        layers.append(layer)
        activation = nn.ReLU if activation_fn == "default" else activation_class(activation_fn)
        if activation is not None:
            layers.append(activation())
        self._model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, height, width) to (B, out_channels, ...)."""
        result: Tensor = self._model(x)
        return result


class AppendBiasLayer(nn.Module):
    """Append parameters to each row: logarithms of standard deviations that do not depend on the observation."""

    def __init__(self, num_bias_vars: int) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(num_bias_vars))

    def forward(self, x: Tensor) -> Tensor:
        """(B, n) to (B, n + num_bias_vars)."""
        return torch.cat((x, self.log_std.expand(len(x), -1)), 1)


class Reshape(nn.Module):
    """Give a tensor another shape."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` in the new shape."""
        return x.reshape(self.shape)


def _pair(value: Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])

"""Building blocks of the default network: dense layers, convolutions, an LSTM that forgets between episodes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mltoolkit.rllib.core.rl_module._sequences import Pieces

__all__ = [
    "HIDDEN_GAIN",
    "ConvEncoder",
    "FlatEncoder",
    "LSTMLayer",
    "activation_class",
    "dense_layers",
    "initialize",
]

HIDDEN_GAIN = math.sqrt(2.0)

_ACTIVATIONS: dict[str, type[nn.Module] | None] = {
    "linear": None,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "swish": nn.SiLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
}


def activation_class(name: Any) -> type[nn.Module] | None:
    """Return the class of an activation, None for the identity.

    Parameters
    ----------
    name : str, type or None
        As DefaultModelConfig has it.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    if name is None:
        return None
    if isinstance(name, type) and issubclass(name, nn.Module):
        return name
    if isinstance(name, str):
        if name.lower() in _ACTIVATIONS:
            return _ACTIVATIONS[name.lower()]
        found = getattr(nn, name, None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    raise ValueError(
        f"Unknown activation {name!r}. Allowed are {', '.join(map(repr, _ACTIVATIONS))}, None, and the names of classes "
        "in torch.nn."
    )


def initialize(
    parameter: Tensor, initializer: Any, kwargs: dict[str, Any] | None, fallback: Callable[[Tensor], Any]
) -> None:
    """Initialise a parameter in place.

    Parameters
    ----------
    parameter : Tensor
    initializer : str, callable or None
        A name in ``torch.nn.init``, or a function that changes a tensor in place; ``"default"`` leaves what torch did,
        None is ``fallback``.
    kwargs : dict, optional
        For the initializer.
    fallback : callable

    Raises
    ------
    ValueError
        If the name is unknown, or the initializer is not for tensors of this shape.
    """
    if initializer is None:
        if kwargs:
            raise ValueError(f"Initializer keywords {kwargs!r} are given without an initializer: name one, too.")
        fallback(parameter)
        return
    if initializer == "default":
        return
    function = initializer
    if not callable(function):
        name = str(initializer) if str(initializer).endswith("_") else f"{initializer}_"
        function = getattr(nn.init, name, None)
        if function is None:
            known = [item for item in dir(nn.init) if item.endswith("_") and not item.startswith("_")]
            near = difflib.get_close_matches(name, known, 1)
            raise ValueError(
                f"Unknown initializer {initializer!r}{f' (did you mean {near[0]!r}?)' if near else ''}. Allowed are "
                f"'default' and the functions of torch.nn.init: {', '.join(known)}."
            )
    try:
        with torch.no_grad():
            function(parameter, **(kwargs or {}))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The initializer {initializer!r} with keywords {kwargs or {}} failed on a parameter of shape "
            f"{tuple(parameter.shape)}: {error}"
        ) from error


def dense_layers(config: Any, prefix: str, size: int, num_outputs: int = 0, output_gain: float = 1.0) -> nn.Sequential:
    """Stack dense layers as the settings ``{prefix}_hiddens``, ``{prefix}_activation`` and so on say.

    Parameters
    ----------
    config : DefaultModelConfig
    prefix : {'fcnet', 'head_fcnet'}
    size : int
        Inputs.
    num_outputs : int, default=0
        Size of a last layer without activation; 0 for none.
    output_gain : float, default=1.0
        Gain of that layer's orthogonal initialisation.
    """
    activation = activation_class(getattr(config, f"{prefix}_activation"))
    layers: list[nn.Module] = []
    for hidden in getattr(config, f"{prefix}_hiddens"):
        layers.append(_linear(config, prefix, size, int(hidden), HIDDEN_GAIN))
        if getattr(config, f"{prefix}_use_layernorm"):
            layers.append(nn.LayerNorm(int(hidden)))
        if activation is not None:
            layers.append(activation())
        size = int(hidden)
    if num_outputs:
        layers.append(_linear(config, prefix, size, num_outputs, output_gain))
    return nn.Sequential(*layers)


def _linear(config: Any, prefix: str, inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    _initialize_layer(layer, config, prefix, gain)
    return layer


def _initialize_layer(layer: Any, config: Any, prefix: str, gain: float) -> None:
    for parameter, kind in ((layer.weight, "kernel"), (layer.bias, "bias")):
        initialize(
            parameter,
            getattr(config, f"{prefix}_{kind}_initializer"),
            getattr(config, f"{prefix}_{kind}_initializer_kwargs"),
            (lambda tensor: nn.init.orthogonal_(tensor, gain)) if kind == "kernel" else nn.init.zeros_,
        )


class FlatEncoder(nn.Module):
    """Dense layers over observations of any shape.

    Parameters
    ----------
    config : DefaultModelConfig
    shape : tuple of int
        Shape of one observation.
    """

    def __init__(self, config: Any, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        size = math.prod(shape)
        self.net = dense_layers(config, "fcnet", size)
        self.num_outputs = int(config.fcnet_hiddens[-1]) if config.fcnet_hiddens else size

    def forward(self, obs: Tensor) -> Tensor:
        """(..., *shape) to (..., num_outputs)."""
        if not obs.dtype.is_floating_point:
            obs = obs.float()
        if len(self.shape) != 1:
            obs = obs.flatten(-len(self.shape)) if self.shape else obs.unsqueeze(-1)
        result: Tensor = self.net(obs)
        return result


class ConvEncoder(nn.Module):
    """Convolutions over images, flattened.

    Parameters
    ----------
    config : DefaultModelConfig
    shape : tuple of int
        (height, width), (height, width, channels) or, if the first is the smallest, (channels, height, width).
    is_uint8 : bool
        Whether pixels are 0 to 255 and to be divided by 255.
    """

    def __init__(self, config: Any, shape: tuple[int, ...], is_uint8: bool) -> None:
        super().__init__()
        self.shape = shape
        self.scale = 1.0 / 255.0 if is_uint8 else 1.0
        self.channels_first = len(shape) == 3 and shape[0] < min(shape[1:])
        height, width, channels = image_size(shape)
        filters = config.conv_filters if config.conv_filters is not None else default_filters(height, width)
        activation = activation_class(config.conv_activation)
        layers: list[nn.Module] = []
        for index, spec in enumerate(filters):
            out_channels, kernel, stride, padding = _filter(spec, index)
            if padding == "same":
                pads = [_same(*dims) for dims in zip((height, width), kernel, stride, strict=True)]
                (top, bottom), (left, right) = pads
                if any((top, bottom, left, right)):
                    layers.append(nn.ZeroPad2d((left, right, top, bottom)))
                height, width = height + top + bottom, width + left + right
            height, width = ((size - k) // s + 1 for size, k, s in zip((height, width), kernel, stride, strict=True))
            if height < 1 or width < 1:
                raise ValueError(
                    f"`conv_filters[{index}]` = {spec!r} leaves nothing of an observation of shape {shape}: use a smaller "
                    "kernel, or padding 'same'."
                )
            layer = nn.Conv2d(channels, out_channels, kernel, stride)
            _initialize_layer(layer, config, "conv", HIDDEN_GAIN)
            layers.append(layer)
            if activation is not None:
                layers.append(activation())
            channels = out_channels
        self.net = nn.Sequential(*layers)
        self.num_outputs = height * width * channels

    def forward(self, obs: Tensor) -> Tensor:
        """(..., *shape) to (..., num_outputs)."""
        leading = obs.shape[: obs.ndim - len(self.shape)]
        x = obs.reshape(-1, *self.shape).float()
        if self.scale != 1.0:
            x = x * self.scale
        if len(self.shape) == 2:
            x = x.unsqueeze(1)
        elif not self.channels_first:
            x = x.permute(0, 3, 1, 2)
        return self.net(x).flatten(1).reshape(*leading, self.num_outputs)


def image_size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (height, width, channels) of an image observation."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if shape[0] < min(shape[1:]):
        return shape[1], shape[2], shape[0]
    return shape[0], shape[1], shape[2]


def default_filters(height: int, width: int) -> list[list[Any]]:
    """Choose convolutions for an image size.

    The sizes that RLlib knows get its filters, the last layer of which covers the whole image; others get as many layers
    of stride 2, with 16, 32, ... up to 128 channels, as bring the shorter side down to 4.
    """
    known: dict[int, list[list[Any]]] = {
        96: [[16, 8, 4], [32, 4, 2], [256, 11, 2, "valid"]],
        84: [[16, 8, 4], [32, 4, 2], [256, 11, 1, "valid"]],
        64: [[16, 4, 2], [32, 4, 2], [64, 4, 2], [128, 4, 2]],
        42: [[16, 4, 2], [32, 4, 2], [256, 11, 1, "valid"]],
        10: [[16, 5, 2], [32, 5, 2]],
    }
    if height == width and height in known:
        return known[height]
    filters: list[list[Any]] = []
    side = min(height, width)
    while side > 4 or not filters:
        filters.append([min(16 * 2 ** len(filters), 128), min(4, side), 2])
        side = -(-side // 2)
    return filters


def _filter(spec: Any, index: int) -> tuple[int, tuple[int, int], tuple[int, int], str]:
    problem = ValueError(
        f"`conv_filters[{index}]` must be [channels, kernel, stride] or [channels, kernel, stride, padding] of positive "
        f"integers, kernel and stride also pairs of them, padding 'same' or 'valid'; got {spec!r}."
    )
    if not isinstance(spec, Sequence) or isinstance(spec, str) or len(spec) not in (3, 4):
        raise problem
    padding = spec[3] if len(spec) == 4 else "same"
    pairs = []
    for value in spec[1:3]:
        pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
        if len(pair) != 2 or not all(isinstance(item, int) and item > 0 for item in pair):
            raise problem
        pairs.append(pair)
    if not isinstance(spec[0], int) or spec[0] < 1 or padding not in ("same", "valid"):
        raise problem
    return spec[0], pairs[0], pairs[1], padding


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis such that the output has ceil(size / stride) elements."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class LSTMLayer(nn.Module):
    """An LSTM over sequences of several episodes.

    Parameters
    ----------
    config : DefaultModelConfig
    size : int
        Inputs.
    """

    def __init__(self, config: Any, size: int) -> None:
        super().__init__()
        self.num_outputs = int(config.lstm_cell_size)
        self.lstm = nn.LSTM(size, self.num_outputs, batch_first=True)
        for name, parameter in self.lstm.named_parameters():
            kind = "kernel" if name.startswith("weight") else "bias"
            initialize(
                parameter,
                getattr(config, f"lstm_{kind}_initializer"),
                getattr(config, f"lstm_{kind}_initializer_kwargs"),
                nn.init.orthogonal_ if kind == "kernel" else nn.init.zeros_,
            )

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor], pieces: Pieces | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Run over sequences.

        Parameters
        ----------
        x : Tensor of shape (B, T, inputs)
        state : tuple of two Tensors of shape (B, num_outputs)
            Hidden and cell state before the first step.
        pieces : Pieces or None
            Where to forget, from ``cut(is_first)``.

        Returns
        -------
        outputs : Tensor of shape (B, T, num_outputs)
        state : tuple of two Tensors of shape (B, num_outputs), or None
            After the last step; None where episodes begin within rows.
        """
        if pieces is None:
            out, (h, c) = self.lstm(x, (state[0].unsqueeze(0), state[1].unsqueeze(0)))
            return out, (h[0], c[0])
        h, c = (pieces.split_state(value, 0.0).unsqueeze(0) for value in state)
        # Padded, not packed: half the time, for the sake of a last state that training does not ask for.
        out, (h, c) = self.lstm(pieces.split(x), (h, c))
        last = None if pieces.is_padded else (pieces.merge_state(h[0]), pieces.merge_state(c[0]))
        return pieces.merge(out), last


def is_image(shape: tuple[int, ...], conv_filters: Any) -> bool:
    """Whether observations of this shape go through convolutions.

    Raises
    ------
    ValueError
        If there are ``conv_filters`` for what is no image.
    """
    if conv_filters is not None and len(shape) not in (2, 3):
        raise ValueError(
            f"`conv_filters` is set, but observations have the shape {shape}, which is no image: (height, width) or "
            "(height, width, channels). Leave it at None."
        )
    return len(shape) == 3 or (len(shape) == 2 and conv_filters is not None)

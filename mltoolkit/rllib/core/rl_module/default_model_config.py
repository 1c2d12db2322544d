"""What the default networks can be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DefaultModelConfig"]

Initializer = str | Callable[..., Any] | None


@dataclass
class DefaultModelConfig:
    """Settings of the default module: an encoder (dense or convolutional, then perhaps an LSTM) with two heads.

    For initializers, a name is that of an in-place function of ``torch.nn.init``, such as ``"xavier_uniform_"``;
    ``"default"`` is what torch itself does; None is what works well for PPO: orthogonal matrices, with gain sqrt(2) in
    hidden layers, 0.01 at the policy's and 1 at the value function's output, and biases of 0, as in the reference. An activation is
    ``"tanh"``, ``"relu"``, ``"elu"``, ``"swish"`` (``"silu"``), ``"linear"`` (None), or the name of a class of
    ``torch.nn``.

    Parameters
    ----------
    fcnet_hiddens : list of int
        Hidden layers of the encoder of flat observations.
    fcnet_activation : str
        Activation after each of them.
    fcnet_kernel_initializer, fcnet_bias_initializer : str or callable, optional
    fcnet_kernel_initializer_kwargs, fcnet_bias_initializer_kwargs : dict, optional
        Keyword arguments of the initializer.
    fcnet_use_layernorm : bool
        Normalise each hidden layer's output before its activation.
    conv_filters : list of [channels, kernel, stride] or [channels, kernel, stride, padding], optional
        Convolutions of the encoder of image observations; kernel and stride are a number or (height, width), padding is
        ``"same"`` (default) or ``"valid"``. None chooses by the image's size.
    conv_activation : str
    conv_kernel_initializer, conv_bias_initializer : str or callable, optional
    conv_kernel_initializer_kwargs, conv_bias_initializer_kwargs : dict, optional
    head_fcnet_hiddens : list of int
        Hidden layers of the policy's and of the value function's head.
    head_fcnet_activation : str
    head_fcnet_kernel_initializer, head_fcnet_bias_initializer : str or callable, optional
        For hidden and output layers of the heads.
    head_fcnet_kernel_initializer_kwargs, head_fcnet_bias_initializer_kwargs : dict, optional
    head_fcnet_use_layernorm : bool
    free_log_std : bool
        For continuous actions: the logarithms of the standard deviations are parameters, independent of the observation.
    log_std_clip_param : float
        They are kept within plus and minus this; ``inf`` for no bounds.
    vf_share_layers : bool
        Whether policy and value function share the encoder (and LSTM).
    use_lstm : bool
        Put an LSTM between encoder and heads.
    max_seq_len : int
        Length of the sequences that the LSTM is trained on, in steps.
    lstm_cell_size : int
    lstm_use_prev_action, lstm_use_prev_reward : bool
        Show the network the last action and reward too; a connector adds them to the observation.
    lstm_kernel_initializer, lstm_bias_initializer : str or callable, optional
    lstm_kernel_initializer_kwargs, lstm_bias_initializer_kwargs : dict, optional
    fusionnet_hiddens, fusionnet_activation, fusionnet_kernel_initializer, fusionnet_kernel_initializer_kwargs, \
fusionnet_bias_initializer, fusionnet_bias_initializer_kwargs
        Of networks with several input streams, which PPO has not: other values than the defaults are refused.
    squash_output : bool
        For continuous actions: a Gaussian squashed to the action space's bounds by tanh, instead of one whose samples
        are clipped.

    References
    ----------
    Andrychowicz et al., What Matters In On-Policy Reinforcement Learning?, arXiv:2006.05990, Sec. 3.2.

    Examples
    --------
    >>> DefaultModelConfig(fcnet_hiddens=[64, 64]).fcnet_activation
    'tanh'
    """

    fcnet_hiddens: list[int] = field(default_factory=lambda: [256, 256])
    fcnet_activation: str | None = "tanh"
    fcnet_kernel_initializer: Initializer = None
    fcnet_kernel_initializer_kwargs: dict[str, Any] | None = None
    fcnet_bias_initializer: Initializer = None
    fcnet_bias_initializer_kwargs: dict[str, Any] | None = None
    fcnet_use_layernorm: bool = False

    conv_filters: list[Any] | None = None
    conv_activation: str | None = "relu"
    conv_kernel_initializer: Initializer = None
    conv_kernel_initializer_kwargs: dict[str, Any] | None = None
    conv_bias_initializer: Initializer = None
    conv_bias_initializer_kwargs: dict[str, Any] | None = None

    head_fcnet_hiddens: list[int] = field(default_factory=list)
    head_fcnet_activation: str | None = "relu"
    head_fcnet_kernel_initializer: Initializer = None
    head_fcnet_kernel_initializer_kwargs: dict[str, Any] | None = None
    head_fcnet_bias_initializer: Initializer = None
    head_fcnet_bias_initializer_kwargs: dict[str, Any] | None = None
    head_fcnet_use_layernorm: bool = False

    free_log_std: bool = False
    log_std_clip_param: float = 20.0
    vf_share_layers: bool = True

    use_lstm: bool = False
    max_seq_len: int = 20
    lstm_cell_size: int = 256
    lstm_use_prev_action: bool = False
    lstm_use_prev_reward: bool = False
    lstm_kernel_initializer: Initializer = None
    lstm_kernel_initializer_kwargs: dict[str, Any] | None = None
    lstm_bias_initializer: Initializer = None
    lstm_bias_initializer_kwargs: dict[str, Any] | None = None

    fusionnet_hiddens: list[int] = field(default_factory=lambda: [256, 256])
    fusionnet_activation: str | None = "tanh"
    fusionnet_kernel_initializer: Initializer = None
    fusionnet_kernel_initializer_kwargs: dict[str, Any] | None = None
    fusionnet_bias_initializer: Initializer = None
    fusionnet_bias_initializer_kwargs: dict[str, Any] | None = None

    squash_output: bool = False

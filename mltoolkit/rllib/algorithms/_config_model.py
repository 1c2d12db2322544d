"""Settings of the default network, under the names of RLlib's newer and older model configurations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mltoolkit.rllib.algorithms._constraints import (
    Allowed,
    anything,
    function,
    mapping,
    number,
    optional,
    sequence_of,
    switch,
    text,
    whole_number,
)
from mltoolkit.rllib.algorithms._settings import Refused, Setting, SettingsDict, SettingTable, copy_value

__all__ = ["MODEL_SETTINGS", "merged_model_config"]

_SIZES = sequence_of(whole_number(1), "a list of whole numbers >= 1")
_ACTIVATION = optional(
    Allowed(
        "'tanh', 'relu', 'swish', 'silu', 'linear' or the name of a class in torch.nn",
        lambda value: None if isinstance(value, str) else "",
    )
)
_INITIALIZER = optional(text() | function("a function of a tensor"))
_CLASS = optional(text() | Allowed("a class", lambda value: None if isinstance(value, type) else ""))
_USES = "may only be its default, since PPO's networks do without."


def _initializers(stack: str, what: str, old: str) -> tuple[Setting, ...]:
    """How the weights and biases of a stack of layers begin."""
    kernel = f"{old}_kernel" if stack == "conv" else f"{old}_weights"
    kernel_old = () if stack == "conv" else (f"{kernel}_initializer",)
    bias_old = () if old == stack else (f"{old}_bias_initializer",)
    return (
        Setting(
            f"{stack}_kernel_initializer",
            "model",
            None,
            _INITIALIZER,
            f"How the weights of {what} begin: a name in `torch.nn.init` such as 'xavier_uniform_', or a function. "
            "None: orthogonal.",
            old_names=kernel_old,
        ),
        Setting(
            f"{stack}_kernel_initializer_kwargs",
            "model",
            None,
            optional(mapping()),
            "Keywords for it.",
            old_names=(f"{kernel}_initializer_config",),
        ),
        Setting(
            f"{stack}_bias_initializer",
            "model",
            None,
            _INITIALIZER,
            f"How the biases of {what} begin. None: at zero.",
            old_names=bias_old,
        ),
        Setting(
            f"{stack}_bias_initializer_kwargs",
            "model",
            None,
            optional(mapping()),
            "Keywords for it.",
            old_names=(f"{old}_bias_initializer_config",),
        ),
    )


MODEL_SETTINGS = SettingTable(
    f"{__name__}:MODEL_SETTINGS",
    (
        Setting("fcnet_hiddens", "model", [256, 256], _SIZES, "Sizes of the hidden layers of the encoder."),
        Setting("fcnet_activation", "model", "tanh", _ACTIVATION, "The activation between them."),
        *_initializers("fcnet", "the encoder", "fcnet"),
        Setting("fcnet_use_layernorm", "model", False, switch(), "Normalise each hidden layer of the encoder."),
        Setting(
            "conv_filters",
            "model",
            None,
            optional(
                sequence_of(
                    sequence_of(anything("a number or pair"), "a list [channels, kernel, stride]"),
                    "a list of [channels, kernel, stride]",
                )
            ),
            "Convolutions for images, each [channels, kernel, stride]. None: suited to the size of the image.",
        ),
        Setting("conv_activation", "model", "relu", _ACTIVATION, "The activation between convolutions."),
        *_initializers("conv", "the convolutions", "conv"),
        Setting(
            "head_fcnet_hiddens",
            "model",
            [],
            _SIZES,
            "Sizes of the hidden layers of the heads for policy and value, after the encoder.",
            old_names=("post_fcnet_hiddens",),
        ),
        Setting(
            "head_fcnet_activation",
            "model",
            "relu",
            _ACTIVATION,
            "The activation between them.",
            old_names=("post_fcnet_activation",),
        ),
        *_initializers("head_fcnet", "the heads", "post_fcnet"),
        Setting("head_fcnet_use_layernorm", "model", False, switch(), "Normalise each hidden layer of the heads."),
        Setting(
            "free_log_std",
            "model",
            False,
            switch(),
            "For `Box` actions: the standard deviations are parameters of their own, whatever is observed.",
        ),
        Setting(
            "log_std_clip_param",
            "model",
            20.0,
            number(above=0),
            "For `Box` actions: logarithms of standard deviations are clipped to so far from 0.",
        ),
        Setting(
            "squash_output",
            "model",
            False,
            switch(),
            "For bounded `Box` actions: the policy is a Gaussian squashed to the bounds by tanh.",
        ),
        Setting(
            "vf_share_layers",
            "model",
            True,
            switch(),
            "The value function shares the encoder with the policy.",
        ),
        Setting("use_lstm", "model", False, switch(), "Put an LSTM after the encoder."),
        Setting("max_seq_len", "model", 20, whole_number(1), "Steps over which the LSTM is trained at a time."),
        Setting("lstm_cell_size", "model", 256, whole_number(1), "Size of the LSTM's state."),
        Setting("lstm_use_prev_action", "model", False, switch(), "The LSTM also sees the last action."),
        Setting("lstm_use_prev_reward", "model", False, switch(), "The LSTM also sees the last reward."),
        *_initializers("lstm", "the LSTM", "lstm"),
        Setting(
            "custom_model",
            "model",
            None,
            _CLASS,
            "A `TorchModelV2` class, or the name under which `ModelCatalog` knows it.",
            class_of="mltoolkit.rllib.models.torch.torch_modelv2:TorchModelV2",
        ),
        Setting("custom_model_config", "model", {}, mapping(), "Keywords for the custom model."),
        Setting(
            "custom_action_dist",
            "model",
            None,
            _CLASS,
            "A distribution of actions, or the name under which `ModelCatalog` knows it.",
            class_of="mltoolkit.rllib.models.torch.torch_action_dist:TorchDistributionWrapper",
        ),
        *(
            Refused(name, "model", (default,), "The transformer of RLlib's older networks " + _USES + " Use an LSTM.")
            for name, default in (
                ("use_attention", False),
                ("attention_num_transformer_units", 1),
                ("attention_dim", 64),
                ("attention_num_heads", 1),
                ("attention_head_dim", 32),
                ("attention_memory_inference", 50),
                ("attention_memory_training", 50),
                ("attention_position_wise_mlp_dim", 32),
                ("attention_init_gru_gate_bias", 2.0),
                ("attention_use_n_prev_actions", 0),
                ("attention_use_n_prev_rewards", 0),
            )
        ),
        *(
            Refused(
                name,
                "model",
                harmless,
                "Wrap the environment in gymnasium.wrappers.AtariPreprocessing, or in what else prepares its images.",
            )
            for name, harmless in (
                ("framestack", (True, False)),
                ("dim", (84,)),
                ("grayscale", (False,)),
                ("zero_mean", (True, False)),
                ("custom_preprocessor", (None,)),
            )
        ),
        *(
            Refused(name, "model", (None,), "Convolutions that only decoders have.")
            for name in (
                "conv_transpose_kernel_initializer",
                "conv_transpose_kernel_initializer_config",
                "conv_transpose_bias_initializer",
                "conv_transpose_bias_initializer_config",
            )
        ),
        *(
            Refused(name, "model", (default,), "PPO's networks see one kind of input; use `head_fcnet_hiddens`.")
            for name, default in (
                ("fusionnet_hiddens", [256, 256]),
                ("fusionnet_activation", "tanh"),
                ("fusionnet_kernel_initializer", None),
                ("fusionnet_kernel_initializer_kwargs", None),
                ("fusionnet_bias_initializer", None),
                ("fusionnet_bias_initializer_kwargs", None),
            )
        ),
        Refused(
            "no_final_linear",
            "model",
            (False,),
            "Write an RLModule whose heads end as you need it: rl_module(rl_module_spec=...).",
        ),
        Refused("encoder_latent_dim", "model", (None,), "The last of `fcnet_hiddens` is the size of the encoding."),
        Refused("always_check_shapes", "model", (False, True), "Shapes are checked when the module is built."),
        Refused("_time_major", "model", (False,), "Batches are laid out as the module asks for."),
        Refused(
            "lstm_use_prev_action_reward",
            "model",
            (False, None),
            "Use `lstm_use_prev_action` and `lstm_use_prev_reward`.",
        ),
        Refused("_use_default_native_models", "model", None, "There is one kind of default network."),
        Refused("_disable_preprocessor_api", "model", (False,), "Use custom connectors."),
        Refused("_disable_action_flattening", "model", (False,), "Use custom connectors."),
    ),
)


def merged_model_config(model: SettingsDict, model_config: Any) -> dict[str, Any]:
    """One dict under the newer names: defaults and ``model``, and over them what ``rl_module(model_config=)`` gave.

    Parameters
    ----------
    model : SettingsDict
        All of MODEL_SETTINGS.
    model_config : mapping, dataclass or None
        Keys that are no settings stay as they are: custom modules know them.

    Returns
    -------
    dict
    """
    merged: dict[str, Any] = {key: copy_value(value) for key, value in model.items()}
    if dataclasses.is_dataclass(model_config) and not isinstance(model_config, type):
        model_config = dataclasses.asdict(model_config)
    given: Mapping[str, Any] = model_config or {}
    for name, value in given.items():
        entry = MODEL_SETTINGS.get(name)
        if not isinstance(entry, Refused):
            merged[entry.key if entry is not None else name] = copy_value(value)
    return merged

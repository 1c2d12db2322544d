"""From the model settings that users write, in either of RLlib's two vocabularies, to one checked DefaultModelConfig."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from mltoolkit.rllib.core.rl_module.default_model_config import DefaultModelConfig

__all__ = ["as_dict", "default_model_config", "model_defaults", "old_model_config"]

# The older `model` dict's words for the same things.
_OLD_NAMES = {
    "post_fcnet_hiddens": "head_fcnet_hiddens",
    "post_fcnet_activation": "head_fcnet_activation",
    "post_fcnet_weights_initializer": "head_fcnet_kernel_initializer",
    "post_fcnet_weights_initializer_config": "head_fcnet_kernel_initializer_kwargs",
    "post_fcnet_bias_initializer": "head_fcnet_bias_initializer",
    "post_fcnet_bias_initializer_config": "head_fcnet_bias_initializer_kwargs",
    "fcnet_weights_initializer": "fcnet_kernel_initializer",
    "fcnet_weights_initializer_config": "fcnet_kernel_initializer_kwargs",
    "fcnet_bias_initializer_config": "fcnet_bias_initializer_kwargs",
    "conv_kernel_initializer_config": "conv_kernel_initializer_kwargs",
    "conv_bias_initializer_config": "conv_bias_initializer_kwargs",
    "lstm_weights_initializer": "lstm_kernel_initializer",
    "lstm_weights_initializer_config": "lstm_kernel_initializer_kwargs",
    "lstm_bias_initializer_config": "lstm_bias_initializer_kwargs",
}

# Keys that the default network cannot honour: the only value that means "not asked for", and what to do instead.
_ATTENTION = "The default network has no attention; use `use_lstm=True`, or a custom RLModule or TorchModelV2."
_DECODER = "The default network has no decoder; use a custom RLModule."
_REFUSED: dict[str, tuple[Any, str]] = {
    "use_attention": (False, _ATTENTION),
    "attention_num_transformer_units": (1, _ATTENTION),
    "attention_dim": (64, _ATTENTION),
    "attention_num_heads": (1, _ATTENTION),
    "attention_head_dim": (32, _ATTENTION),
    "attention_memory_inference": (50, _ATTENTION),
    "attention_memory_training": (50, _ATTENTION),
    "attention_position_wise_mlp_dim": (32, _ATTENTION),
    "attention_init_gru_gate_bias": (2.0, _ATTENTION),
    "attention_use_n_prev_actions": (0, _ATTENTION),
    "attention_use_n_prev_rewards": (0, _ATTENTION),
    "conv_transpose_kernel_initializer": (None, _DECODER),
    "conv_transpose_kernel_initializer_config": (None, _DECODER),
    "conv_transpose_bias_initializer": (None, _DECODER),
    "conv_transpose_bias_initializer_config": (None, _DECODER),
    "no_final_linear": (False, "The heads always end in a linear layer; use a custom RLModule or TorchModelV2."),
    "_time_major": (False, "Sequences are batch-major."),
    "encoder_latent_dim": (None, "Use `fcnet_hiddens`: its last entry is the encoder's output."),
    "custom_preprocessor": (None, "Use a connector: `config.env_runners(env_to_module_connector=...)`."),
}

# Keys for others: what prepares observations, and what chooses the model.
_ELSEWHERE: dict[str, Any] = {
    "framestack": True,
    "dim": 84,
    "grayscale": False,
    "zero_mean": True,
    "custom_model": None,
    "custom_model_config": {},
    "custom_action_dist": None,
    "always_check_shapes": False,
    "lstm_use_prev_action_reward": None,
    "_use_default_native_models": None,
    "_disable_preprocessor_api": False,
    "_disable_action_flattening": False,
}

_FUSION = (
    "PPO's network has a single input stream and no fusion network; use `head_fcnet_hiddens` or a custom RLModule."
)


def as_dict(model_config: Any) -> dict[str, Any]:
    """Return model settings given as DefaultModelConfig, mapping or None as a dict."""
    if model_config is None:
        return {}
    if dataclasses.is_dataclass(model_config) and not isinstance(model_config, type):
        return {item.name: getattr(model_config, item.name) for item in dataclasses.fields(model_config)}
    if isinstance(model_config, Mapping):
        return dict(model_config)
    raise TypeError(
        f"`model_config` must be a DefaultModelConfig or a dict, got {model_config!r} of type "
        f"`{type(model_config).__name__}`."
    )


def default_model_config(model_config: Any) -> DefaultModelConfig:
    """Check model settings for the default network.

    Parameters
    ----------
    model_config : DefaultModelConfig, dict or None
        With the names of DefaultModelConfig or those of the older ``model`` dict. Where both names of a thing are
        given, the newer one wins.

    Returns
    -------
    DefaultModelConfig

    Raises
    ------
    ValueError
        For unknown keys (with the nearest known one), wrong values, and what the default network does not offer.

    Examples
    --------
    >>> default_model_config({"post_fcnet_hiddens": [32]}).head_fcnet_hiddens
    [32]
    """
    given = as_dict(model_config)
    known = {item.name for item in dataclasses.fields(DefaultModelConfig)}
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in given.items():
        if key in known:
            values[key] = value
        elif key in _OLD_NAMES:
            if _OLD_NAMES[key] not in given:
                values[_OLD_NAMES[key]] = value
        elif key in _REFUSED:
            neutral, instead = _REFUSED[key]
            if value != neutral:
                raise ValueError(f"The model setting `{key}` = {value!r} is not supported. {instead}")
        elif key not in _ELSEWHERE:
            unknown.append(key)
    if unknown:
        names = [*known, *_OLD_NAMES, *_REFUSED, *_ELSEWHERE]
        hints = []
        for key in unknown:
            near = difflib.get_close_matches(str(key), names, 1)
            hints.append(f"{key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        raise ValueError(
            f"Unknown model setting{'s' if len(hints) > 1 else ''} {', '.join(hints)}. The default network knows those of "
            "DefaultModelConfig; settings of a custom model go into the `model_config` of its RLModuleSpec, or into "
            "`custom_model_config` of the `model` dict."
        )
    config = DefaultModelConfig(**values)
    _check(config)
    return config


def model_defaults() -> dict[str, Any]:
    """Return all settings of the older ``model`` dict, with their defaults."""
    # Newer than that dict: it never had them.
    newer = ("fusionnet", "squash_output", "fcnet_use_layernorm", "head_fcnet_use_layernorm")
    values = {key: value for key, value in as_dict(DefaultModelConfig()).items() if not key.startswith(newer)}
    defaults = old_model_config(values)
    return {
        **{key: value for key, value in defaults.items() if key not in _NEW_NAMES},
        **{key: neutral for key, (neutral, _) in _REFUSED.items()},
        **_ELSEWHERE,
        "custom_model_config": {},
    }


def old_model_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under both names, the newer and the older: custom models may ask for either."""
    return {**{old: settings[new] for old, new in _OLD_NAMES.items() if new in settings}, **settings}


_NEW_NAMES = frozenset(_OLD_NAMES.values())


def _check(config: DefaultModelConfig) -> None:
    problems: list[str] = []
    for name in ("fcnet_hiddens", "head_fcnet_hiddens"):
        sizes = getattr(config, name)
        if not isinstance(sizes, list | tuple) or not all(_is_count(size) for size in sizes):
            problems.append(f"`{name}` must be a list of positive integers, such as [64, 64], got {sizes!r}.")
    problems += [
        f"`{name}` must be a positive integer, got {getattr(config, name)!r}."
        for name in ("max_seq_len", "lstm_cell_size")
        if not _is_count(getattr(config, name))
    ]
    clip = config.log_std_clip_param
    if isinstance(clip, bool) or not isinstance(clip, int | float) or not clip > 0:
        problems.append(f"`log_std_clip_param` must be a positive number, or inf for no bounds, got {clip!r}.")
    default = DefaultModelConfig()
    problems += [
        f"`{item.name}` = {getattr(config, item.name)!r} is not supported. {_FUSION}"
        for item in dataclasses.fields(DefaultModelConfig)
        if item.name.startswith("fusionnet") and getattr(config, item.name) != getattr(default, item.name)
    ]
    if problems:
        raise ValueError(" ".join(problems))


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__index__") and value > 0

"""What becomes of some values when they are set: dicts are merged, other spellings become one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mltoolkit.rllib.algorithms._config_model import MODEL_SETTINGS
from mltoolkit.rllib.algorithms._settings import Setting, SettingsDict, copy_value, merge_deep

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig

__all__ = ["PREPARE", "is_search_space"]

logger = logging.getLogger("mltoolkit.rllib")

_said_that_torch_is_used = False


def is_search_space(value: Any) -> bool:
    """Whether a value is one of Tune's, to be replaced by another before anything is built."""
    if isinstance(value, Mapping):
        return set(value) == {"grid_search"}
    return any(
        base.__name__ == "Domain" and base.__module__ == "mltoolkit.tune.search.sample" for base in type(value).__mro__
    )


def _is_plain_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and not is_search_space(value)


def _framework(config: AlgorithmConfig, value: Any) -> Any:
    global _said_that_torch_is_used
    if value not in ("tf", "tf2", "tfe"):
        return "torch" if value is None else value
    if not _said_that_torch_is_used:
        _said_that_torch_is_used = True
        logger.warning("framework(%r) asks for TensorFlow. Networks here are torch's: torch is used.", value)
    return "torch"


def _merge(name: str) -> Callable[[AlgorithmConfig, Any], Any]:
    def prepare(config: AlgorithmConfig, value: Any) -> Any:
        merged = copy_value(getattr(config, name))
        if not (_is_plain_mapping(value) and isinstance(merged, dict)):
            return {} if value is None else value
        merge_deep(merged, value)
        return merged

    return prepare


def _model(config: AlgorithmConfig, value: Any) -> Any:
    if not _is_plain_mapping(value):
        return value
    # Keys are those of the table; values that are dicts themselves, such as `custom_model_config`, are replaced.
    old = config.model
    merged = old.copy() if isinstance(old, SettingsDict) else SettingsDict(MODEL_SETTINGS, MODEL_SETTINGS.defaults())
    merged.update({key: copy_value(item) for key, item in value.items()})
    return merged


def _spelling(config: AlgorithmConfig, value: Any) -> Any:
    return value.value if type(value).__name__ == "VectorizeMode" else value


def _optimizer(config: AlgorithmConfig, value: Any) -> Any:
    return None if value == {} else value  # RLlib's older default


def _vf_clip_param(config: AlgorithmConfig, value: Any) -> Any:
    return math.inf if value is None else value


def _lr(config: AlgorithmConfig, value: Any) -> Any:
    config.__dict__["lr_schedule"] = None
    return value


def _entropy_coeff(config: AlgorithmConfig, value: Any) -> Any:
    config.__dict__["entropy_coeff_schedule"] = None
    return value


def _schedule_of(attribute: str) -> Callable[[AlgorithmConfig, Any], Any]:
    def prepare(config: AlgorithmConfig, value: Any) -> Any:
        if value is not None:
            config.__dict__[attribute] = value
        return value

    return prepare


def _vf_share_layers(config: AlgorithmConfig, value: Any) -> Any:
    if value is not None:
        config.model = {"vf_share_layers": value}
    return value


def _evaluation_config(config: AlgorithmConfig, value: Any) -> Any:
    if not _is_plain_mapping(value):
        return value
    for key in value:
        if key not in config:
            raise config._settings.unknown(key, also=config._added)
    return copy_value(dict(value))


def _rl_module_model_config(config: AlgorithmConfig, value: Any) -> Any:
    return {} if value is None else copy_value(value)


def _callbacks_class(config: AlgorithmConfig, value: Any) -> Any:
    if not _is_plain_mapping(value):
        return value
    # RLlib's oldest way: a dict of functions.
    for event, called in value.items():
        entry = config._settings.get(event)
        if not (isinstance(entry, Setting) and entry.group == "callbacks"):
            raise config._settings.unknown(event)
        setattr(config, event, called)
    return None


#: By the name of the setting: a function of the configuration and the value given, which returns what is kept.
PREPARE: dict[str, Callable[[AlgorithmConfig, Any], Any]] = {
    "framework": _framework,
    "gym_env_vectorize_mode": _spelling,
    "env_config": _merge("env_config"),
    "learner_config_dict": _merge("learner_config_dict"),
    "model": _model,
    "model_config": _rl_module_model_config,
    "optimizer": _optimizer,
    "vf_clip_param": _vf_clip_param,
    "lr": _lr,
    "lr_schedule": _schedule_of("lr"),
    "entropy_coeff": _entropy_coeff,
    "entropy_coeff_schedule": _schedule_of("entropy_coeff"),
    "vf_share_layers": _vf_share_layers,
    "evaluation_config": _evaluation_config,
    "callbacks_class": _callbacks_class,
}

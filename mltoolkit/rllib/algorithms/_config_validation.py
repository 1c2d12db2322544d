"""Whether the values of a configuration are allowed, and go together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mltoolkit.rllib.algorithms._config_model import MODEL_SETTINGS
from mltoolkit.rllib.algorithms._config_prepare import is_search_space
from mltoolkit.rllib.algorithms._settings import InvalidConfigError, Refused, Setting, SettingsDict, nearest

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig

__all__ = ["batch_problems", "find_problems", "fragment_length", "list_problems"]


def list_problems(problems: Iterable[str]) -> None:
    """Raise InvalidConfigError with all problems, if there are any."""
    found = list(dict.fromkeys(problems))
    if len(found) == 1:
        raise InvalidConfigError(found[0])
    if found:
        raise InvalidConfigError("\n".join([f"{len(found)} settings are wrong:", *(f"- {each}" for each in found)]))


def fragment_length(config: AlgorithmConfig, worker_index: int) -> int:
    """Steps of each environment in one sample; see `AlgorithmConfig.get_rollout_fragment_length`."""
    if config.rollout_fragment_length != "auto":
        return int(config.rollout_fragment_length)
    environments = config.num_envs_per_env_runner * (config.num_env_runners or 1)
    steps, missing = divmod(config.total_train_batch_size, environments)
    if missing and (worker_index - 1) * config.num_envs_per_env_runner < missing:
        steps += 1
    return max(steps, 1)


def find_problems(config: AlgorithmConfig) -> list[str]:
    """What is wrong with the values of any algorithm's configuration."""
    problems: list[str] = []
    for setting in config._settings.settings:
        problems += _value_problems(setting, setting.key, config.__dict__[setting.attribute])
    if isinstance(config.model, SettingsDict):
        for key, value in config.model.items():
            entry = MODEL_SETTINGS[key]
            if isinstance(entry, Setting):
                problems += _value_problems(entry, f"model['{key}']", value)
    if problems:
        return problems  # what follows computes with the values
    problems += _module_problems(config)
    if config.train_batch_size is None and config.__dict__["_train_batch_size_per_learner"] is None:
        problems.append(
            "`train_batch_size` and `train_batch_size_per_learner` are both None; set one: training(train_batch_size=4000)."
        )
    if not config.in_evaluation and not problems:
        problems += _evaluation_problems(config)
    return problems


def _value_problems(setting: Setting, name: str, value: Any) -> list[str]:
    path = _search_space_in(value, name)
    if path:
        where = "tune.Tuner(..., param_space=config)"
        return [f"`{path}` is a search space of Tune. Give the configuration to it, {where}, or set a value."]
    problem = setting.allowed.problem(name, value)
    return [problem] if problem else []


def _search_space_in(value: Any, path: str) -> str | None:
    if is_search_space(value):
        return path
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return None
    return next(filter(None, (_search_space_in(item, f"{path}[{key!r}]") for key, item in items)), None)


def _module_problems(config: AlgorithmConfig) -> list[str]:
    spec = config.__dict__["_rl_module_spec"]
    given = config.__dict__["_model_config"]
    is_custom = isinstance(spec, type) or getattr(spec, "module_class", None) is not None
    if is_custom and config.model_config["custom_model"] is not None:
        ways = "rl_module(rl_module_spec=...) or training(model={'custom_model': ...})"
        return [f"`model['custom_model']` and `rl_module_spec` both name a network; give one of them: {ways}."]
    problems = []
    if not is_custom:
        is_dataclass = dataclasses.is_dataclass(given) and not isinstance(given, type)
        for key, value in (vars(given) if is_dataclass else given or {}).items():
            entry = MODEL_SETTINGS.get(key)
            if isinstance(entry, Setting):
                problems += _value_problems(entry, f"model_config[{key!r}]", value)
            elif isinstance(entry, Refused):
                entry.check(key, value)
            else:
                problems.append(
                    f"`model_config` has no setting {key!r}.{nearest(key, MODEL_SETTINGS)} Settings of one's own go to a "
                    "custom network: rl_module(rl_module_spec=RLModuleSpec(module_class=...), model_config={...})."
                )
    return problems


def _evaluation_problems(config: AlgorithmConfig) -> list[str]:
    problems = []
    if config.evaluation_parallel_to_training and not config.evaluation_num_env_runners:
        problems.append(
            "`evaluation_parallel_to_training` = True needs processes that evaluate: "
            "evaluation(evaluation_num_env_runners=1)."
        )
    if config.evaluation_parallel_to_training and config.custom_evaluation_function is not None:
        problems.append(
            "`custom_evaluation_function` works with the algorithm itself, which cannot train meanwhile: leave "
            "`evaluation_parallel_to_training` False."
        )
    if config.evaluation_duration == "auto" and not config.evaluation_parallel_to_training:
        problems.append(
            "`evaluation_duration` = 'auto' is the time that training takes, so it needs "
            "evaluation(evaluation_parallel_to_training=True, evaluation_num_env_runners=1)."
        )
    fewest = config.evaluation_auto_duration_min_env_steps_per_sample
    most = config.evaluation_auto_duration_max_env_steps_per_sample
    if fewest > most:
        problems.append(
            f"`evaluation_auto_duration_min_env_steps_per_sample` ({fewest}) must be <= "
            f"`evaluation_auto_duration_max_env_steps_per_sample` ({most})."
        )
    if not problems and config.evaluation_config:
        evaluation = config.get_evaluation_config_object()
        if evaluation is not None:
            problems += [f"In `evaluation_config`: {each}" for each in evaluation._problems()]
    return problems


def batch_problems(config: AlgorithmConfig) -> list[str]:
    """Whether minibatches fit into the train batch, and samples make it up to within a tenth."""
    problems = []
    per_learner, total = config.train_batch_size_per_learner, config.total_train_batch_size
    if config.minibatch_size is not None and config.minibatch_size > per_learner:
        problems.append(
            f"`minibatch_size` must be <= the train batch of a learner, `train_batch_size_per_learner`, which is "
            f"{per_learner}, got {config.minibatch_size}. Minibatches are parts of the train batch."
        )
    fragment = config.rollout_fragment_length
    if fragment == "auto":
        return problems
    environments = config.num_envs_per_env_runner * max(config.num_env_runners, 1)
    sampled = -(-total // (environments * fragment)) * environments * fragment
    if sampled - total > 0.1 * total:
        fitting = max(total // environments, 1)
        problems.append(
            f"The train batch of {total} steps (`train_batch_size`; {per_learner} for each of "
            f"{max(config.num_learners, 1)} learners) cannot be made up of samples: num_env_runners="
            f"{config.num_env_runners}, num_envs_per_env_runner={config.num_envs_per_env_runner} and "
            f"rollout_fragment_length={fragment} give multiples of {environments * fragment}, the next being {sampled}, "
            f"more than a tenth too many. Set `rollout_fragment_length` to 'auto' or {fitting}, or `train_batch_size` to "
            f"{sampled}."
        )
    return problems

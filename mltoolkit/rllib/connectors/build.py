"""The pipelines that a configuration asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorError, ConnectorV2
from mltoolkit.rllib.connectors.env_to_module import (
    ClipRewards,
    EnvToModulePipeline,
    FlattenObservations,
    FrameStackingEnvToModule,
    MeanStdFilter,
    NormalizeRewards,
    PrepareImages,
    PrevActionsPrevRewards,
)
from mltoolkit.rllib.connectors.module_to_env import ModuleToEnvPipeline

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["build_pipelines"]

# The keys of the spaces that a user's function gets, as in RLlib.
_ENV, _ENV_SINGLE = "__env__", "__env_single__"


def build_pipelines(
    config: Any,
    observation_space: Space,
    action_space: Space,
    num_envs: int,
    *,
    evaluation: bool | None = None,
    env: Any = None,
) -> tuple[EnvToModulePipeline, ModuleToEnvPipeline]:
    """Build what stands between environments and module.

    Observations go through the user's own connectors, then, unless ``add_default_connectors_to_env_to_module_pipeline``
    is off, through those that settings ask for: flattening where the module could not take them (images stay images),
    ``observation_filter``, ``frame_stack``, previous actions and rewards (``lstm_use_prev_action``,
    ``lstm_use_prev_reward``), ``clip_rewards`` and ``normalize_rewards``.

    Parameters
    ----------
    config : AlgorithmConfig
    observation_space, action_space : gymnasium.spaces.Space
        A single environment's.
    num_envs : int
        Environments that step together.
    evaluation : bool, optional
        Whether statistics stay as they are and rewards pass unchanged; by default ``config.in_evaluation``.
    env : VectorEnvironment, optional
        Handed to the user's functions.

    Returns
    -------
    tuple of EnvToModulePipeline and ModuleToEnvPipeline

    Raises
    ------
    ConnectorError
        If the user's functions or connectors fail; named.
    ValueError
        If settings and spaces do not go together.
    """
    if evaluation is None:
        evaluation = bool(getattr(config, "in_evaluation", False))
    given = (env, _spaces_of(observation_space, action_space, num_envs), None)
    connectors = _own(config._env_to_module_connector, "env_to_module_connector", given)
    space = observation_space
    for connector in connectors:
        # Asked once more by the pipeline, which names the connector of an error.
        space = _output_of(connector, space, action_space)
    if config.add_default_connectors_to_env_to_module_pipeline:
        connectors += _defaults(config, space)
    observe = EnvToModulePipeline(connectors, observation_space, action_space, num_envs, evaluation=evaluation)
    add_bounds = config.add_default_connectors_to_module_to_env_pipeline
    act = ModuleToEnvPipeline(
        action_space,
        bool(config.normalize_actions and add_bounds),
        bool(config.clip_actions and add_bounds),
        connectors=_own(config._module_to_env_connector, "module_to_env_connector", given[:2]),
    )
    return observe, act


def _output_of(connector: ConnectorV2, space: Space, action_space: Space) -> Space:
    try:
        connector.set_spaces(space, action_space)
    except Exception:
        return space
    return connector.observation_space


def _defaults(config: Any, space: Any) -> list[ConnectorV2]:
    """What the settings ask for, given the space of observations behind the user's connectors."""
    connectors: list[ConnectorV2] = []
    if _spaces.is_image(space):
        if len(space.shape) != 3 or space.dtype not in (np.uint8, np.float32):
            connectors.append(PrepareImages())
    elif not (_spaces.is_box(space) and len(space.shape) == 1 and space.dtype == np.float32):
        connectors.append(FlattenObservations())
    if config.observation_filter == "MeanStdFilter":
        connectors.append(MeanStdFilter())
    if config.frame_stack > 1:
        connectors.append(FrameStackingEnvToModule(num_frames=config.frame_stack))
    n_actions, n_rewards = (int(_model_setting(config, f"lstm_use_prev_{name}")) for name in ("action", "reward"))
    if n_actions or n_rewards:
        connectors.append(PrevActionsPrevRewards(n_prev_actions=n_actions, n_prev_rewards=n_rewards))
    clip = config.clip_rewards
    if clip is not None and clip is not False:
        connectors.append(ClipRewards(clip))
    if config.normalize_rewards:
        connectors.append(NormalizeRewards(gamma=config.gamma))
    return connectors


def _model_setting(config: Any, name: str) -> Any:
    settings = config.model_config
    value = settings.get(name) if isinstance(settings, Mapping) else getattr(settings, name, None)
    return value or False


def _spaces_of(observation_space: Any, action_space: Any, num_envs: int) -> dict[str, tuple[Any, Any]]:
    """The spaces as a user's function gets them: those of all environments together, and a single one's."""
    batch_space: Any = _spaces.vector_utils().batch_space
    together = (batch_space(observation_space, num_envs), batch_space(action_space, num_envs))
    return {_ENV: together, _ENV_SINGLE: (observation_space, action_space)}


def _own(function: Callable[..., Any] | None, setting: str, given: tuple[Any, ...]) -> list[ConnectorV2]:
    """The connectors that a user's function makes."""
    if function is None:
        return []
    if isinstance(function, ConnectorV2):
        raise ConnectorError(
            f"`{setting}` must be a function that makes connectors, since every runner needs its own, got the connector "
            f"{type(function).__name__}. Write `lambda env, spaces, device: ...`."
        )
    try:
        made = function(*given[: _num_positional(function, len(given))])
    except Exception as error:
        raise ConnectorError(f"`{setting}` raised {type(error).__name__}: {error}") from error
    connectors = list(made) if isinstance(made, (list, tuple)) else [made]
    for connector in connectors:
        if not isinstance(connector, ConnectorV2):
            raise ConnectorError(f"`{setting}` must return a ConnectorV2 or a list of them, got {connector!r}.")
    return connectors


def _num_positional(function: Callable[..., Any], most: int) -> int:
    """How many of the arguments a function takes: programs were written for one, two and three."""
    if isinstance(function, type):
        return 0  # a connector class: its parameters are settings
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return most
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return most
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return min(most, len(positional))

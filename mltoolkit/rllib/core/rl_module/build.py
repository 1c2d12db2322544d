"""Which module an algorithm's configuration asks for."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from mltoolkit.rllib.core.rl_module._model_config import as_dict
from mltoolkit.rllib.core.rl_module._spec import RLModuleSpec

if TYPE_CHECKING:
    from gymnasium.spaces import Space

    from mltoolkit.rllib.core.rl_module.rl_module import RLModule

__all__ = ["build_module"]


def build_module(config: Any, observation_space: Space[Any], action_space: Space[Any]) -> RLModule:
    """Build the module that ``config`` asks for, with freshly initialised weights from torch's generator.

    Parameters
    ----------
    config : AlgorithmConfig
        Its ``rl_module_spec`` goes first, then ``model["custom_model"]``, then the default network with
        ``model_config``.
    observation_space : gymnasium.spaces.Space
        What the module sees, after connectors.
    action_space : gymnasium.spaces.Space
        The environment's.

    Returns
    -------
    RLModule

    Raises
    ------
    TypeError
        If a custom class is no module, cannot be sent to other processes, or lacks a method; the message names it.
    ValueError
        For settings that the default network does not know.
    """
    spec = getattr(config, "rl_module_spec", None)
    settings = as_dict(getattr(config, "model_config", None))
    if isinstance(spec, type):
        spec = RLModuleSpec(module_class=spec)
    if spec is not None and not isinstance(spec, RLModuleSpec):
        raise TypeError(
            f"`rl_module_spec` must be an RLModuleSpec or a subclass of RLModule, got {spec!r} of type "
            f"`{type(spec).__name__}`."
        )
    if spec is not None and spec.learner_only:
        raise ValueError("`rl_module_spec` has `learner_only=True`, but it is the module that acts: leave it at False.")
    module_class: Any = None if spec is None else spec.module_class
    if module_class is None and (settings.get("custom_model") or settings.get("custom_action_dist")):
        from mltoolkit.rllib.models.torch._adapter import TorchModelV2Module

        module_class = TorchModelV2Module
    if module_class is None:
        from mltoolkit.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule

        module_class = DefaultPPOTorchRLModule
    else:
        _check_sendable(module_class, "module_class")
    if spec is not None and spec.model_config is not None:
        # A custom module's settings are its own; of a default one they go over those of the algorithm.
        own = as_dict(spec.model_config)
        settings = {**settings, **own} if _is_ours(module_class) else own
    module = RLModuleSpec(
        module_class=module_class,
        observation_space=observation_space
        if spec is None or spec.observation_space is None
        else spec.observation_space,
        action_space=action_space if spec is None or spec.action_space is None else spec.action_space,
        model_config=copy.deepcopy(settings),
    ).build()
    check_module(module)
    return module


def check_module(module: RLModule) -> None:
    """Raise a TypeError that says which methods of PPO's contract a custom module lacks."""
    from mltoolkit.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
    from mltoolkit.rllib.core.rl_module.rl_module import RLModule

    cls = type(module)
    missing = []
    phases = ("_forward_train", "_forward_exploration", "_forward_inference")
    if cls._forward is RLModule._forward:
        missing += [name for name in phases if getattr(cls, name) is getattr(RLModule, name)]
        if len(missing) == len(phases):
            missing = ["_forward"]
    if not callable(getattr(module, "compute_values", None)):
        missing.append("compute_values")
    if missing:
        names = " and ".join(f"`{name}`" for name in missing)
        raise TypeError(
            f"`{cls.__name__}` lacks {names}. PPO needs a subclass of RLModule with `_forward(batch)`, which returns "
            "{'action_dist_inputs': ...}, and of "
            f"{ValueFunctionAPI.__name__} with `compute_values(batch, embeddings=None)`, which returns a tensor of shape "
            "(B,)."
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TypeError(f"`{cls.__name__}` has no parameters to train: build its layers in `setup()`.")


def _is_ours(module_class: type) -> bool:
    return module_class.__module__.startswith("mltoolkit.")


def _check_sendable(cls: Any, name: str) -> None:
    import cloudpickle

    try:
        cloudpickle.dumps(cls)
    except Exception as error:
        raise TypeError(
            f"`{name}` = {cls!r} cannot be sent to other processes: {type(error).__name__}: {error}. Define it in a module "
            "that can be imported, or without references to open files, locks and the like."
        ) from error

"""Names of custom models and action distributions, and the defaults of the older ``model`` settings."""

from __future__ import annotations

import copy
import difflib
import inspect
from typing import Any

from mltoolkit.rllib.core.rl_module._model_config import model_defaults
from mltoolkit.tune import registry

__all__ = ["MODEL_DEFAULTS", "ModelCatalog"]

#: All settings of the older ``model`` dict with their defaults.
MODEL_DEFAULTS: dict[str, Any] = model_defaults()


class ModelCatalog:
    """The registry of custom models and action distributions.

    Examples
    --------
    >>> class Model: ...
    >>> ModelCatalog.register_custom_model("example_of_a_name", Model)
    """

    @staticmethod
    def register_custom_model(model_name: str, model_class: type) -> None:
        """Give a model a name for ``model={"custom_model": name}``. Registering a name again replaces it.

        Parameters
        ----------
        model_name : str
        model_class : type
            A subclass of TorchModelV2 and ``torch.nn.Module``; checked when it is built.

        Raises
        ------
        TypeError
            If the name is no string or the class no class.
        """
        _register("models", "model", model_name, model_class)

    @staticmethod
    def register_custom_action_dist(action_dist_name: str, action_dist_class: type) -> None:
        """Give an action distribution a name for ``model={"custom_action_dist": name}``.

        Parameters
        ----------
        action_dist_name : str
        action_dist_class : type
            A subclass of TorchDistributionWrapper, or of the newer TorchDistribution.

        Raises
        ------
        TypeError
            If the name is no string or the class no class.
        """
        _register("action_distributions", "action distribution", action_dist_name, action_dist_class)

    @staticmethod
    def get_model_v2(
        obs_space: Any,
        action_space: Any,
        num_outputs: int,
        model_config: dict[str, Any],
        framework: str = "torch",
        name: str = "default_model",
        model_interface: type | None = None,
        default_model: type | None = None,
        **model_kwargs: Any,
    ) -> Any:
        """Build the model that ``model_config`` names.

        Parameters
        ----------
        obs_space, action_space : gymnasium.spaces.Space
        num_outputs : int
        model_config : dict
            ``custom_model``, a class or a registered name, or ``default_model``; without both a FullyConnectedNetwork.
            ``custom_model_config`` goes to the constructor as keywords if it takes them, and stays in ``model_config``.
        framework : {'torch'}
        name : str
        model_interface : None
            Not supported.
        default_model : type, optional
        **model_kwargs
            More keywords for the constructor.

        Returns
        -------
        TorchModelV2

        Raises
        ------
        TypeError
            If the class is no TorchModelV2 or lacks a method.
        ValueError
            For unregistered names.
        """
        from torch import nn

        from mltoolkit.rllib.models.torch.fcnet import FullyConnectedNetwork
        from mltoolkit.rllib.models.torch.torch_modelv2 import TorchModelV2

        _check_torch(framework)
        if model_interface is not None:
            raise NotImplementedError("`model_interface` is not supported: derive the model from that class itself.")
        config = {**copy.deepcopy(MODEL_DEFAULTS), **model_config}
        given = config.get("custom_model")
        cls: Any = (
            lookup(registry.registered("models"), "model", given) if given else default_model or FullyConnectedNetwork
        )
        if not issubclass(cls, TorchModelV2) or not issubclass(cls, nn.Module):
            raise TypeError(
                f"The custom model {cls.__name__} must be derived from TorchModelV2 and torch.nn.Module: "
                f"`class {cls.__name__}(TorchModelV2, nn.Module)`. A subclass of RLModule goes into "
                "`config.rl_module(rl_module_spec=...)`."
            )
        missing = [f"`{method}`" for method in ("forward", "value_function") if _is_missing(cls, method)]
        if missing:
            raise TypeError(f"The custom model {cls.__name__} lacks {' and '.join(missing)}, which PPO needs.")
        kwargs = {**(config.get("custom_model_config") or {}), **model_kwargs}
        if kwargs and not _takes(cls, kwargs):
            kwargs = {}
        return cls(obs_space, action_space, num_outputs, config, name, **kwargs)

    @staticmethod
    def get_action_dist(
        action_space: Any,
        config: dict[str, Any] | None,
        dist_type: type | None = None,
        framework: str = "torch",
        **kwargs: Any,
    ) -> tuple[Any, int]:
        """Return the action distribution for a space and how many outputs it needs from a model.

        Parameters
        ----------
        action_space : gymnasium.spaces.Space
        config : dict or None
            The ``model`` settings; ``custom_action_dist`` is a class or a registered name.
        dist_type : type, optional
            Use this class.
        framework : {'torch'}

        Returns
        -------
        dist_class : type
            Called with ``(inputs, model)``.
        dist_dim : int
        """
        from functools import partial

        from mltoolkit.rllib.core.distribution._layout import action_layout
        from mltoolkit.rllib.models.torch import torch_action_dist as old

        _check_torch(framework)
        if kwargs:
            raise TypeError(f"`get_action_dist` takes no {sorted(kwargs)}.")
        config = config or {}
        given = dist_type or config.get("custom_action_dist")
        if given:
            cls = ModelCatalog.get_action_dist_class(given)
            return cls, int(cls.required_model_output_shape(action_space, config))
        layout = action_layout(action_space)
        if layout.kind == "categorical":
            return old.TorchCategorical, layout.num_inputs
        if layout.kind == "multi_categorical":
            made = partial(old.TorchMultiCategorical, input_lens=layout.sizes, action_space=action_space)
            return made, layout.num_inputs
        return partial(old.TorchDiagGaussian, action_space=action_space), layout.num_inputs

    @staticmethod
    def get_action_dist_class(given: Any) -> Any:
        """Return the class that ``custom_action_dist`` names, or is."""
        return lookup(registry.registered("action_distributions"), "action distribution", given)


def lookup(names: dict[str, type], what: str, given: Any) -> Any:
    """Return the class that is given, or registered under the given name."""
    if isinstance(given, type):
        return given
    if isinstance(given, str) and given in names:
        return names[given]
    near = difflib.get_close_matches(str(given), names, 1)
    register = "register_custom_model" if what == "model" else "register_custom_action_dist"
    raise ValueError(
        f"No custom {what} is registered as {given!r}.{f' Did you mean {near[0]!r}?' if near else ''} Registered: "
        f"{', '.join(sorted(names)) or 'none'}. Register yours with `ModelCatalog.{register}({given!r}, cls)`, or give the "
        "class itself."
    )


def _register(kind: str, what: str, name: Any, cls: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"The name of a custom {what} must be a string that is not empty, got {name!r}.")
    if not isinstance(cls, type):
        raise TypeError(f"A custom {what} is registered as a class, got {cls!r}.")
    registry.register(kind, name, cls)


def _check_torch(framework: str) -> None:
    if framework != "torch":
        raise ValueError(f"`framework` must be 'torch', the only one there is, got {framework!r}.")


def _is_missing(cls: Any, method: str) -> bool:
    """Whether the class has nothing but the bases' method that says it is missing."""
    from mltoolkit.rllib.models.modelv2 import ModelV2
    from mltoolkit.rllib.models.torch.recurrent_net import RecurrentNetwork

    if method == "forward" and cls.forward is RecurrentNetwork.forward:
        if cls.forward_rnn is RecurrentNetwork.forward_rnn:
            raise TypeError(f"The custom model {cls.__name__} lacks `forward_rnn`, which a RecurrentNetwork needs.")
        return False
    found = getattr(cls, method, None)
    # derived from nn.Module first, it is that class's placeholder that is found
    return found is getattr(ModelV2, method) or getattr(found, "__name__", "") == "_forward_unimplemented"


def _takes(cls: type, kwargs: dict[str, Any]) -> bool:
    """Whether the constructor takes all these keywords; those that take none read them in ``model_config``."""
    parameters = inspect.signature(cls).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return True
    positional = {"obs_space", "action_space", "num_outputs", "model_config", "name"}
    own = {parameter.name for parameter in parameters} - positional
    if own and (unknown := sorted(kwargs.keys() - own)):
        raise TypeError(
            f"The constructor of the custom model {cls.__name__} takes {sorted(own)} from `custom_model_config`, which has "
            f"{unknown} too."
        )
    return bool(own)

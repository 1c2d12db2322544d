"""The older contract of custom models."""

from __future__ import annotations

from typing import Any

from torch import nn

from mltoolkit.rllib.models.modelv2 import ModelV2

__all__ = ["TorchModelV2"]


class TorchModelV2(ModelV2):
    """Base class of custom models; derive from ``nn.Module`` too, and implement ``forward`` and ``value_function``.

    Parameters
    ----------
    obs_space, action_space : gymnasium.spaces.Space
    num_outputs : int
    model_config : dict
    name : str

    Raises
    ------
    TypeError
        If the class is not derived from ``nn.Module``.

    Examples
    --------
    >>> class Linear(TorchModelV2, nn.Module):
    ...     def __init__(self, obs_space, action_space, num_outputs, model_config, name):
    ...         TorchModelV2.__init__(self, obs_space, action_space, num_outputs, model_config, name)
    ...         nn.Module.__init__(self)
    ...         self.net = nn.Linear(obs_space.shape[0], num_outputs + 1)
    ...
    ...     def forward(self, input_dict, state, seq_lens):
    ...         out = self.net(input_dict["obs_flat"].float())
    ...         self.values = out[:, -1]
    ...         return out[:, :-1], state
    ...
    ...     def value_function(self):
    ...         return self.values
    """

    def __init__(
        self, obs_space: Any, action_space: Any, num_outputs: int | None, model_config: dict[str, Any], name: str
    ) -> None:
        if not isinstance(self, nn.Module):
            raise TypeError(
                f"`{type(self).__name__}` must be derived from both: class {type(self).__name__}(TorchModelV2, nn.Module)."
            )
        ModelV2.__init__(self, obs_space, action_space, num_outputs, model_config, name, framework="torch")
        self.tower_stats: dict[str, Any] = {}

    def variables(self, as_dict: bool = False) -> Any:
        """Return all parameters: a list, or a dict by name."""
        named = dict(self.named_parameters())  # type: ignore[attr-defined]
        return named if as_dict else list(named.values())

    def trainable_variables(self, as_dict: bool = False) -> Any:
        """Return the parameters that are trained: a list, or a dict by name."""
        named = {name: value for name, value in self.variables(as_dict=True).items() if value.requires_grad}
        return named if as_dict else list(named.values())

"""A multilayer perceptron under the older contract, to derive custom models from or to embed in them."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from mltoolkit.rllib.models.torch.misc import AppendBiasLayer, SlimFC, normc_initializer
from mltoolkit.rllib.models.torch.torch_modelv2 import TorchModelV2

__all__ = ["FullyConnectedNetwork"]


class FullyConnectedNetwork(TorchModelV2, nn.Module):
    """Dense layers as ``fcnet_hiddens`` and ``post_fcnet_hiddens`` say, with a value function.

    Parameters
    ----------
    obs_space, action_space : gymnasium.spaces.Space
    num_outputs : int or None
        None or 0: no output layer; outputs are those of the last hidden layer.
    model_config : dict
        ``fcnet_hiddens``, ``fcnet_activation``, ``post_fcnet_hiddens``, ``post_fcnet_activation``, ``no_final_linear``,
        ``vf_share_layers`` and ``free_log_std`` are used.
    name : str
    """

    def __init__(
        self, obs_space: Any, action_space: Any, num_outputs: int | None, model_config: dict[str, Any], name: str
    ) -> None:
        TorchModelV2.__init__(self, obs_space, action_space, num_outputs, model_config, name)
        nn.Module.__init__(self)
        hiddens = [(int(n), model_config.get("fcnet_activation")) for n in model_config.get("fcnet_hiddens") or []]
        hiddens += [
            (int(n), model_config.get("post_fcnet_activation")) for n in model_config.get("post_fcnet_hiddens") or []
        ]
        size = math.prod(obs_space.shape)
        self.free_log_std = bool(model_config.get("free_log_std")) and bool(num_outputs)
        outputs = num_outputs or 0
        if self.free_log_std:
            if outputs % 2:
                raise ValueError(f"`free_log_std` needs an even `num_outputs` (means, deviations), got {num_outputs}.")
            outputs //= 2
        self._value_branch_separate = None
        if not model_config.get("vf_share_layers", True):
            self._value_branch_separate, value_size = _stack(size, hiddens)
        if outputs and model_config.get("no_final_linear"):
            hiddens = [*hiddens[:-1], (outputs, hiddens[-1][1] if hiddens else None)]
            outputs = 0
        self._hidden_layers, last = _stack(size, hiddens)
        self._logits = SlimFC(last, outputs, normc_initializer(0.01)) if outputs else None
        if not num_outputs:
            self.num_outputs = last
        self._append_free_log_std = AppendBiasLayer((num_outputs or 0) // 2) if self.free_log_std else None
        self._value_branch = SlimFC(
            last if self._value_branch_separate is None else value_size, 1, normc_initializer(0.01)
        )
        self._features: Tensor | None = None
        self._last_flat_in: Tensor | None = None

    def forward(self, input_dict: Any, state: list[Any], seq_lens: Any) -> tuple[Tensor, list[Any]]:
        """Compute outputs from ``input_dict["obs_flat"]``."""
        obs = input_dict["obs_flat"].float()
        self._last_flat_in = obs.reshape(obs.shape[0], -1)
        self._features = self._hidden_layers(self._last_flat_in)
        out: Tensor = self._features if self._logits is None else self._logits(self._features)
        if self._append_free_log_std is not None:
            out = self._append_free_log_std(out)
        return out, state

    def value_function(self) -> Tensor:
        """Return the values of the last call's observations."""
        if self._features is None:
            raise RuntimeError("`value_function()` gives the values of the last `forward()`: call that first.")
        separate = self._value_branch_separate
        features = self._features if separate is None else separate(self._last_flat_in)
        result: Tensor = self._value_branch(features).squeeze(1)
        return result


def _stack(size: int, hiddens: list[tuple[int, Any]]) -> tuple[nn.Sequential, int]:
    layers = []
    for hidden, activation in hiddens:
        layers.append(SlimFC(size, hidden, normc_initializer(1.0), activation))
        size = hidden
    return nn.Sequential(*layers), size

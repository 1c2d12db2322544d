"""Recurrent models under the older contract."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mltoolkit.rllib.models.torch.torch_modelv2 import TorchModelV2

__all__ = ["RecurrentNetwork"]


class RecurrentNetwork(TorchModelV2):
    """Base class of recurrent models: implement ``forward_rnn``, which gets sequences with a time axis.

    Derive from ``nn.Module`` too, and implement ``get_initial_state`` and ``value_function``.
    """

    def forward(self, input_dict: Any, state: list[Any], seq_lens: Any) -> tuple[Tensor, list[Any]]:
        """Give the rows their time axis, call :meth:`forward_rnn`, and flatten its outputs again."""
        obs = input_dict["obs_flat"].float()
        inputs = obs.reshape(seq_lens.shape[0], -1, obs.shape[-1])
        if self.time_major:
            inputs = inputs.transpose(0, 1)
        outputs, state = self.forward_rnn(inputs, state, seq_lens)
        return outputs.reshape(-1, self.num_outputs), state

    def forward_rnn(self, inputs: Tensor, state: list[Any], seq_lens: Any) -> tuple[Tensor, list[Any]]:
        """Run over sequences.

        Parameters
        ----------
        inputs : Tensor of shape (B, T, obs_size)
            Padded with zeros at the ends.
        state : list of Tensor of shape (B, ...)
        seq_lens : Tensor of shape (B,)

        Returns
        -------
        outputs : Tensor of shape (B, T, num_outputs)
        state : list of Tensor of shape (B, ...)
        """
        raise NotImplementedError(f"`{type(self).__name__}` must implement `forward_rnn(inputs, state, seq_lens)`.")

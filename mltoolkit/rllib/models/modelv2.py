"""The older contract of custom models, without a framework."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

__all__ = ["InputDict", "ModelV2"]


class InputDict(dict[str, Any]):
    """What ``forward`` gets; says which keys there are when asked for another."""

    def __missing__(self, key: str) -> Any:
        raise KeyError(
            f"The model asked for {key!r}, but its inputs are {sorted(self)}. Previous actions and rewards are part of the "
            "observation with `lstm_use_prev_action` and `lstm_use_prev_reward`."
        )


class ModelV2:
    """Base class of :class:`~mltoolkit.rllib.models.torch.torch_modelv2.TorchModelV2`.

    Parameters
    ----------
    obs_space, action_space : gymnasium.spaces.Space
    num_outputs : int
        How many outputs :meth:`forward` returns per observation.
    model_config : dict
        The settings; ``custom_model_config`` are the user's own.
    name : str
    framework : str, default='torch'
    """

    def __init__(
        self,
        obs_space: Any,
        action_space: Any,
        num_outputs: int | None,
        model_config: dict[str, Any],
        name: str,
        framework: str = "torch",
    ) -> None:
        self.obs_space = obs_space
        self.action_space = action_space
        self.num_outputs: Any = num_outputs
        self.model_config = model_config
        self.name = name or "default_model"
        self.framework = framework
        self.time_major = bool(model_config.get("_time_major"))
        self._last_output: Any = None

    def get_initial_state(self) -> list[Any]:
        """Return the state at the beginning of an episode: arrays or tensors without a batch axis."""
        return []

    def forward(self, input_dict: Mapping[str, Any], state: list[Any], seq_lens: Any) -> tuple[Any, list[Any]]:
        """Compute outputs.

        Parameters
        ----------
        input_dict : dict
            ``"obs"``, ``"obs_flat"`` and ``"is_training"``.
        state : list of Tensor of shape (B, ...)
        seq_lens : Tensor of shape (B,) or None
            Of recurrent models: the length of each sequence. Sequences are padded to the same length and laid out one
            after the other.

        Returns
        -------
        outputs : Tensor of shape (rows, num_outputs)
        state : list of Tensor
        """
        raise NotImplementedError(f"`{type(self).__name__}` must implement `forward(input_dict, state, seq_lens)`.")

    def value_function(self) -> Any:
        """Return the values of the observations of the last :meth:`forward`, shape (rows,)."""
        raise NotImplementedError(f"`{type(self).__name__}` must implement `value_function()`.")

    def custom_loss(self, policy_loss: Any, loss_inputs: dict[str, Any]) -> Any:
        """Change the loss: ``policy_loss`` is a list of one tensor, ``loss_inputs`` the minibatch."""
        return policy_loss

    custom_loss._is_default = True  # type: ignore[attr-defined]  # learners look for models that override it

    def metrics(self) -> dict[str, Any]:
        """Return numbers to report with the learner's."""
        return {}

    def __call__(self, input_dict: Mapping[str, Any], state: Any = None, seq_lens: Any = None) -> tuple[Any, list[Any]]:
        """Call :meth:`forward`, with ``"obs_flat"`` added and the result checked."""
        inputs = InputDict(input_dict)
        obs = inputs["obs"]
        inputs.setdefault("obs_flat", obs.flatten(1) if getattr(obs, "ndim", 0) > 2 else obs)
        inputs.setdefault("is_training", False)
        result = self.forward(inputs, list(state or []), seq_lens)
        if not isinstance(result, tuple | list) or len(result) != 2 or not isinstance(result[1], list | tuple):
            raise TypeError(
                f"`{type(self).__name__}.forward()` must return a tuple (outputs, list of states), got {type(result)}."
            )
        self._last_output = result[0]
        return result[0], list(result[1])

    def last_output(self) -> Any:
        """Return the outputs of the last call."""
        return self._last_output

    def context(self) -> Any:
        """Return a context for computing; here one that does nothing."""
        return contextlib.nullcontext()

    def is_time_major(self) -> bool:
        """Whether sequences come with the time axis first."""
        return self.time_major

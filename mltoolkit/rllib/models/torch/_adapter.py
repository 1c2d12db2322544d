"""A module around a model of the older contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.distribution.torch_distribution import TorchDistribution
from mltoolkit.rllib.core.rl_module._model_config import old_model_config
from mltoolkit.rllib.core.rl_module._sequences import Pieces, cut
from mltoolkit.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from mltoolkit.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from mltoolkit.rllib.models.catalog import ModelCatalog

__all__ = ["TorchModelV2Module"]

Batch = dict[str, Any]


class TorchModelV2Module(TorchRLModule, ValueFunctionAPI):
    """Runs a TorchModelV2 where a module is expected.

    Parameters
    ----------
    observation_space, action_space : gymnasium.spaces.Space
    model_config : dict
        ``custom_model`` and ``custom_action_dist``, and the model's other settings.
    **kwargs
        Of RLModule.

    Attributes
    ----------
    model : TorchModelV2
    """

    handles_is_first = True

    def setup(self) -> None:
        """Build the model."""
        config = old_model_config(self.model_config)
        if config.get("use_lstm") and config.get("custom_model"):
            raise ValueError(
                "`use_lstm` puts an LSTM into the default network alone. For a recurrent custom model derive it from "
                "RecurrentNetwork and leave `use_lstm` at False."
            )
        if config.get("use_lstm") or (not config.get("custom_model") and len(self.observation_space.shape) != 1):
            raise ValueError(
                "`custom_action_dist` comes with a `custom_model`, or with flat observations and no LSTM. Write a "
                "TorchModelV2, or an RLModule whose `get_exploration_action_dist_cls()` and its siblings return the "
                "distribution."
            )
        num_outputs, distribution = self._distribution(config)
        self.model = ModelCatalog.get_model_v2(self.observation_space, self.action_space, num_outputs, config)
        if distribution is not None:
            model = self.model
            self.action_dist_cls = type(distribution.__name__, (_Wrapped,), {"cls": distribution, "model": model})
        self.num_outputs = num_outputs
        initial = self.model.get_initial_state()
        if not isinstance(initial, list | tuple):
            raise TypeError(
                f"`{type(self.model).__name__}.get_initial_state()` must return a list of arrays or tensors without a "
                f"batch axis, got {initial!r}."
            )
        self._initial = {f"state_{index}": _as_array(value) for index, value in enumerate(initial)}

    def _distribution(self, config: dict[str, Any]) -> tuple[int, Any]:
        """How many outputs the model needs, and the class of an older distribution, or None."""
        given = config.get("custom_action_dist")
        if not given:
            return self._action_dist_cls().required_input_dim(self.action_space), None
        cls = ModelCatalog.get_action_dist_class(given)
        if issubclass(cls, TorchDistribution):
            self.action_dist_cls = cls
            return int(cls.required_input_dim(self.action_space)), None
        missing = [
            name
            for name in ("sample", "deterministic_sample", "logp", "entropy", "kl", "required_model_output_shape")
            if not callable(getattr(cls, name, None))
        ]
        if missing:
            raise TypeError(
                f"The action distribution {cls.__name__} lacks {', '.join(f'`{name}`' for name in missing)}."
            )
        return int(cls.required_model_output_shape(self.action_space, config)), cls

    def get_initial_state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the model's state as ``{"state_0": array, ...}``."""
        return self._initial

    def _forward(self, batch: Batch, **kwargs: Any) -> Batch:
        outputs, _, state = self._run(batch, want_values=False)
        return {Columns.ACTION_DIST_INPUTS: outputs, **({Columns.STATE_OUT: state} if state else {})}

    def _forward_train(self, batch: Batch, **kwargs: Any) -> Batch:
        outputs, values, _ = self._run(batch)
        return {Columns.ACTION_DIST_INPUTS: outputs, Columns.EMBEDDINGS: values}

    def compute_values(self, batch: Batch, embeddings: Any | None = None) -> Tensor:
        """Return values; they come with the forward pass, whose ``"embeddings"`` they are."""
        if embeddings is not None:
            result: Tensor = embeddings
            return result
        values = self._run(batch)[1]
        assert values is not None
        return values

    def _run(self, batch: Batch, want_values: bool = True) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        obs = batch[Columns.OBS]
        if not self._initial:
            shape = obs.shape[: obs.ndim - len(self.observation_space.shape)]
            outputs, _ = self.model(self._inputs(obs.reshape(-1, *self.observation_space.shape)), [], None)
            self._check_outputs(outputs, shape.numel())
            values = self._values(shape.numel()).reshape(shape) if want_values else None
            return outputs.reshape(*shape, self.num_outputs), values, {}
        pieces: Pieces | None = cut(batch.get(Columns.IS_FIRST))
        state = [batch[Columns.STATE_IN][name] for name in self._initial]
        if pieces is not None:
            obs = pieces.split(obs)
            state = [
                pieces.split_state(value, initial) for value, initial in zip(state, self._initial.values(), strict=True)
            ]
            seq_lens = torch.from_numpy(pieces.lengths)
        else:
            seq_lens = torch.full((obs.shape[0],), obs.shape[1])
        rows, steps = obs.shape[:2]
        outputs, state = self.model(self._inputs(obs.flatten(0, 1), seq_lens), state, seq_lens.to(obs.device))
        self._check_outputs(outputs, rows * steps)
        if len(state) != len(self._initial):
            raise TypeError(
                f"`{type(self.model).__name__}` has {len(self._initial)} initial states, but `forward()` returned "
                f"{len(state)}."
            )
        outputs = outputs.reshape(rows, steps, self.num_outputs)
        values = self._values(rows * steps).reshape(rows, steps) if want_values else None
        if pieces is not None:
            outputs = pieces.merge(outputs)
            values = None if values is None else pieces.merge(values)
        if pieces is not None:
            # The state after a padded piece is that after its padding: better none than a wrong one.
            state = [] if pieces.is_padded else [pieces.merge_state(value) for value in state]
        return outputs, values, dict(zip(self._initial, state, strict=True)) if state else {}

    def _inputs(self, obs: Tensor, seq_lens: Tensor | None = None) -> Batch:
        inputs: Batch = {"obs": obs, "obs_flat": obs.flatten(1), "is_training": self.training}
        if seq_lens is not None:
            inputs["seq_lens"] = seq_lens
        return inputs

    def _check_outputs(self, outputs: Tensor, rows: int) -> None:
        if tuple(outputs.shape) != (rows, self.num_outputs):
            raise ValueError(
                f"`{type(self.model).__name__}.forward()` must return outputs of shape {(rows, self.num_outputs)}, that is "
                f"(rows, num_outputs), got {tuple(outputs.shape)}."
            )

    def _values(self, rows: int) -> Tensor:
        values: Tensor = self.model.value_function()
        if values.numel() != rows:
            raise ValueError(
                f"`{type(self.model).__name__}.value_function()` must return one value per row, shape {(rows,)}, got "
                f"{tuple(values.shape)}."
            )
        return values


class _Wrapped(TorchDistribution):
    """An older distribution behind the newer methods."""

    cls: Any
    model: Any

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits)
        self._shape = logits.shape[:-1]
        self._dist = type(self).cls(logits.reshape(-1, logits.shape[-1]), type(self).model)

    def logp(self, value: Tensor, **kwargs: Any) -> Tensor:
        result: Tensor = self._dist.logp(value.reshape(self._shape.numel(), *value.shape[len(self._shape) :]))
        return result.reshape(self._shape)

    def entropy(self) -> Tensor:
        result: Tensor = self._dist.entropy()
        return result.reshape(self._shape)

    def kl(self, other: Any) -> Tensor:
        result: Tensor = self._dist.kl(other._dist)
        return result.reshape(self._shape)

    def sample(
        self, *, sample_shape: tuple[int, ...] | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        if sample_shape or generator is not None:
            raise NotImplementedError("Older action distributions draw one sample, from torch's own generator.")
        return self._unflatten(self._dist.sample())

    def mode(self) -> Tensor:
        return self._unflatten(self._dist.deterministic_sample())

    def _unflatten(self, value: Tensor) -> Tensor:
        return value.reshape(*self._shape, *value.shape[1:])

    @staticmethod
    def required_input_dim(space: Any, **kwargs: Any) -> int:
        raise NotImplementedError("Ask `required_model_output_shape` of the distribution's own class.")


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array.astype(np.float32)

"""The network that PPO uses unless told otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.distribution._layout import action_layout
from mltoolkit.rllib.core.rl_module._model_config import as_dict, default_model_config
from mltoolkit.rllib.core.rl_module._networks import (
    ConvEncoder,
    FlatEncoder,
    LSTMLayer,
    dense_layers,
    is_image,
)
from mltoolkit.rllib.core.rl_module._sequences import cut
from mltoolkit.rllib.core.rl_module.apis.inference_only_api import InferenceOnlyAPI
from mltoolkit.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from mltoolkit.rllib.core.rl_module.numpy_policy import ACTIVATIONS, MLPDescription
from mltoolkit.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

__all__ = ["DefaultPPOTorchRLModule"]

Batch = dict[str, Any]

_POLICY_GAIN = 0.01  # near-uniform actions at first (Andrychowicz et al. 2020, Sec. 3.2)


class DefaultPPOTorchRLModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):
    """Encoder, perhaps an LSTM, and heads for the policy and the value function.

    Flat observations are encoded by dense layers (``fcnet_*``), images by convolutions (``conv_*``); ``head_fcnet_*``
    sets the dense layers of the heads. See
    :class:`~mltoolkit.rllib.core.rl_module.default_model_config.DefaultModelConfig` for all settings.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Box
        Of any shape; one of three dimensions is an image, as is one of two dimensions with ``conv_filters``. Pixels of
        type uint8 are divided by 255.
    action_space : gymnasium.spaces.Discrete, MultiDiscrete, MultiBinary or Box
    **kwargs
        Of :class:`~mltoolkit.rllib.core.rl_module.rl_module.RLModule`.

    Raises
    ------
    ValueError
        For other spaces, and unknown or unsupported model settings.
    """

    handles_is_first = True

    encoder: Any
    lstm: Any
    vf_encoder: Any
    vf_lstm: Any

    def setup(self) -> None:
        """Build the network."""
        config = default_model_config(self.model_config)
        self.config = config
        self.model_config = as_dict(config)
        layout = action_layout(self.action_space, squash=config.squash_output)
        continuous = layout.dtype == "float32"
        self._state_names = ("h", "c")
        self.encoder = self._build_encoder()
        self.lstm = LSTMLayer(config, self.encoder.num_outputs) if config.use_lstm else None
        size = (self.lstm or self.encoder).num_outputs
        self.vf_encoder = self.vf_lstm = None
        if not config.vf_share_layers:
            self.vf_encoder = self._build_encoder()
            self.vf_lstm = LSTMLayer(config, self.vf_encoder.num_outputs) if config.use_lstm else None
        free = continuous and config.free_log_std
        outputs = layout.num_inputs // 2 if free else layout.num_inputs
        self.pi = dense_layers(config, "head_fcnet", size, outputs, _POLICY_GAIN)
        self.vf = dense_layers(config, "head_fcnet", size, 1, 1.0)
        self.log_std = nn.Parameter(torch.zeros(outputs)) if free else None
        clip = float(config.log_std_clip_param)
        self._clip = clip if continuous and math.isfinite(clip) else None
        if self._clip is not None and not free:
            # Bounds for all outputs, means unbounded: a single operation instead of splitting and joining.
            bound = torch.full((layout.num_inputs,), math.inf)
            bound[outputs // 2 :] = self._clip
            self.register_buffer("_upper", bound, persistent=False)
            self.register_buffer("_lower", -bound, persistent=False)

    def _build_encoder(self) -> nn.Module:
        space, config = self.observation_space, self.config
        if getattr(space, "shape", None) is None:
            raise ValueError(
                f"The default network needs observations of a fixed shape (Box), got {space}. Add a connector that makes "
                "one of them: `config.env_runners(env_to_module_connector=...)`."
            )
        shape = tuple(int(n) for n in space.shape)
        if is_image(shape, config.conv_filters):
            return ConvEncoder(config, shape, space.dtype == np.uint8)
        return FlatEncoder(config, shape)

    def get_initial_state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return zeros for the LSTM's ``h`` and ``c`` (and ``vf_h``, ``vf_c`` of a separate value function)."""
        if not self.config.use_lstm:
            return {}
        names = self._state_names if self.config.vf_share_layers else (*self._state_names, "vf_h", "vf_c")
        return {name: np.zeros(self.config.lstm_cell_size, np.float32) for name in names}

    def get_non_inference_attributes(self) -> list[str]:
        """Return the parts of the value function; those with state are needed to carry it along."""
        return ["vf", "vf_encoder"] if not self.config.use_lstm else ["vf"]

    def _forward(self, batch: Batch, **kwargs: Any) -> Batch:
        if self.lstm is None:
            return {Columns.ACTION_DIST_INPUTS: self._head(self.encoder(batch[Columns.OBS]))}
        features, _, state = self._recur(batch)
        return {Columns.ACTION_DIST_INPUTS: self._head(features), Columns.STATE_OUT: state}

    def _forward_train(self, batch: Batch, **kwargs: Any) -> Batch:
        if self.lstm is None:
            features = self.encoder(batch[Columns.OBS])
            embeddings = features if self.vf_encoder is None else self.vf_encoder(batch[Columns.OBS])
            return {Columns.ACTION_DIST_INPUTS: self._head(features), Columns.EMBEDDINGS: embeddings}
        features, embeddings, state = self._recur(batch)
        out = {Columns.ACTION_DIST_INPUTS: self._head(features), Columns.EMBEDDINGS: embeddings}
        return {**out, Columns.STATE_OUT: state} if state else out

    def compute_values(self, batch: Batch, embeddings: Any | None = None) -> Tensor:
        """Estimate values, shape (B,) or (B, T); see the ValueFunctionAPI."""
        if embeddings is None:
            if self.lstm is None:
                embeddings = (self.encoder if self.vf_encoder is None else self.vf_encoder)(batch[Columns.OBS])
            else:
                embeddings = self._recur_values(batch)
        values: Tensor = self.vf(embeddings)
        return values.squeeze(-1)

    def _head(self, features: Tensor) -> Tensor:
        out: Tensor = self.pi(features)
        if self.log_std is not None:
            log_std = self.log_std if self._clip is None else self.log_std.clamp(-self._clip, self._clip)
            return torch.cat((out, log_std.expand_as(out)), -1)
        return out if self._clip is None else torch.clamp(out, self._lower, self._upper)

    def _recur(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Features of policy and value function, and the state after the last step, empty where rows were cut."""
        obs, state = batch[Columns.OBS], batch[Columns.STATE_IN]
        pieces = cut(batch.get(Columns.IS_FIRST))
        features, last = self.lstm(self.encoder(obs), (state["h"], state["c"]), pieces)
        states = {} if last is None else dict(zip(("h", "c"), last, strict=True))
        if self.vf_encoder is None:
            return features, features, states
        values, last = self.vf_lstm(self.vf_encoder(obs), (state["vf_h"], state["vf_c"]), pieces)
        return features, values, states if last is None else {**states, "vf_h": last[0], "vf_c": last[1]}

    def _recur_values(self, batch: Batch) -> Tensor:
        obs, state = batch[Columns.OBS], batch[Columns.STATE_IN]
        pieces = cut(batch.get(Columns.IS_FIRST))
        if self.vf_encoder is None:
            result: Tensor = self.lstm(self.encoder(obs), (state["h"], state["c"]), pieces)[0]
            return result
        result = self.vf_lstm(self.vf_encoder(obs), (state["vf_h"], state["vf_c"]), pieces)[0]
        return result

    def describe_policy(self) -> MLPDescription | None:
        """Describe the policy network for :class:`~mltoolkit.rllib.core.rl_module.numpy_policy.NumpyPolicy`."""
        if type(self) is not DefaultPPOTorchRLModule or self.lstm is not None:
            return None
        if not isinstance(self.encoder, FlatEncoder):
            return None
        layers: list[tuple[str, str, str]] = []
        for prefix, stack in (("encoder.net", self.encoder.net), ("pi", self.pi)):
            for index, layer in enumerate(stack):
                if isinstance(layer, nn.Linear):
                    layers.append((f"{prefix}.{index}.weight", f"{prefix}.{index}.bias", "linear"))
                elif (name := _activation_name(layer)) is not None and layers and layers[-1][2] == "linear":
                    layers[-1] = (*layers[-1][:2], name)
                else:
                    return None
        layout = action_layout(self.action_space, squash=self.config.squash_output)
        return MLPDescription(
            layers=tuple(layers),
            num_inputs=math.prod(self.encoder.shape),
            num_outputs=layout.num_inputs,
            log_std=None if self.log_std is None else "log_std",
            log_std_clip=self._clip,
            squash=layout.kind == "squashed_gaussian",
        )


_NAMES = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.ELU: "elu",
    nn.SiLU: "swish",
    nn.Sigmoid: "sigmoid",
    nn.LeakyReLU: "leaky_relu",
}


def _activation_name(layer: nn.Module) -> str | None:
    """Name of an activation that numpy has too, else None."""
    name = _NAMES.get(type(layer))
    return name if name in ACTIVATIONS else None

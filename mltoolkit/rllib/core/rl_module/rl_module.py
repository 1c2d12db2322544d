"""The base class of policies and value functions: a torch module with RLlib's methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.distribution.torch_distribution import TorchDistribution, make_torch_distribution_cls
from mltoolkit.rllib.core.rl_module._model_config import as_dict
from mltoolkit.rllib.core.rl_module._sequences import Pieces, cut, map_tensors
from mltoolkit.rllib.core.rl_module._spec import RLModuleSpec
from mltoolkit.rllib.core.rl_module.apis.inference_only_api import InferenceOnlyAPI

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gymnasium.spaces import Space

__all__ = ["RLModule", "RLModuleSpec"]

Batch = dict[str, Any]


class RLModule(nn.Module):
    """Base class of modules.

    Build the network in :meth:`setup` and compute in :meth:`_forward`, or, where training or acting without exploration
    differ, in :meth:`_forward_train`, :meth:`_forward_exploration` and :meth:`_forward_inference`. They return a dict
    with ``"action_dist_inputs"``, and, when acting, may return ``"actions"`` and ``"action_logp"`` themselves. PPO
    needs :class:`~mltoolkit.rllib.core.rl_module.apis.value_function_api.ValueFunctionAPI` too.

    Modules with state (whose :meth:`get_initial_state` is not empty) get observations of shape (B, T, ...) and
    ``batch["state_in"]`` of shape (B, ...), and return ``"state_out"`` alike; T is 1 when acting. In training no sequence
    reaches past the end of an episode: rows are cut there and padded with zeros at their ends.

    Parameters
    ----------
    observation_space, action_space : gymnasium.spaces.Space
        What the module sees, after connectors, and acts in.
    inference_only : bool, default=False
        Leave away what only learning needs.
    learner_only : bool, default=False
        Kept as an attribute.
    model_config : dict or DefaultModelConfig, optional
        Settings; in ``self.model_config`` as a dict.
    catalog_class : type, optional
        Not supported.

    Attributes
    ----------
    framework : str
        ``"torch"``.
    handles_is_first : bool
        Class attribute of modules with state. True: the module resets its state by itself where
        ``batch["is_first"]``, of shape (B, T), says so, and gets uncut rows.

    Examples
    --------
    >>> class Linear(RLModule):
    ...     def setup(self):
    ...         self.net = nn.Linear(4, 2)
    ...
    ...     def _forward(self, batch, **kwargs):
    ...         return {"action_dist_inputs": self.net(batch["obs"])}
    """

    framework = "torch"
    handles_is_first = False

    def __init__(
        self,
        observation_space: Space[Any] | None = None,
        action_space: Space[Any] | None = None,
        *,
        inference_only: bool = False,
        learner_only: bool = False,
        model_config: Any = None,
        catalog_class: type | None = None,
    ) -> None:
        super().__init__()
        if catalog_class is not None:
            raise NotImplementedError(
                f"`catalog_class` = {catalog_class!r} is not supported: build the network in `setup()`."
            )
        self.observation_space: Any = observation_space
        self.action_space: Any = action_space
        self.inference_only = bool(inference_only)
        self.learner_only = bool(learner_only)
        self.model_config = as_dict(model_config)
        self.action_dist_cls: Any = None
        self._stateful: bool | None = None
        self.setup()
        if self.inference_only and isinstance(self, InferenceOnlyAPI):
            for name in self.get_non_inference_attributes():
                _delete(self, name)

    def setup(self) -> None:
        """Build the network; called once, by the constructor, after all attributes are set."""

    def _forward(self, batch: Batch, **kwargs: Any) -> Batch:
        """Compute outputs from a batch, in all phases."""
        raise NotImplementedError(
            f"`{type(self).__name__}` must implement `_forward(batch)`, or `_forward_train`, `_forward_exploration` and "
            "`_forward_inference`."
        )

    def _forward_inference(self, batch: Batch, **kwargs: Any) -> Batch:
        """Compute outputs for acting without exploration, without gradients."""
        with torch.no_grad():
            return self._forward(batch, **kwargs)

    def _forward_exploration(self, batch: Batch, **kwargs: Any) -> Batch:
        """Compute outputs for acting with exploration, without gradients."""
        with torch.no_grad():
            return self._forward(batch, **kwargs)

    def _forward_train(self, batch: Batch, **kwargs: Any) -> Batch:
        """Compute outputs for the loss."""
        return self._forward(batch, **kwargs)

    def forward_inference(self, batch: Batch, **kwargs: Any) -> Batch:
        """Act without exploration. Override :meth:`_forward_inference` instead.

        Parameters
        ----------
        batch : dict
            ``"obs"`` of shape (B, ...); for modules with state (B, ...) or (B, T, ...), and ``"state_in"``, a dict of
            tensors of shape (B, ...).

        Returns
        -------
        dict
        """
        return self._act(self._forward_inference, batch, kwargs)

    def forward_exploration(self, batch: Batch, **kwargs: Any) -> Batch:
        """Act with exploration. Override :meth:`_forward_exploration` instead.

        Parameters
        ----------
        batch : dict
            As of :meth:`forward_inference`.
        """
        return self._act(self._forward_exploration, batch, kwargs)

    def forward_train(self, batch: Batch, **kwargs: Any) -> Batch:
        """Compute what the loss needs. Override :meth:`_forward_train` instead.

        Parameters
        ----------
        batch : dict
            ``"obs"`` of shape (B, ...). For modules with state of shape (B, T, ...), with ``"state_in"`` and, where
            episodes begin within rows, ``"is_first"``, bool of shape (B, T). The result equals acting step by step,
            without ``"state_out"`` where rows had to be cut.

        Raises
        ------
        RuntimeError
            If the module was built with ``inference_only=True``.
        """
        if self.inference_only:
            raise RuntimeError(
                f"This {type(self).__name__} was built with `inference_only=True` and cannot be trained: build it with "
                "`inference_only=False`."
            )
        if not self.training:
            self.train()
        pieces = self._cut(batch)
        if pieces is None:
            return self._forward_train(batch, **kwargs)
        out = self._forward_train(self._pieces_batch(pieces, batch), **kwargs)
        # The state after a padded piece is that after its padding: better none than a wrong one.
        out.pop(Columns.STATE_OUT, None)
        return {key: map_tensors(pieces.merge, value) for key, value in out.items()}

    def values(self, batch: Batch, embeddings: Any | None = None) -> Tensor:
        """Values of a training batch: ``compute_values`` of the ValueFunctionAPI, for uncut rows.

        Parameters
        ----------
        batch : dict
            As of :meth:`forward_train`.
        embeddings : object, optional
            What :meth:`forward_train` returned as ``"embeddings"`` for the same batch.

        Returns
        -------
        Tensor of shape (B,) or (B, T)
        """
        compute: Callable[..., Tensor] = self.compute_values
        pieces = self._cut(batch)
        if pieces is None:
            return compute(batch, embeddings)
        if embeddings is not None:
            embeddings = map_tensors(pieces.split, embeddings)
        return pieces.merge(compute(self._pieces_batch(pieces, batch), embeddings))

    def forward(self, batch: Batch, **kwargs: Any) -> Batch:
        """Compute :meth:`forward_train`, or :meth:`forward_exploration` of a module for inference only."""
        return self.forward_exploration(batch, **kwargs) if self.inference_only else self.forward_train(batch, **kwargs)

    def get_initial_state(self) -> dict[str, Any]:
        """Return the state at the beginning of an episode.

        Returns
        -------
        dict of str to ndarray
            Without a batch axis; empty for modules without state.
        """
        return {}

    def is_stateful(self) -> bool:
        """Whether the module has state that is carried from step to step."""
        if self._stateful is None:
            state = self.get_initial_state()
            if not isinstance(state, dict):
                raise TypeError(
                    f"`{type(self).__name__}.get_initial_state()` must return a dict of arrays, got {state!r}."
                )
            self._stateful = bool(state)
        return self._stateful

    def get_inference_action_dist_cls(self) -> type[TorchDistribution]:
        """Return the class of the action distribution for acting without exploration."""
        return self._action_dist_cls()

    def get_exploration_action_dist_cls(self) -> type[TorchDistribution]:
        """Return the class of the action distribution for acting with exploration."""
        return self._action_dist_cls()

    def get_train_action_dist_cls(self) -> type[TorchDistribution]:
        """Return the class of the action distribution for computing losses."""
        return self._action_dist_cls()

    def get_state(
        self, components: Any = None, *, not_components: Any = None, inference_only: bool = False, **kwargs: Any
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return all weights and buffers, as copies.

        Parameters
        ----------
        components, not_components : None
            A single module has no components: anything else than None is an error.
        inference_only : bool, default=False
            Leave away what only learning needs.

        Returns
        -------
        dict of str to ndarray
        """
        if components is not None or not_components is not None or kwargs:
            raise ValueError("`get_state()` of a single module takes `inference_only` alone: it has no components.")
        hidden = self._non_inference_prefixes() if inference_only else ()
        return {
            name: value.detach().cpu().numpy().copy()
            for name, value in self.state_dict().items()
            if not name.startswith(hidden)
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over weights and buffers.

        Parameters
        ----------
        state : mapping of str to ndarray or Tensor
            From :meth:`get_state` of a module of the same shape. What only learning needs may be missing, or too much.

        Raises
        ------
        ValueError
            If names or shapes differ; nothing is changed then.
        """
        own = self.state_dict()
        hidden = self._non_inference_prefixes()
        missing = sorted(name for name in own.keys() - state.keys() if not name.startswith(hidden))
        extra = sorted(name for name in state.keys() - own.keys() if not name.startswith(hidden))
        shapes = [
            f"{name} is {tuple(own[name].shape)} here and {tuple(np.shape(state[name]))} there"
            for name in own.keys() & state.keys()
            if tuple(own[name].shape) != tuple(np.shape(state[name]))
        ]
        if missing or extra or shapes:
            problems = [f"missing {missing}"] * bool(missing) + [f"unknown {extra}"] * bool(extra) + sorted(shapes)
            raise ValueError(
                f"The state is not that of this {type(self).__name__}: {'; '.join(problems)}. Build the module with the "
                "same spaces and model settings as the one that the state is from."
            )
        with torch.no_grad():
            for name in own.keys() & state.keys():
                value = state[name]
                # np.array: an array from shared memory is read-only, which torch warns about
                own[name].copy_(value if isinstance(value, Tensor) else torch.from_numpy(np.array(value)))

    def unwrapped(self) -> RLModule:
        """Return the module itself."""
        return self

    def _action_dist_cls(self) -> Any:
        if self.action_dist_cls is None:
            squash = bool(self.model_config.get("squash_output", False))
            self.action_dist_cls = make_torch_distribution_cls(self.action_space, squash=squash)
        return self.action_dist_cls

    def _act(self, function: Callable[..., Batch], batch: Batch, kwargs: dict[str, Any]) -> Batch:
        if self.training:
            self.eval()
        obs = batch[Columns.OBS]
        if not self.is_stateful() or not isinstance(obs, Tensor) or obs.ndim > 1 + len(self.observation_space.shape):
            return function(batch, **kwargs)
        # One step of each row: give it the time axis that modules with state have, and take it away again.
        timed = {key: value.unsqueeze(1) if isinstance(value, Tensor) else value for key, value in batch.items()}
        out = function(timed, **kwargs)
        return {
            key: value if key == Columns.STATE_OUT else map_tensors(_drop_time, value) for key, value in out.items()
        }

    def _cut(self, batch: Batch) -> Pieces | None:
        if self.handles_is_first or Columns.STATE_IN not in batch:
            return None
        return cut(batch.get(Columns.IS_FIRST))

    def _pieces_batch(self, pieces: Pieces, batch: Batch) -> Batch:
        initial = self.get_initial_state()
        rows = {key: value for key, value in batch.items() if key not in (Columns.STATE_IN, Columns.SEQ_LENS)}
        result = {key: map_tensors(pieces.split, value) for key, value in rows.items()}
        result[Columns.STATE_IN] = {
            name: pieces.split_state(value, initial[name]) for name, value in batch[Columns.STATE_IN].items()
        }
        result[Columns.SEQ_LENS] = torch.from_numpy(pieces.lengths)
        return result

    def _non_inference_prefixes(self) -> tuple[str, ...]:
        if not isinstance(self, InferenceOnlyAPI):
            return ()
        names = self.get_non_inference_attributes()
        return tuple(f"{name}." for name in names)


def _drop_time(value: Tensor) -> Tensor:
    return value.squeeze(1) if value.ndim > 1 else value


def _delete(module: nn.Module, name: str) -> None:
    owner, _, last = name.rpartition(".")
    target: Any = module
    for part in owner.split(".") if owner else ():
        target = getattr(target, part, None)
    if target is not None and hasattr(target, last):
        delattr(target, last)

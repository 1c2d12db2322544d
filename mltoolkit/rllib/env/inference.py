"""From observations to actions where environments are stepped.

A plain multilayer perceptron runs in numpy: a process that only steps environments then needs no torch, which takes
seconds to import, and for the few rows of a vector environment numpy's calls cost less than torch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.distribution.numpy_distribution import make_numpy_distribution
from mltoolkit.rllib.core.rl_module.numpy_policy import NumpyPolicy

if TYPE_CHECKING:
    from mltoolkit.rllib.core.rl_module.numpy_policy import MLPDescription
    from mltoolkit.rllib.core.rl_module.rl_module import RLModule

__all__ = ["Inference", "NumpyInference", "TorchInference", "make_inference", "parameter_names"]

State = dict[str, np.ndarray]

# Multiplications of a forward pass below which one thread is as fast as several.
_SINGLE_THREAD_WORK = 50e6


class Inference(Protocol):
    """A policy as a runner uses it."""

    module: Any
    num_inputs: int
    max_seq_len: int

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        """Act by these weights from now on."""
        ...

    def initial_state(self, num_envs: int) -> State:
        """What episodes begin with: (N, ...) arrays by name; {} without memory."""
        ...

    def __call__(
        self, obs: np.ndarray, state: State, rng: np.random.Generator, explore: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, State]:
        """Actions, their log-probabilities, the distribution's inputs and the next state, (N, ...) each."""
        ...


def parameter_names(description: MLPDescription) -> list[str]:
    """The weights that a described network needs: not those of the value function, for one."""
    names = [name for weight, bias, _ in description.layers for name in (weight, bias)]
    return names if description.log_std is None else [*names, description.log_std]


def make_inference(
    config: Any, observation_space: Any, action_space: Any, description: MLPDescription | None, module: Any = None
) -> Inference:
    """A policy without torch where `description` says all, else the torch module that `config` asks for."""
    if description is not None:
        return NumpyInference(description, action_space)
    if module is None:
        from mltoolkit.rllib.core.rl_module.build import build_module

        module = build_module(config, observation_space, action_space)
    return TorchInference(module, action_space)


class NumpyInference:
    """A multilayer perceptron in numpy.

    Parameters
    ----------
    description : MLPDescription
    action_space : gymnasium.Space
    """

    module = None
    max_seq_len = 0

    def __init__(self, description: MLPDescription, action_space: Any) -> None:
        self._policy = NumpyPolicy(description)
        self._distribution = make_numpy_distribution(action_space, squash=description.squash)
        self.num_inputs = self._distribution.num_inputs

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        """Act by these weights from now on."""
        self._policy.set_weights(weights)

    def initial_state(self, num_envs: int) -> State:
        """What episodes begin with: (N, ...) arrays by name; {} without memory."""
        return {}

    def __call__(
        self, obs: np.ndarray, state: State, rng: np.random.Generator, explore: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, State]:
        """Actions, their log-probabilities, the distribution's inputs and the next state."""
        # NaN observations pass through here before the runner's check of the fragment names them.
        with np.errstate(invalid="ignore"):
            inputs = self._policy(obs)
            if explore:
                actions, logp = self._distribution.sample(inputs, rng)
            else:
                actions = self._distribution.mode(inputs)
                logp = self._distribution.logp(inputs, actions)
        return actions, logp, inputs, state


class TorchInference:
    """Any torch module, recurrent ones included.

    Parameters
    ----------
    module : RLModule
    action_space : gymnasium.Space
    """

    def __init__(self, module: RLModule, action_space: Any) -> None:
        import torch

        self._torch = torch
        self.module = module
        self.module.eval()
        distribution = module.get_exploration_action_dist_cls()
        # The usual distributions are sampled in numpy, from one generator; a module's own one samples for itself.
        usual = distribution.__module__.startswith("mltoolkit.rllib.core.distribution.")
        self._own = None if usual else distribution
        self._own_deterministic = module.get_inference_action_dist_cls()
        self._distribution = None
        if usual:
            from mltoolkit.rllib.core.distribution.torch_distribution import TorchSquashedGaussian

            squash = issubclass(distribution, TorchSquashedGaussian)
            self._distribution = make_numpy_distribution(action_space, squash=squash)
            self.num_inputs = self._distribution.num_inputs
        else:
            self.num_inputs = distribution.required_input_dim(action_space, model_config=module.model_config)
        self.max_seq_len = int(module.model_config.get("max_seq_len", 20)) if module.is_stateful() else 0
        weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        # Convolutions use each weight often.
        self._work = float("inf") if any(w.ndim > 2 for w in weights) else sum(w.numel() for w in weights)

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        """Act by these weights from now on."""
        self.module.set_state(weights)

    def initial_state(self, num_envs: int) -> State:
        """What episodes begin with: (N, ...) arrays by name; {} without memory."""
        return {
            name: np.repeat(np.asarray(value, np.float32)[None], num_envs, axis=0)
            for name, value in self.module.get_initial_state().items()
        }

    def __call__(
        self, obs: np.ndarray, state: State, rng: np.random.Generator, explore: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, State]:
        """Actions, their log-probabilities, the distribution's inputs and the next state."""
        torch = self._torch
        threads = torch.get_num_threads()
        if threads == 1 or self._work * len(obs) >= _SINGLE_THREAD_WORK:
            return self._act(obs, state, rng, explore)
        # Small matrices are multiplied faster by one thread than it takes to wait for others, much so where the
        # machine has other things to do.
        torch.set_num_threads(1)
        try:
            return self._act(obs, state, rng, explore)
        finally:
            torch.set_num_threads(threads)

    def _act(
        self, obs: np.ndarray, state: State, rng: np.random.Generator, explore: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, State]:
        torch = self._torch
        batch: dict[str, Any] = {Columns.OBS: torch.from_numpy(np.ascontiguousarray(obs))}
        if state:
            batch[Columns.STATE_IN] = {name: torch.from_numpy(value) for name, value in state.items()}
        with torch.inference_mode():
            out = self.module.forward_exploration(batch) if explore else self.module.forward_inference(batch)
            if Columns.STATE_OUT in out:
                state = {name: value.numpy() for name, value in out[Columns.STATE_OUT].items()}
            if Columns.ACTION_DIST_INPUTS not in out:
                return (*self._given(out), state)
            raw = out[Columns.ACTION_DIST_INPUTS]
            inputs = raw.numpy()
            if Columns.ACTIONS in out:
                actions = out[Columns.ACTIONS].numpy()
                return actions, self._logp(out, raw, inputs, actions), inputs, state
            if self._distribution is None:
                return (*self._sample_own(raw, rng, explore), inputs, state)
        if explore:
            actions, logp = self._distribution.sample(inputs, rng)
        else:
            actions = self._distribution.mode(inputs)
            logp = self._distribution.logp(inputs, actions)
        return actions, logp, inputs, state

    def _given(self, out: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if Columns.ACTIONS not in out:
            raise ValueError(
                f"`{type(self.module).__name__}` must return {Columns.ACTION_DIST_INPUTS!r} or {Columns.ACTIONS!r} from "
                f"its forward methods, got the keys {sorted(out)}."
            )
        actions = out[Columns.ACTIONS].numpy()
        logp = out.get(Columns.ACTION_LOGP)
        logp = np.zeros(len(actions), np.float32) if logp is None else logp.numpy()
        return actions, logp, np.zeros((len(actions), 0), np.float32)

    def _logp(self, out: dict[str, Any], raw: Any, inputs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        if Columns.ACTION_LOGP in out:
            return np.asarray(out[Columns.ACTION_LOGP].numpy())
        if self._distribution is not None:
            return self._distribution.logp(inputs, actions)
        assert self._own is not None
        return np.asarray(self._own.from_logits(raw).logp(out[Columns.ACTIONS]).numpy())

    def _sample_own(self, raw: Any, rng: np.random.Generator, explore: bool) -> tuple[np.ndarray, np.ndarray]:
        torch = self._torch
        assert self._own is not None
        if not explore:
            distribution = self._own_deterministic.from_logits(raw)
            actions = distribution.to_deterministic().sample()
        else:
            distribution = self._own.from_logits(raw)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(2**63)))
                actions = distribution.sample()
        return actions.numpy(), distribution.logp(actions).numpy()

"""The policy of an algorithm as an object of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm import Algorithm

__all__ = ["Policy", "PolicySpec", "RunnerPolicy"]


class PolicySpec:
    """The policy of a multi-agent configuration; there is none here, and the class says so."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "Several policies are not supported: an algorithm has one. Leave `multi_agent(...)` away, or wrap the "
            "environment as one of a single agent."
        )


class Policy:
    """The policy of an algorithm, which goes on training: what is computed follows the current weights.

    Parameters
    ----------
    algorithm : Algorithm
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self.observation_space = algorithm.observation_space
        self.action_space = algorithm.action_space
        self.config = algorithm.config

    @property
    def model(self) -> Any:
        """The torch module with the current weights."""
        return self._algorithm.get_module()

    def compute_single_action(
        self, obs: Any = None, state: Any = None, *, explore: bool | None = None, **options: Any
    ) -> tuple[Any, list[np.ndarray], dict[str, Any]]:
        """The action for an observation, as the policy gives it: before it is fitted to the action space.

        Returns
        -------
        action, state, extra
            ``extra`` has ``action_logp``, ``action_prob`` and ``action_dist_inputs``.
        """
        options.setdefault("unsquash_action", False)
        action, state, extra = self._algorithm.compute_single_action(
            obs, state, explore=explore, full_fetch=True, **options
        )
        return action, list(state.values()) if isinstance(state, Mapping) else state, extra

    def compute_actions(
        self, obs_batch: Any, state_batches: Any = None, *, explore: bool | None = None, **options: Any
    ) -> tuple[np.ndarray, list[Any], dict[str, Any]]:
        """Actions for a batch of observations, as the policy gives them.

        Returns
        -------
        actions : ndarray of shape (B, ...)
        states : list of dict
        extra : dict of str to ndarray
        """
        options.setdefault("unsquash_actions", False)
        actions, states, extra = self._algorithm.compute_actions(
            obs_batch, state_batches or None, explore=explore, full_fetch=True, **options
        )
        return actions, states, extra

    def get_initial_state(self) -> list[np.ndarray]:
        """What a recurrent policy starts an episode from; [] for others."""
        return list(self._algorithm.get_initial_state().values())

    def is_recurrent(self) -> bool:
        """Whether the policy has a state."""
        return bool(self._algorithm.get_initial_state())

    def get_weights(self) -> dict[str, np.ndarray]:
        """Weights by parameter name."""
        return self._algorithm.get_weights()["default_policy"]

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace the weights."""
        self._algorithm.set_weights({"default_policy": weights})

    def export_model(self, export_dir: str | os.PathLike[str], onnx: int | None = None) -> str:
        """Write the policy for use without mltoolkit; with `onnx` as ONNX, else for torch.

        Returns
        -------
        str
            The file.
        """
        os.makedirs(export_dir, exist_ok=True)
        return self._algorithm.export(os.path.join(export_dir, "model.onnx" if onnx else "model.pt"))


class RunnerPolicy:
    """The policy of an environment runner, for looking at in ``foreach_worker(lambda worker: worker.get_policy()...)``.

    Parameters
    ----------
    runner : SingleAgentEnvRunner
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.observation_space, self.action_space = runner.spaces()
        self.config = runner.config

    @property
    def model(self) -> Any:
        """The torch module; None where the policy runs in numpy."""
        return self._runner.module

    def get_weights(self) -> dict[str, np.ndarray]:
        """Weights by parameter name; without those of the value function where the policy runs in numpy."""
        weights: dict[str, np.ndarray] = self._runner.get_weights()["default_policy"]
        return weights

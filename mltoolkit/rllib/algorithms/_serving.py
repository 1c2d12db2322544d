"""Actions for observations of the user's: what ``compute_single_action`` and its kin do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.env.inference import make_inference

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm import Algorithm

__all__ = ["ActionServer"]


class ActionServer:
    """The algorithm's policy with its filters, apart from the environments that training steps.

    Parameters
    ----------
    algorithm : Algorithm
    seed : tuple of int
        What sampled actions are drawn from.
    """

    def __init__(self, algorithm: Algorithm, seed: tuple[int, ...]) -> None:
        self._algorithm = algorithm
        self._rng = np.random.default_rng(np.random.SeedSequence(seed))
        self._inference = make_inference(
            algorithm.config,
            algorithm.pipeline.observation_space,
            algorithm.action_space,
            algorithm.description,
            module=None if algorithm.description is not None else algorithm.fresh_module(),
        )
        self._version = -1

    def initial_state(self) -> dict[str, np.ndarray]:
        """What a recurrent policy starts an episode from: a dict of (H,) arrays; {} for others."""
        return {name: value[0] for name, value in self._inference.initial_state(1).items()}

    def compute(
        self,
        observations: list[Any],
        states: list[dict[str, np.ndarray]] | None,
        explore: bool,
        *,
        prev_actions: list[Any] | None = None,
        prev_rewards: list[float] | None = None,
        for_env: bool = True,
        stream: Any = None,
    ) -> tuple[np.ndarray, list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
        """Actions for a batch of observations.

        Parameters
        ----------
        observations : list
            As the environment gives them.
        states : list of dict, optional
            One of a recurrent policy for each; by default that of an episode's start.
        explore : bool
            Draw actions; False takes the likeliest.
        prev_actions, prev_rewards : list, optional
            Where the policy was configured to see them.
        for_env : bool, default=True
            Rescale or clip actions to what the environment takes.
        stream : ObservationStream, optional
            The episode that a single observation continues. Without one each is the first of an episode, which matters
            where frames are stacked.

        Returns
        -------
        actions : ndarray of shape (B, ...)
        states : list of dict
        extra : dict of str to ndarray
            ``action_logp``, ``action_dist_inputs``, ``action_prob``.
        """
        algorithm = self._algorithm
        if self._version != algorithm.weights_version:
            self._inference.set_weights(algorithm.runner_state()["weights"])
            self._version = algorithm.weights_version
        seen = np.stack(
            [
                algorithm.pipeline.observe_one(
                    observation,
                    stream=stream,
                    prev_action=prev_actions[i] if prev_actions else None,
                    prev_reward=prev_rewards[i] if prev_rewards else None,
                )
                for i, observation in enumerate(observations)
            ]
        )
        state = self._inference.initial_state(len(observations))
        if states is not None and state:
            state = {name: np.stack([np.asarray(s[name], np.float32) for s in states]) for name in state}
        actions, logp, inputs, state = self._inference(seen, state, self._rng, explore)
        extra = {
            "action_logp": np.array(logp),
            "action_prob": np.exp(logp),
            "action_dist_inputs": np.array(inputs),
        }
        actions = np.array(algorithm.to_env(actions) if for_env else actions)
        states = [{name: value[i].copy() for name, value in state.items()} for i in range(len(observations))]
        return actions, states, extra

"""Proximal Policy Optimization."""

from __future__ import annotations

from typing import Any

from mltoolkit.rllib.algorithms.algorithm import Algorithm
from mltoolkit.rllib.algorithms.ppo.ppo_config import PPOConfig

__all__ = ["PPO", "PPOConfig"]


def __getattr__(name: str) -> Any:
    # Names of results, which RLlib offers here; their home imports torch, and naming an algorithm must not.
    if name.startswith("LEARNER_RESULTS_"):
        from mltoolkit.rllib.algorithms.ppo import ppo_learner

        return getattr(ppo_learner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class PPO(Algorithm):
    """Proximal Policy Optimization with a clipped surrogate objective.

    Each iteration samples ``train_batch_size`` environment steps with the current policy, computes advantages by
    GAE(lambda), and takes ``num_epochs`` passes of minibatch gradient steps.

    References
    ----------
    J. Schulman, F. Wolski, P. Dhariwal, A. Radford, O. Klimov, "Proximal Policy Optimization Algorithms",
    arXiv:1707.06347, 2017, Algorithm 1 and equations 7 to 9.

    J. Schulman, P. Moritz, S. Levine, M. Jordan, P. Abbeel, "High-Dimensional Continuous Control Using Generalized
    Advantage Estimation", ICLR 2016, equation 16.

    Examples
    --------
    >>> from mltoolkit.rllib.algorithms.ppo import PPOConfig
    >>> config = PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0).debugging(seed=1)
    >>> config = config.training(train_batch_size=256, num_epochs=2)
    >>> with config.build_algo() as algo:
    ...     result = algo.train()
    ...     action = algo.compute_single_action([0.0, 0.0, 0.0, 0.0])
    >>> result["num_env_steps_sampled_lifetime"], action in (0, 1)
    (256, True)
    """

    @classmethod
    def get_default_config(cls) -> PPOConfig:
        """The settings that are changed by those given."""
        return PPOConfig(algo_class=cls)

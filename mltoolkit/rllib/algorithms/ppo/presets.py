"""Settings of PPO that learn well-known environments fast."""

from __future__ import annotations

from typing import Any

from mltoolkit.rllib.algorithms._settings import copy_value, nearest

__all__ = ["PRESETS", "get_preset"]

#: By environment: what differs from PPOConfig's defaults.
PRESETS: dict[str, dict[str, Any]] = {
    # A mean return of 475 after some 105,000 steps, half of which are the 100 episodes that it is the mean of. 64
    # environments, since a step of all costs little more than a step of one; few epochs, each with steps so large that
    # no bound on the gradient would fit, and that must shrink for the policy to stay good.
    "CartPole-v1": {
        "env": "CartPole-v1",
        "num_env_runners": 0,
        "num_envs_per_env_runner": 64,
        "rollout_fragment_length": 64,
        "train_batch_size": 4096,
        "num_epochs": 3,
        "minibatch_size": 512,
        "lr": [[0, 1e-2], [200_000, 1.5e-3]],
        "clip_param": 0.2,
        "gamma": 0.99,
        "lambda_": 0.95,
        "vf_loss_coeff": 1.0,
        "vf_clip_param": None,
        "grad_clip": None,
        "use_kl_loss": False,
        "model": {"fcnet_hiddens": [32, 32], "fcnet_activation": "relu"},
    },
    # A mean return of -200 after some 50,000 steps. Rewards down to -16 a step: without their scaling the value function
    # lags behind. Actions are clipped instead of stretched to the bounds, so the first ones are small torques.
    "Pendulum-v1": {
        "env": "Pendulum-v1",
        "num_env_runners": 0,
        "num_envs_per_env_runner": 8,
        "rollout_fragment_length": 256,
        "train_batch_size": 2048,
        "num_epochs": 10,
        "minibatch_size": 64,
        "lr": 1e-3,
        "clip_param": 0.2,
        "gamma": 0.9,
        "lambda_": 0.95,
        "vf_loss_coeff": 0.5,
        "vf_clip_param": None,
        "grad_clip": 0.5,
        "use_kl_loss": False,
        "normalize_rewards": True,
        "normalize_actions": False,
        "clip_actions": True,
        "adam_epsilon": 1e-5,
        "model": {"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh", "free_log_std": True},
    },
    # Rewards of -1 until the end: returns are long, observations of unlike scales.
    "Acrobot-v1": {
        "env": "Acrobot-v1",
        "num_env_runners": 0,
        "num_envs_per_env_runner": 16,
        "rollout_fragment_length": 128,
        "train_batch_size": 2048,
        "num_epochs": 4,
        "minibatch_size": 256,
        "lr": 1e-3,
        "clip_param": 0.2,
        "gamma": 0.99,
        "lambda_": 0.94,
        "vf_loss_coeff": 0.5,
        "vf_clip_param": None,
        "grad_clip": 0.5,
        "use_kl_loss": False,
        "observation_filter": "MeanStdFilter",
        "normalize_rewards": True,
        "adam_epsilon": 1e-5,
        "model": {"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"},
    },
}


def get_preset(name: str) -> dict[str, Any]:
    """A copy of the settings of a preset.

    Raises
    ------
    ValueError
        If there is none; the known ones are listed.
    """
    if name not in PRESETS:
        raise ValueError(
            f"There is no preset {name!r}.{nearest(name, PRESETS, '{!r}')} There are {', '.join(PRESETS)}."
        )
    preset: dict[str, Any] = copy_value(PRESETS[name])
    return preset

"""Settings of PPO that learn well-known environments fast."""

from __future__ import annotations

from typing import Any

from mltoolkit.rllib.algorithms._settings import copy_value, nearest

__all__ = ["PRESETS", "get_preset"]

#: By environment: what differs from PPOConfig's defaults.
PRESETS: dict[str, dict[str, Any]] = {
    # A mean return of 475 after some 100,000 steps: many short fragments, and large steps that fade out linearly.
    "CartPole-v1": {
        "env": "CartPole-v1",
        "num_env_runners": 0,
        "num_envs_per_env_runner": 64,
        "rollout_fragment_length": 32,
        "train_batch_size": 2048,
        "num_epochs": 4,
        "minibatch_size": 512,
        "lr": [[0, 5e-3], [200_000, 2.5e-4]],
        "clip_param": [[0, 0.2], [200_000, 0.01]],
        "gamma": 0.98,
        "lambda_": 0.8,
        "vf_loss_coeff": 0.5,
        "vf_clip_param": None,
        "grad_clip": 0.5,
        "use_kl_loss": False,
        "adam_epsilon": 1e-5,
        "model": {"fcnet_hiddens": [32, 32], "fcnet_activation": "tanh"},
    },
    # Rewards down to -16 a step: without their scaling the value function lags behind.
    "Pendulum-v1": {
        "env": "Pendulum-v1",
        "num_env_runners": 0,
        "num_envs_per_env_runner": 16,
        "rollout_fragment_length": 64,
        "train_batch_size": 1024,
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

"""What tests of learners share: settings, modules, and fragments that look as if they were sampled."""

from __future__ import annotations

from typing import Any

import numpy as np


def ppo_config(*, torch_skip_nan_gradients: bool = False, **training: Any) -> Any:
    from mltoolkit.rllib.algorithms.ppo import PPOConfig

    settings = {
        "lr": 3e-3,
        "num_epochs": 2,
        "minibatch_size": 32,
        "train_batch_size": 128,
        "lambda_": 0.95,
        "entropy_coeff": 0.02,
        "vf_clip_param": 20.0,
        "grad_clip": 0.7,
    }
    config = PPOConfig().debugging(seed=3).training(**{**settings, **training})
    return config.framework(torch_skip_nan_gradients=torch_skip_nan_gradients)


def ppo_module(action_space: Any = None, observation_shape: tuple[int, ...] = (4,), **model: Any) -> Any:
    """The default module; its weights are the same each time."""
    import gymnasium as gym
    import torch

    from mltoolkit.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return DefaultPPOTorchRLModule(
            gym.spaces.Box(-10.0, 10.0, observation_shape, np.float32),
            gym.spaces.Discrete(2) if action_space is None else action_space,
            model_config={"fcnet_hiddens": [8, 8], "vf_share_layers": False, **model},
        )


def fragment(module: Any, n_steps: int = 16, n_envs: int = 8, seed: int = 0) -> dict[str, Any]:
    """A fragment as a runner samples it, from a policy that is a little off the module's present one."""
    import torch

    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    obs = rng.normal(size=(n_steps + 1, n_envs, *module.observation_space.shape)).astype(np.float32)
    terminateds, truncateds = rng.random((n_steps, n_envs)) < 0.08, rng.random((n_steps, n_envs)) < 0.05
    loss_mask = np.ones((n_steps, n_envs), bool)
    for t in range(n_steps):
        if t:
            loss_mask[t] = ~(terminateds[t - 1] | truncateds[t - 1])
        truncateds[t] &= ~terminateds[t] & loss_mask[t]
        terminateds[t] &= loss_mask[t]
    extra: dict[str, Any] = {}
    with torch.no_grad():
        if module.is_stateful():
            extra, outputs = _recurrent_outputs(module, obs, loss_mask)
        else:
            flat = torch.from_numpy(obs[:-1].reshape(-1, *obs.shape[2:]))
            outputs = module.forward_exploration({"obs": flat})["action_dist_inputs"].reshape(n_steps, n_envs, -1)
        outputs = outputs + 0.1 * torch.randn(outputs.shape, generator=generator)
        distribution = module.get_exploration_action_dist_cls().from_logits(outputs)
        actions = distribution.sample(generator=generator)
        logp = distribution.logp(actions)
    return {
        "obs": obs,
        "actions": actions.numpy(),
        "rewards": np.where(loss_mask, 3 * rng.normal(size=loss_mask.shape), 0.0).astype(np.float32),
        "terminateds": terminateds,
        "truncateds": truncateds,
        "loss_mask": loss_mask,
        "action_logp": logp.numpy(),
        "action_dist_inputs": outputs.numpy(),
        **extra,
    }


def _recurrent_outputs(module: Any, obs: np.ndarray, loss_mask: np.ndarray) -> tuple[dict[str, Any], Any]:
    import torch

    n_steps, n_envs = loss_mask.shape
    is_first = np.zeros((n_steps + 1, n_envs), bool)
    is_first[1:] = ~np.concatenate([loss_mask[:1], loss_mask])[1:]  # the step after a reset
    is_first[0] = True
    initial = module.get_initial_state()
    state = {name: np.repeat(value[None], n_envs, 0) for name, value in initial.items()}
    every = module.model_config["max_seq_len"]
    kept: dict[str, list[np.ndarray]] = {name: [] for name in state}
    outputs = []
    for t in range(n_steps):
        if t % every == 0:
            for name, value in state.items():
                kept[name].append(value)
        for name, value in state.items():
            state[name] = np.where(is_first[t][:, None], initial[name], value)
        out = module.forward_exploration(
            {
                "obs": torch.from_numpy(obs[t][:, None]),
                "state_in": {name: torch.from_numpy(value) for name, value in state.items()},
            }
        )
        outputs.append(out["action_dist_inputs"].reshape(n_envs, -1))
        state = {name: value.numpy() for name, value in out["state_out"].items()}
    extra = {"is_first": is_first, "state_in": {name: np.stack(values) for name, values in kept.items()}}
    return extra, torch.stack(outputs)


def losses(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of a result that do not depend on the time it took."""
    return {name: value for name, value in result["default_policy"].items() if "throughput" not in name}

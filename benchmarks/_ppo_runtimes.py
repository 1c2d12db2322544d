"""PPO of mltoolkit, RLlib and Stable-Baselines3 under one interface: learn an environment to its goal.

Everything is imported where it is used, since imports are part of what is measured.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("gymnasium", "torch", "numpy")
RUNTIMES = ("mltoolkit", "ray", "sb3")
WINDOW = 100
"""Episodes whose returns the mean is taken over."""

PRESETS = Path(__file__).parent.parent / "mltoolkit" / "rllib" / "algorithms" / "ppo" / "presets.py"


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Parameters
    ----------
    env : str
        The environment.
    goal : float
        Mean return of the last `WINDOW` episodes at which training ends.
    limit : int
        Environment steps after which it is given up.
    """

    env: str
    goal: float
    limit: int


TASKS = {
    "cartpole": Task("CartPole-v1", 475.0, 300_000),
    "pendulum": Task("Pendulum-v1", -200.0, 400_000),
    "acrobot": Task("Acrobot-v1", -100.0, 1_000_000),
}


@dataclass(frozen=True)
class Outcome:
    """How far training came.

    Parameters
    ----------
    steps : int
        Environment steps until the goal or the limit.
    began : float
        Monotonic time before the first step.
    seconds : float
        What the steps took, learning included.
    reached : bool
        Whether it was the goal.
    """

    steps: int
    began: float
    seconds: float
    reached: bool


def preset(env: str) -> dict[str, Any]:
    """The settings of mltoolkit's preset, read where mltoolkit is not installed as well."""
    import ast

    tree = ast.parse(PRESETS.read_text())
    assignments = (node for node in tree.body if isinstance(node, ast.AnnAssign))
    (value,) = (node.value for node in assignments if getattr(node.target, "id", None) == "PRESETS")
    settings: dict[str, Any] = ast.literal_eval(value)[env]
    return settings


def learn(runtime: str, task: Task, seed: int, settings: dict[str, Any] | None = None) -> Outcome:
    """Train until the goal or the limit.

    Parameters
    ----------
    runtime : {'mltoolkit', 'ray', 'sb3'}
    task : Task
    seed : int
    settings : dict, optional
        A preset of mltoolkit for all. By default each has the settings that its own project tuned for the
        environment: mltoolkit's preset, RLlib's example, and those of RL Baselines3 Zoo.
    """
    return {"mltoolkit": _learn_mltoolkit, "ray": _learn_ray, "sb3": _learn_sb3}[runtime](task, seed, settings)


def _until(task: Task, algorithm: Any) -> Outcome:
    """Let an algorithm of mltoolkit or RLlib train; the goal is looked at after every iteration."""
    began = time.monotonic()
    while True:
        runners = algorithm.train()["env_runners"]
        steps = int(runners["num_env_steps_sampled_lifetime"])
        # A mean over fewer episodes than it should be is no answer.
        enough = runners["num_episodes_lifetime"] >= WINDOW
        reached = bool(enough and runners.get("episode_return_mean", -math.inf) >= task.goal)
        if reached or steps >= task.limit:
            return Outcome(steps, began, time.monotonic() - began, reached)


def _learn_mltoolkit(task: Task, seed: int, settings: dict[str, Any] | None) -> Outcome:
    from mltoolkit.rllib.algorithms.ppo import PPOConfig

    config = PPOConfig.preset(task.env) if settings is None else PPOConfig.from_dict(settings)
    with config.debugging(seed=seed).build_algo() as algorithm:
        return _until(task, algorithm)


# RLlib


def start_ray() -> Any:
    """Start Ray as a program on one machine does."""
    import ray
    from _runtimes import init_facade

    init_facade(ray)
    return ray


def _learn_ray(task: Task, seed: int, settings: dict[str, Any] | None) -> Outcome:
    ray = start_ray()
    config = ray_example() if settings is None else ray_config(settings)
    algorithm = config.environment(task.env).debugging(seed=seed, log_level="ERROR").build_algo()
    try:
        return _until(task, algorithm)
    finally:
        algorithm.stop()
        ray.shutdown()


def ray_example() -> Any:
    """The settings of RLlib's own example for CartPole-v1, examples/algorithms/ppo/cartpole_ppo.py."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    model = DefaultModelConfig(fcnet_hiddens=[32], fcnet_activation="linear", vf_share_layers=True)
    config = PPOConfig().training(lr=0.0003, num_epochs=6, vf_loss_coeff=0.01).rl_module(model_config=model)
    return config.reporting(metrics_num_episodes_for_smoothing=WINDOW)


def ray_config(settings: dict[str, Any]) -> Any:
    """A preset of mltoolkit as RLlib's configuration."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    ours = dict(settings)
    model = DefaultModelConfig(vf_share_layers=False, **ours.pop("model"))
    runners = ("num_env_runners", "num_envs_per_env_runner", "rollout_fragment_length")
    config = PPOConfig().env_runners(**{name: ours.pop(name) for name in runners}).rl_module(model_config=model)
    ours["vf_clip_param"] = math.inf if ours["vf_clip_param"] is None else ours["vf_clip_param"]
    ours["train_batch_size_per_learner"] = ours.pop("train_batch_size")
    ours = {name: value for name, value in ours.items() if name != "env"}
    return config.training(**ours).reporting(metrics_num_episodes_for_smoothing=WINDOW)


# Stable-Baselines3


@dataclass(frozen=True)
class ZooSettings:
    """Settings of RL Baselines3 Zoo, hyperparams/ppo.yml.

    Parameters
    ----------
    n_envs : int
    arguments : dict
        Of `PPO`.
    normalize : bool
        Observations and rewards, by `VecNormalize`.
    total_timesteps : int or None
        What a falling schedule falls over; `None` where there is none.
    """

    n_envs: int
    arguments: dict[str, Any]
    normalize: bool = False
    total_timesteps: int | None = None


def _falling(start: float) -> Any:
    return lambda remaining: remaining * start


def zoo_settings(env: str) -> ZooSettings:
    """The settings for an environment."""
    if env == "CartPole-v1":
        arguments = {
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "ent_coef": 0.0,
        }
        schedules = {"learning_rate": _falling(0.001), "clip_range": _falling(0.2)}
        return ZooSettings(8, {**arguments, **schedules}, total_timesteps=100_000)
    if env == "Pendulum-v1":
        arguments = {"n_steps": 1024, "n_epochs": 10, "gamma": 0.9, "gae_lambda": 0.95, "ent_coef": 0.0}
        exploration = {"learning_rate": 1e-3, "clip_range": 0.2, "use_sde": True, "sde_sample_freq": 4}
        return ZooSettings(4, {**arguments, **exploration})
    arguments = {"n_steps": 256, "n_epochs": 4, "gamma": 0.99, "gae_lambda": 0.94, "ent_coef": 0.0}
    return ZooSettings(16, arguments, normalize=True)


def sb3_settings(settings: dict[str, Any], limit: int) -> ZooSettings:
    """A preset of mltoolkit as arguments of Stable-Baselines3's PPO."""
    import numpy as np
    import torch

    times, rates = zip(*settings["lr"], strict=True)
    activation = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[settings["model"]["fcnet_activation"]]
    arguments = {
        "n_steps": settings["rollout_fragment_length"],
        "batch_size": settings["minibatch_size"],
        "n_epochs": settings["num_epochs"],
        "learning_rate": lambda remaining: float(np.interp((1 - remaining) * limit, times, rates)),
        "clip_range": settings["clip_param"],
        "gamma": settings["gamma"],
        "gae_lambda": settings["lambda_"],
        "vf_coef": settings["vf_loss_coeff"],
        "max_grad_norm": math.inf if settings["grad_clip"] is None else settings["grad_clip"],
        "policy_kwargs": {"net_arch": settings["model"]["fcnet_hiddens"], "activation_fn": activation},
    }
    return ZooSettings(settings["num_envs_per_env_runner"], arguments, total_timesteps=limit)


def _learn_sb3(task: Task, seed: int, settings: dict[str, Any] | None) -> Outcome:
    import torch

    torch.set_num_threads(1)  # as fast as two with networks of this size, and leaves the other CPU alone
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    class Goal(BaseCallback):
        """Ends training at the goal, which is looked at whenever an episode ends."""

        reached = False

        def _on_step(self) -> bool:
            if self.locals["dones"].any():
                returns = [episode["r"] for episode in self.model.ep_info_buffer]
                self.reached = len(returns) == WINDOW and sum(returns) / WINDOW >= task.goal
            return not self.reached

    chosen = zoo_settings(task.env) if settings is None else sb3_settings(settings, task.limit)
    env = make_vec_env(task.env, n_envs=chosen.n_envs, seed=seed)
    if chosen.normalize:
        env = VecNormalize(env, gamma=chosen.arguments["gamma"])
    model = PPO("MlpPolicy", env, seed=seed, stats_window_size=WINDOW, **chosen.arguments)
    goal = Goal()
    began = time.monotonic()
    model.learn(chosen.total_timesteps or task.limit, callback=goal)
    return Outcome(model.num_timesteps, began, time.monotonic() - began, goal.reached)

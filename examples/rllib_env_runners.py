"""Environment runners in processes of their own, for environments that take time.

Each step of this environment computes for a tenth of a millisecond, as a small simulation would. With 0 runners the
algorithm's process steps all environments itself; each runner is a process that steps its share of them, so the steps per
second grow until the CPUs are used up. A runner that is killed is replaced and training goes on.

    python examples/rllib_env_runners.py
    python examples/rllib_env_runners.py --runners 0 1 2 4 --num-cpus 8
"""

from __future__ import annotations

import argparse
import os
import signal
from typing import Any

import gymnasium as gym
import numpy as np

import mltoolkit
from mltoolkit.rllib import PPOConfig


class Simulation(gym.Env[np.ndarray, int]):
    """Keep a drifting point near zero; each step solves a small system of equations, several times."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.work = config["work"]
        self.observation_space = gym.spaces.Box(-10.0, 10.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.matrix = np.eye(16) + 0.1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.uniform(-1, 1), 0
        return np.array([self.at], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        for _ in range(self.work):
            np.linalg.solve(self.matrix, self.matrix)
        self.at = float(np.clip(self.at + (0.2 if action else -0.2) + self.np_random.normal(0, 0.1), -10, 10))
        self.steps += 1
        return np.array([self.at], np.float32), -abs(self.at), False, self.steps >= 100, {}


def build(runners: int, envs: int = 8) -> Any:
    config = (
        PPOConfig()
        .environment(Simulation, env_config={"work": 12})
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=envs // max(runners, 1))
        .training(train_batch_size=800, minibatch_size=200, num_epochs=4, lr=3e-3, model={"fcnet_hiddens": [16]})
        .debugging(seed=0, log_level="ERROR")  # without it the loss of a runner is a warning
    )
    return config.build_algo()


def process_id(runner: Any) -> int:
    return os.getpid()


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps per second with several numbers of environment runners.")
    parser.add_argument("--runners", type=int, nargs="+", default=[0, 1, 2], help="(default: %(default)s)")
    parser.add_argument("--num-cpus", type=int, default=2, help="for runners to share (default: %(default)s)")
    args = parser.parse_args()

    mltoolkit.init(num_cpus=args.num_cpus)
    for runners in args.runners:
        with build(runners) as algo:
            algo.train()  # the first iteration makes the environments
            result = algo.train()
            steps = result["num_env_steps_sampled_this_iter"]
            seconds = result["timers"]["env_runner_sampling_timer"]
            print(f"{runners} runners: {steps / seconds:7,.0f} steps/s, return {result['episode_reward_mean']:.1f}")

    with build(2) as algo:
        algo.train()
        victim = algo.env_runner_group.foreach_env_runner(process_id)[0]
        os.kill(victim, signal.SIGKILL)
        result = algo.train()
        print(
            f"one of 2 runners was killed: {result['num_healthy_workers']} at work, "
            f"{result['num_remote_worker_restarts']} restarted, {result['timesteps_total']:,} steps in all"
        )


if __name__ == "__main__":
    main()

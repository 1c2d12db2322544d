"""An environment of one's own: a corridor with a goal at its end, registered under a name, with settings.

The agent sees where it is, as a number from 0 to 1, and walks left or right. A step costs 0.1, the goal brings 1; who
does not arrive in time is cut off (`horizon`). The best return is 1 - 0.1 (length - 1): at each step right.

    python examples/rllib_custom_env.py
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from mltoolkit.rllib import PPOConfig, register_env

LEFT, RIGHT = 0, 1


class Corridor(gym.Env[np.ndarray, int]):
    """Walk to the end; `env_config` says how long it is, and how often one slips and stays where one is."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.length = config["length"]
        self.slip = config.get("slip", 0.0)
        self.position = 0
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        # `self.np_random` and not NumPy's global generator: it follows the seed of the configuration.
        if self.np_random.random() >= self.slip:
            self.position = max(self.position + (1 if action == RIGHT else -1), 0)
        arrived = self.position >= self.length
        return self._observation(), 1.0 if arrived else -0.1, arrived, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.position / self.length], np.float32)


def main() -> None:
    register_env("corridor", lambda env_config: Corridor(env_config))

    config = (
        PPOConfig()
        .environment("corridor", env_config={"length": 8}, horizon=100)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .training(
            train_batch_size=1024,
            minibatch_size=128,
            num_epochs=6,
            lr=3e-3,
            model={"fcnet_hiddens": [16], "fcnet_activation": "tanh"},
        )
        .evaluation(
            # Tried where it was not trained: one step in five slips.
            evaluation_duration=20,
            evaluation_config={"explore": False, "env_config": {"slip": 0.2}},
        )
        .debugging(seed=0)
    )
    with config.build_algo() as algo:
        for _ in range(6):
            result = algo.train()
            print(
                f"iteration {result['training_iteration']}: return {result['episode_reward_mean']:6.2f}, "
                f"{result['episode_len_mean']:5.1f} steps to the goal"
            )
        print(f"the best there is: {1 - 0.1 * 7:.2f}")
        evaluation = algo.evaluate()
        print(
            f"on slippery ground: return {evaluation['episode_reward_mean']:.2f}, {evaluation['episode_len_mean']:.1f} steps"
        )
        actions = algo.compute_actions({at: [at / 8] for at in range(8)}, explore=False)
        print("what it does at each place:", "".join("<>"[action] for action in actions.values()))


if __name__ == "__main__":
    main()

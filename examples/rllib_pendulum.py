"""A continuous action: the torque that swings a pendulum up and holds it there.

Rewards are negative, -16 a step at worst and 0 upright and at rest; a policy that does nothing gets about -1200 an
episode. The preset scales rewards, has a standard deviation that does not depend on what is seen, and discounts by 0.9.
This program stops early, half-way up: `--steps 120000` goes on until the pendulum stands.

    python examples/rllib_pendulum.py
    python examples/rllib_pendulum.py --steps 120000
"""

from __future__ import annotations

import argparse

import numpy as np

from mltoolkit.rllib.algorithms.ppo import PPOConfig


def main() -> None:
    parser = argparse.ArgumentParser(description="PPO learns Pendulum-v1.")
    parser.add_argument("--steps", type=int, default=24_000, help="environment steps to take (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    args = parser.parse_args()

    config = PPOConfig.preset("Pendulum-v1").debugging(seed=args.seed)
    with config.build_algo() as algo:
        while True:
            result = algo.train()
            steps = result["num_env_steps_sampled_lifetime"]
            if result["training_iteration"] % 8 == 0 or steps >= args.steps:
                learner = result["learners"]["default_policy"]
                print(
                    f"{steps:7,} steps, {result['time_total_s']:4.1f} s: mean return {result['episode_reward_mean']:7.1f}, "
                    f"entropy {learner['entropy']:.2f}"
                )
            if steps >= args.steps:
                break
        evaluation = algo.evaluate(num_episodes=10, explore=False)
        print(f"without exploration: {evaluation['episode_reward_mean']:.1f}")

        # Hanging a little to the left and to the right (cosine, sine, angular velocity), and the torque in [-2, 2].
        for angle in (np.pi - 0.3, np.pi + 0.3):
            torque = algo.compute_single_action([np.cos(angle), np.sin(angle), 0.0], explore=False)
            print(f"torque at {np.degrees(angle):3.0f} degrees: {torque[0]:+.2f}")


if __name__ == "__main__":
    main()

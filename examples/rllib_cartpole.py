"""CartPole solved in a few seconds: a pole is balanced on a cart, one point for each step, 500 at most.

`PPOConfig.preset` has settings that learn this environment fast. Everything here runs in one process: an environment
that is stepped in a microsecond gains nothing from others (`rllib_env_runners.py` has one that does).

    python examples/rllib_cartpole.py
    python examples/rllib_cartpole.py --seed 1
"""

from __future__ import annotations

import argparse

import gymnasium

from mltoolkit.rllib.algorithms.ppo import PPOConfig

SOLVED = 475
MOST_STEPS = 400_000


def main() -> None:
    parser = argparse.ArgumentParser(description="PPO learns CartPole-v1.")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    args = parser.parse_args()

    config = PPOConfig.preset("CartPole-v1").debugging(seed=args.seed)
    with config.build_algo() as algo:
        print("iteration    steps   mean return of the last 100 episodes")
        while True:
            result = algo.train()
            reached, steps = result["env_runners"]["episode_return_mean"], result["num_env_steps_sampled_lifetime"]
            over = reached >= SOLVED or steps >= MOST_STEPS
            if over or result["training_iteration"] % 10 == 1:
                print(f"{result['training_iteration']:9} {steps:8,} {reached:8.1f}")
            if over:
                break
        print(f"{'solved' if reached >= SOLVED else 'not solved'} in {result['time_total_s']:.1f} s of training")

        returns = algo.evaluate(num_episodes=10, explore=False)["hist_stats"]["episode_reward"]
        print(f"ten episodes with the likeliest actions: {sum(returns) / len(returns):.1f} on average")

        # What a program that uses the policy does: observation in, action out.
        env = gymnasium.make("CartPole-v1")
        obs, _ = env.reset(seed=args.seed)
        total, done = 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(algo.compute_single_action(obs, explore=False))
            total, done = total + float(reward), terminated or truncated
        print(f"an episode by hand: {total:.0f}")


if __name__ == "__main__":
    main()

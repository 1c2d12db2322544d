"""From a checkpoint to actions: evaluation with a film, actions for observations, and a file for torch alone.

A policy is trained briefly and saved. All the rest begins with the checkpoint's path, as it would in another program: ten
episodes are evaluated and a part of one is filmed, observations are answered as a service would answer them, and
a file is exported which needs nothing but PyTorch. The film needs the extra `video`.

    python examples/rllib_serve.py
    python examples/rllib_serve.py --out films
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from mltoolkit.rllib import Algorithm, PPOConfig


def train(folder: Path) -> str:
    """Train for a moment and return the checkpoint's path."""
    config = (
        PPOConfig.preset("CartPole-v1")
        .evaluation(evaluation_duration=10, evaluation_config={"explore": False})
        .debugging(seed=0)
    )
    with config.build_algo() as algo:
        result = algo.learn(50_000, progress_bar=False)
        print(f"trained on {result['num_env_steps_sampled_lifetime']:,} steps: {result['episode_reward_mean']:.1f}")
        return str(algo.save(folder))


def evaluate(algo: Algorithm, film: Path) -> None:
    result = algo.evaluate(video=film, max_steps=50)
    print(
        f"{result['episodes_this_iter']} episodes: {result['episode_reward_mean']:.1f} on average, from "
        f"{result['episode_reward_min']:.0f} to {result['episode_reward_max']:.0f}; filmed {film.name}, "
        f"{film.stat().st_size // 1000} kB"
    )


def serve(algo: Algorithm) -> None:
    # One client's observation, and a batch of those of several.
    print("one action:", algo.compute_single_action([0.0, 0.0, 0.05, 0.2], explore=False))
    clients = {"ada": [0.0, 0.0, 0.05, 0.2], "bob": [0.0, 0.0, -0.05, -0.2]}
    print("several:", algo.compute_actions(clients, explore=False))
    observations = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    started = time.perf_counter()
    for observation in observations:
        algo.compute_single_action(observation, explore=False)
    print(f"{1e6 * (time.perf_counter() - started) / len(observations):.0f} microseconds per action")


def export(algo: Algorithm, path: Path) -> None:
    algo.export(path)

    # From here on nothing is needed but torch, in Python or C++.
    import torch

    policy = torch.jit.load(path)
    print("torch alone:", policy(torch.tensor([[0.0, 0.0, 0.05, 0.2], [0.0, 0.0, -0.05, -0.2]])).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate, film, serve and export a policy.")
    parser.add_argument("--out", type=Path, help="folder for the film and the policy (default: a temporary one)")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        checkpoint = train(folder)
        print("saved", Path(checkpoint).name)
        with Algorithm.from_checkpoint(checkpoint) as algo:
            evaluate(algo, folder / "episode.gif")
            serve(algo)
            export(algo, folder / "policy.pt")


if __name__ == "__main__":
    main()

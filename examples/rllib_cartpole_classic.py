"""CartPole by RLlib's classic interface: a dict of settings with the names of its first years, and a `PPOTrainer`.

Programs written like this run as they are (`python -m mltoolkit script.py`), or with the import changed, as here. Each
iteration saves a checkpoint; a second trainer takes up the last one, and both go on in exactly the same way.

    python examples/rllib_cartpole_classic.py
"""

from __future__ import annotations

import tempfile
import time

from mltoolkit.rllib.agents import ppo

ITERATIONS = 5


def main() -> None:
    config = ppo.DEFAULT_CONFIG.copy()
    config["num_workers"] = 1
    config["num_envs_per_worker"] = 8
    config["num_sgd_iter"] = 10
    config["sgd_minibatch_size"] = 250
    config["lr"] = 3e-3
    config["model"]["fcnet_hiddens"] = [40, 20]
    config["seed"] = 0

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trainer = ppo.PPOTrainer(config, "CartPole-v1")
        print(f"ready after {time.perf_counter() - started:.1f} s")
        print("  n     min    mean     max")
        for n in range(ITERATIONS):
            result = trainer.train()
            lo, mean, hi = (result[f"episode_reward_{name}"] for name in ("min", "mean", "max"))
            last_checkpoint = trainer.save(folder)
            print(f"{n:3} {lo:7.1f} {mean:7.1f} {hi:7.1f}")
        print(f"{result['timesteps_total']:,} steps in {result['time_total_s']:.1f} s")

        restored = ppo.PPOTrainer(config, "CartPole-v1")
        restored.restore(last_checkpoint)
        uninterrupted, again = trainer.train(), restored.train()
        trainer.stop()
        restored.stop()
    print(f"one more iteration: mean {uninterrupted['episode_reward_mean']:.4f}")
    print(f"from the checkpoint: mean {again['episode_reward_mean']:.4f}")
    print("the same:", uninterrupted["hist_stats"] == again["hist_stats"])


if __name__ == "__main__":
    main()

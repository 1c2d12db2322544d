"""Which layer sizes learn CartPole fastest: a sweep over PPO by its name, with RLlib's and Tune's classic interfaces.

Four networks are trained until their mean return is 100, or for 40 iterations at most. Each trial has a process of its own, which
steps the environments too (`num_workers` of 0). What has been learned is kept: the best policy is loaded from its
checkpoint at the end.

    python examples/rllib_tune_layers.py
"""

from __future__ import annotations

from mltoolkit import tune
from mltoolkit.rllib import Algorithm

GOAL = 100


def main() -> None:
    analysis = tune.run(
        "PPO",
        stop={"episode_reward_mean": GOAL, "training_iteration": 40},
        config={
            "env": "CartPole-v1",
            "num_workers": 0,
            "num_envs_per_worker": 32,
            "train_batch_size": 2048,
            "sgd_minibatch_size": 256,
            "num_sgd_iter": 6,
            "lr": 3e-3,
            "seed": 0,
            "model": {"fcnet_hiddens": [tune.grid_search([16, 64]), tune.grid_search([16, 64])]},
        },
        metric="timesteps_total",
        mode="min",
        checkpoint_at_end=True,
        verbose=1,
    )
    table = analysis.dataframe().sort_values("timesteps_total")
    print("hidden layers  iterations   steps  seconds  mean return")
    for row in table.to_dict("records"):
        layers = f"{row['config/model/fcnet_hiddens/0']} and {row['config/model/fcnet_hiddens/1']}"
        print(
            f"{layers:>13} {row['training_iteration']:11} {row['timesteps_total']:7,} {row['time_total_s']:8.1f} "
            f"{row['episode_reward_mean']:12.1f}"
        )
    print("fewest steps with", analysis.best_config["model"]["fcnet_hiddens"])

    with Algorithm.from_checkpoint(analysis.best_checkpoint) as algo:
        result = algo.evaluate(num_episodes=10, explore=False)
    print(f"its policy, from the checkpoint: {result['episode_reward_mean']:.1f} over ten episodes")


if __name__ == "__main__":
    main()

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("torch")

SMALL = {"train_batch_size": 200, "num_sgd_iter": 1, "sgd_minibatch_size": 100, "num_workers": 0, "seed": 1}


def test_unknown_algorithms_name_the_nearest() -> None:
    from mltoolkit.tune.registry import get_trainable

    with pytest.raises(ValueError, match="Did you mean 'PPO'"):
        get_trainable("PPPO")


def test_layer_sizes_are_swept_by_name(runtime: Any, tmp_path: Path) -> None:
    from mltoolkit import tune

    analysis = tune.run(
        "PPO",
        stop={"training_iteration": 2},
        config={
            **SMALL,
            "env": "CartPole-v1",
            "num_workers": 1,
            "model": {"fcnet_hiddens": [tune.grid_search([4, 8]), 4]},
        },
        storage_path=str(tmp_path),
        checkpoint_at_end=True,
        verbose=0,
        metric="episode_reward_mean",
        mode="max",
    )
    frame = analysis.dataframe()
    assert frame["config/model/fcnet_hiddens/0"].tolist() == [4, 8]
    assert frame["training_iteration"].tolist() == [2, 2]
    assert (frame["episode_reward_mean"] > 0).all()
    assert (frame["env_runners/num_env_steps_sampled_lifetime"] == 400).all()

    from mltoolkit.rllib.algorithms.algorithm import Algorithm

    with Algorithm.from_checkpoint(analysis.best_checkpoint) as algo:
        assert algo.iteration == 2
        assert algo.config.model["fcnet_hiddens"] == list(analysis.best_config["model"]["fcnet_hiddens"])
        assert algo.compute_single_action(np.zeros(4)) in (0, 1)


def test_a_config_object_is_a_search_space(runtime: Any, tmp_path: Path) -> None:
    from mltoolkit import tune
    from mltoolkit.rllib.algorithms.ppo import PPOConfig

    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(train_batch_size=200, minibatch_size=100, num_epochs=1, lr=tune.grid_search([1e-3, 1e-4]))
        .training(model={"fcnet_hiddens": [4]})
    )
    results = tune.Tuner(
        "PPO",
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            stop={"env_runners/num_env_steps_sampled_lifetime": 400},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            verbose=0,
        ),
    ).fit()
    assert not results.errors
    rates = [r.metrics["learners"]["default_policy"]["default_optimizer_learning_rate"] for r in results]
    assert rates == pytest.approx([1e-3, 1e-4])
    assert [r.config["lr"] for r in results] == [1e-3, 1e-4]
    assert all(r.checkpoint is not None for r in results)


def test_trials_know_the_drivers_environments_and_go_on_after_a_crash(runtime: Any, tmp_path: Path) -> None:
    import gymnasium

    from mltoolkit import tune

    class Fragile(gymnasium.Env):
        """Kills its process once, in the middle of training."""

        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, config: Any) -> None:
            self.mark, self.t, self.total = Path(config["mark"]), 0, 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.t = 0
            return np.zeros(2, np.float32), {}

        def step(self, action: int) -> Any:
            self.t += 1
            self.total += 1
            if self.total == 500 and not self.mark.exists():
                import os

                self.mark.touch()
                os.kill(os.getpid(), 9)
            return np.zeros(2, np.float32), 1.0, self.t == 5, False, {}

    tune.register_env("fragile", Fragile)
    results = tune.Tuner(
        "PPO",
        param_space={**SMALL, "env": "fragile", "env_config": {"mark": str(tmp_path / "mark")}},
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "results"),
            stop={"training_iteration": 4},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()
    assert (tmp_path / "mark").exists()
    assert not results.errors
    assert results[0].metrics["training_iteration"] == 4
    assert results[0].metrics["num_env_steps_sampled_lifetime"] == 800
    assert results[0].metrics["episode_reward_mean"] == 5.0


def test_population_based_training_moves_weights_and_changes_settings(runtime: Any, tmp_path: Path) -> None:
    from mltoolkit import tune
    from mltoolkit.tune.schedulers import PopulationBasedTraining

    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        quantile_fraction=0.5,
        hyperparam_mutations={"lr": [1e-3, 1e-4, 1e-5]},
    )
    results = tune.Tuner(
        "PPO",
        param_space={**SMALL, "env": "CartPole-v1", "lr": tune.grid_search([1e-3, 1e-5])},
        tune_config=tune.TuneConfig(
            scheduler=scheduler, metric="episode_reward_mean", mode="max", max_concurrent_trials=2, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), stop={"training_iteration": 4}, verbose=0),
    ).fit()
    assert not results.errors
    assert [r.metrics["training_iteration"] for r in results] == [4, 4]
    for result in results:
        rate = result.metrics["learners"]["default_policy"]["default_optimizer_learning_rate"]
        assert rate == pytest.approx(result.config["lr"])

"""A sweep whose trials train on actors of their own, within the resources of each trial.

`get_tune_resources()` says what a trial needs. Inside a trial, `train` reports every round by itself, and the scheduler ends
those that are not worth going on.

    python examples/boosting_sweep.py
    python examples/boosting_sweep.py --samples 20
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from mltoolkit import tune
from mltoolkit.lightgbm import RayDMatrix, RayParams, train
from mltoolkit.lightgbm.tune import TuneReportCheckpointCallback
from mltoolkit.tune.schedulers import ASHAScheduler

ROUNDS = 24
# Two actors for each trial. On a machine with two CPUs, one trial runs after the other.
ACTORS = RayParams(num_actors=2, cpus_per_actor=1)

SPACE = {
    "learning_rate": tune.loguniform(1e-2, 3e-1),
    "num_leaves": tune.randint(3, 32),
    "min_data_in_leaf": tune.choice([5, 10, 20]),
}


def boost(config: dict[str, Any], data: list[Any]) -> None:
    X_train, X_test, y_train, y_test = data
    train(
        config | {"objective": "binary", "metric": "binary_logloss", "seed": 0},
        RayDMatrix(X_train, y_train),
        num_boost_round=ROUNDS,
        evals=[(RayDMatrix(X_test, y_test), "test")],
        callbacks=[TuneReportCheckpointCallback({"loss": "test-binary_logloss"}, frequency=4)],
        verbose_eval=False,
        ray_params=ACTORS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep over LightGBM on actors.")
    parser.add_argument("--samples", type=int, default=6, help="configurations to try (default: %(default)s)")
    args = parser.parse_args()

    X, y = load_breast_cancer(return_X_y=True)
    data = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(boost, data=data), ACTORS.get_tune_resources()),
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=args.samples,
            scheduler=ASHAScheduler(max_t=ROUNDS, grace_period=4, reduction_factor=2),
            seed=0,
        ),
        run_config=tune.RunConfig(verbose=0),
    )
    started = time.perf_counter()
    results = tuner.fit()
    rounds = sum(result.metrics["training_iteration"] for result in results)
    print(
        f"{len(results)} samples in {time.perf_counter() - started:.1f} s: {rounds} rounds of {len(results) * ROUNDS}"
    )
    best = results.get_best_result()
    print(
        f"best log loss {best.metrics['loss']:.3f} with " + ", ".join(f"{k} = {v:.3g}" for k, v in best.config.items())
    )
    booster = TuneReportCheckpointCallback.get_model(best.checkpoint)
    print(f"its checkpoint is LightGBM's own model: {booster.current_iteration()} rounds")


if __name__ == "__main__":
    main()

"""XGBoost with ASHA: boosting rounds go to the configurations that deserve them.

The trainable is plain `xgboost.train`. A callback reports after each round, and when the scheduler has decided against
a trial, it ends right there. Needs XGBoost, for instance the package `xgboost-cpu`.

    python examples/tune_xgboost_asha.py
    python examples/tune_xgboost_asha.py --samples 60
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from mltoolkit import tune
from mltoolkit.tune.schedulers import ASHAScheduler

ROUNDS = 64

SPACE = {
    "objective": "binary:logistic",
    "eval_metric": ["logloss", "error"],
    "eta": tune.loguniform(1e-3, 3e-1),
    "max_depth": tune.randint(1, 9),
    "min_child_weight": tune.choice([1, 2, 4, 8]),
    "subsample": tune.quniform(0.5, 1.0, 0.1),
    "lambda": tune.loguniform(1e-2, 1e2),
}


def boost(config: dict[str, Any], data: list[np.ndarray]) -> None:
    import xgboost  # here, not above: only the processes of trials need it, and each imports it once

    class Report(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, Any]) -> bool:
            tune.report({name: values[-1] for name, values in evals_log["test"].items()})
            return False  # go on

    X_train, X_test, y_train, y_test = data
    test = xgboost.DMatrix(X_test, y_test)
    xgboost.train(
        config | {"seed": tune.get_context().seed},
        xgboost.DMatrix(X_train, y_train),
        num_boost_round=ROUNDS,
        evals=[(test, "test")],
        callbacks=[Report()],
        verbose_eval=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="ASHA over the parameters of XGBoost.")
    parser.add_argument("--samples", type=int, default=30, help="configurations to try (default: %(default)s)")
    args = parser.parse_args()

    X, y = load_breast_cancer(return_X_y=True)
    data = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
    tuner = tune.Tuner(
        tune.with_parameters(boost, data=data),
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="logloss",
            mode="min",
            num_samples=args.samples,
            scheduler=ASHAScheduler(max_t=ROUNDS, grace_period=4, reduction_factor=2),
            seed=0,
        ),
        run_config=tune.RunConfig(verbose=1),
    )
    started = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - started

    rounds = sum(result.metrics["training_iteration"] for result in results)
    print(f"{len(results)} samples in {seconds:.1f} s: {rounds} rounds instead of {len(results) * ROUNDS}")
    best = results.get_best_result()
    print(f"best log loss {best.metrics['logloss']:.3f}, error {best.metrics['error']:.3f}")
    drawn = {name: best.config[name] for name in ("eta", "max_depth", "min_child_weight", "subsample", "lambda")}
    print("with " + ", ".join(f"{name} = {value:.3g}" for name, value in drawn.items()))


if __name__ == "__main__":
    main()

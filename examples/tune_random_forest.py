"""A grid search over a random forest, with a trainable that does no more than return its score.

Every combination of the four parameters is a trial, and each trial a cross validation. A number is all that a trainable
need return: the sweep's `metric` says what it is called.

    python examples/tune_random_forest.py
"""

from __future__ import annotations

import time
from typing import Any

from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from mltoolkit import tune

GRID = {
    "n_estimators": tune.grid_search([10, 40]),
    "max_depth": tune.grid_search([2, 8]),
    "min_samples_split": tune.grid_search([2, 16]),
    "min_samples_leaf": tune.grid_search([1, 8]),
}


def forest(config: dict[str, Any]) -> float:
    X, y = load_wine(return_X_y=True)
    return cross_val_score(RandomForestClassifier(random_state=0, **config), X, y, cv=3).mean()


def main() -> None:
    started = time.perf_counter()
    analysis = tune.run(
        forest,
        config=GRID,
        metric="accuracy",
        mode="max",
        resources_per_trial={"cpu": 1},
        verbose=1,
    )
    print(f"{len(analysis.trials)} forests in {time.perf_counter() - started:.1f} s")
    print(f"best accuracy {analysis.best_result['accuracy']:.3f} with {analysis.best_config}")

    # What a parameter does, averaged over all others.
    table = analysis.dataframe()
    for name in GRID:
        means = table.groupby(f"config/{name}")["accuracy"].mean()
        print(f"  {name}: " + ", ".join(f"{mean:.3f} with {value}" for value, mean in means.items()))


if __name__ == "__main__":
    main()

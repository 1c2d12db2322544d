"""Optuna twice: as the search algorithm of a sweep, and by itself with processes in place of threads.

First a sweep whose search space is a function: which parameters there are depends on the kind of model that was drawn.
Then an ordinary Optuna study, its objective unchanged, with pruning; the trials run in processes of their own, while
the study stays in memory and needs no database.

    python examples/tune_optuna.py
"""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Any

import optuna
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mltoolkit import tune
from mltoolkit.tune.optuna import optimize
from mltoolkit.tune.search.optuna import OptunaSearch

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

TRIALS = 24


# As a search algorithm of Tune


def space(trial: optuna.Trial) -> dict[str, Any]:
    """A conditional space: each kind of model has parameters of its own."""
    kind = trial.suggest_categorical("kind", ["forest", "neighbours"])
    if kind == "forest":
        trial.suggest_int("max_depth", 1, 12)
        trial.suggest_float("max_features", 0.1, 1.0)
    else:
        trial.suggest_int("n_neighbors", 1, 30)
        trial.suggest_categorical("weights", ["uniform", "distance"])
    return {"seed": 0}  # constants that every trial gets


def make_model(kind: str, seed: int, **parameters: Any) -> ClassifierMixin:
    if kind == "forest":
        return RandomForestClassifier(20, random_state=seed, **parameters)
    return KNeighborsClassifier(**parameters)


def train(config: dict[str, Any]) -> dict[str, float]:
    X, y = load_wine(return_X_y=True)
    model = make_pipeline(StandardScaler(), make_model(**config))
    return {"accuracy": cross_val_score(model, X, y, cv=3).mean()}


# As a study of its own


def objective(trial: optuna.Trial) -> float:
    """Nothing of Tune here: what `study.optimize` runs, runs."""
    X, y = load_wine(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(StandardScaler().fit_transform(X), y, random_state=0)
    model = SGDClassifier(alpha=trial.suggest_float("alpha", 1e-6, 10, log=True), random_state=0)
    for epoch in range(20):
        model.partial_fit(X_train, y_train, classes=[0, 1, 2])
        trial.report(model.score(X_test, y_test), epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return model.score(X_test, y_test)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    started = time.perf_counter()
    results = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(
                space, points_to_evaluate=[{"kind": "forest", "max_depth": 3, "max_features": 0.5}]
            ),
            num_samples=TRIALS,
            seed=0,
        ),
        run_config=tune.RunConfig(verbose=0),
    ).fit()
    kinds = collections.Counter(result.config["kind"] for result in results)
    print(f"sweep: {len(results)} trials in {time.perf_counter() - started:.1f} s, {dict(kinds)}")
    best = results.get_best_result()
    print(f"  accuracy {best.metrics['accuracy']:.3f} with {best.config}")

    started = time.perf_counter()
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    )
    optimize(study, objective, n_trials=TRIALS)
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    print(f"study: {len(study.trials)} trials in {time.perf_counter() - started:.1f} s, {pruned} of them pruned")
    print(f"  accuracy {study.best_value:.3f} with alpha = {study.best_params['alpha']:.2g}")


if __name__ == "__main__":
    main()

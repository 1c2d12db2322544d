"""Boosting that ends when it has learned enough, and survives the loss of an actor on the way.

The metrics are those of all rows of all actors, so that all of them stop in the same round. In the second half a callback
kills one of the actors: training starts again from the last checkpoint, and the model is the same.

    python examples/boosting_early_stopping.py
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from typing import Any

import lightgbm
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from mltoolkit.lightgbm import RayDMatrix, RayParams, get_actor_rank, train
from mltoolkit.xgboost import RayXGBClassifier

PARAMS = {"objective": "binary", "metric": ["auc", "binary_logloss"], "learning_rate": 0.2}


class KillOnce:
    """Kills the process of the second actor in the twelfth round, the first time it comes by."""

    def __init__(self, flag: str) -> None:
        self.flag = flag

    def __call__(self, env: Any) -> None:
        if env.iteration == 11 and get_actor_rank() == 1 and not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)

    model = RayXGBClassifier(n_estimators=500, learning_rate=0.2, early_stopping_rounds=10, eval_metric="logloss")
    model.fit(X_train, y_train, eval_set=[(X_test, y_test)], verbose=False, ray_params=RayParams(num_actors=2))
    print(f"XGBoost: the best of 500 rounds was {model.best_iteration}, log loss {model.best_score:.3f}")

    results: dict[str, Any] = {}
    booster = train(
        PARAMS | {"early_stopping_round": 10, "first_metric_only": True},
        RayDMatrix(X_train, y_train),
        lightgbm.Booster,
        500,
        evals=[(RayDMatrix(X_test, y_test), "test")],
        evals_result=results,
        verbose_eval=10,
        ray_params=RayParams(num_actors=2),
    )
    print(
        f"LightGBM: round {booster.best_iteration} of {len(results['test']['auc'])}, AUC {max(results['test']['auc']):.4f}"
    )

    logging.getLogger("mltoolkit.lightgbm").setLevel(logging.ERROR)  # it would tell of the loss
    with tempfile.TemporaryDirectory() as folder:
        models = [
            train(
                PARAMS,
                RayDMatrix(X_train, y_train),
                lightgbm.Booster,
                30,
                callbacks=callbacks,
                ray_params=RayParams(num_actors=2, max_actor_restarts=1, checkpoint_frequency=5),
            )
            for callbacks in ([], [KillOnce(os.path.join(folder, "killed"))])
        ]
        killed = os.path.exists(os.path.join(folder, "killed"))
    same = np.allclose(models[0].predict(X_test), models[1].predict(X_test))
    print(f"an actor was killed: {killed}; the same model in the end: {same}")


if __name__ == "__main__":
    main()

"""Boosting on a Dask DataFrame: the actors compute its partitions themselves, each those that it trains on.

The driver describes the data and never computes it.

    python examples/boosting_dask.py
"""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd

import mltoolkit
import mltoolkit.lightgbm
import mltoolkit.xgboost
from mltoolkit.xgboost import RayDMatrix, RayParams

ACTORS = RayParams(num_actors=2, cpus_per_actor=1)


def partition(seed: int) -> pd.DataFrame:
    """One partition; a real one would be read from somewhere."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(size=(1500, 4)), columns=["a", "b", "c", "d"])
    table["target"] = 2 * table["a"] + np.sin(3 * table["b"]) + 0.1 * rng.normal(size=1500)
    return table


def main() -> None:
    mltoolkit.init()  # mltoolkit.init(address=...) would use the Dask cluster that holds the data
    table = dd.from_map(partition, range(6), meta=partition(0).iloc[:0])
    table["ab"] = table["a"] * table["b"]  # nothing is computed yet
    print(f"{table.npartitions} partitions, columns {', '.join(table.columns)}")

    train_set = RayDMatrix(table.partitions[:5], "target")
    test_set = RayDMatrix(table.partitions[5], "target")
    truth = partition(5)["target"].to_numpy()
    spread = truth.std()

    booster = mltoolkit.xgboost.train(
        {"objective": "reg:squarederror", "eta": 0.2}, train_set, 60, evals=[(test_set, "test")], verbose_eval=20,
        ray_params=ACTORS,
    )  # fmt: skip
    error = mltoolkit.xgboost.predict(booster, test_set, ray_params=ACTORS) - truth
    print(f"XGBoost:  error {np.sqrt(np.mean(error**2)):.3f} where the target spreads by {spread:.3f}")

    model = mltoolkit.lightgbm.train(
        {"objective": "regression", "learning_rate": 0.2}, train_set, num_boost_round=60, ray_params=ACTORS
    )
    error = mltoolkit.lightgbm.predict(model, test_set, ray_params=ACTORS) - truth
    print(f"LightGBM: error {np.sqrt(np.mean(error**2)):.3f}")
    mltoolkit.shutdown()


if __name__ == "__main__":
    main()

"""Boosting on Parquet files: each actor reads its own, and the driver never holds the data.

The label is named by its column. Predictions come in the order of the files. Needs pyarrow.

    python examples/boosting_parquet.py
    python examples/boosting_parquet.py --files 16 --rows 50000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import mltoolkit.lightgbm
import mltoolkit.xgboost
from mltoolkit.xgboost import RayDMatrix, RayParams

ACTORS = RayParams(num_actors=2, cpus_per_actor=1)


def write_files(folder: Path, files: int, rows: int) -> None:
    """Write a table in parts, as another program would have left it."""
    rng = np.random.default_rng(0)
    for part in range(files):
        X = rng.normal(size=(rows, 6)).astype(np.float32)
        table = pd.DataFrame(X, columns=[f"x{column}" for column in range(6)])
        table["shop"] = rng.integers(0, 100, rows)  # of no use
        table["sold"] = (X[:, 0] + X[:, 1] * X[:, 2] + 0.3 * rng.normal(size=rows) > 0).astype(int)
        table.to_parquet(folder / f"part-{part:03d}.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description="XGBoost and LightGBM on Parquet files.")
    parser.add_argument("--files", type=int, default=4, help="number of files (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=2000, help="rows of each (default: %(default)s)")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, args.files, args.rows)
        data = RayDMatrix(str(folder), "sold", ignore=["shop"])  # a folder, a pattern or a list of files

        more: dict[str, float] = {}
        booster = mltoolkit.xgboost.train(
            {"objective": "binary:logistic"}, data, 30, additional_results=more, ray_params=ACTORS
        )
        print(f"XGBoost has read {more['total_n']} rows; features: {', '.join(booster.feature_names or ())}")
        predicted = mltoolkit.xgboost.predict(booster, data, ray_params=ACTORS)
        sold = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])["sold"].to_numpy()
        print(f"accuracy on them: {np.mean((predicted > 0.5) == sold):.3f}")

        model = mltoolkit.lightgbm.train({"objective": "binary"}, data, num_boost_round=30, ray_params=ACTORS)
        predicted = mltoolkit.lightgbm.predict(model, data, ray_params=ACTORS)
        print(f"LightGBM, the same data: {np.mean((predicted > 0.5) == sold):.3f}")


if __name__ == "__main__":
    main()

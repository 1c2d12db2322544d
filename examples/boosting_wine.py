"""Wine quality with XGBoost and LightGBM on three actors, through estimators and through `train`.

The data are a CSV file like the wine-quality sets of the UCI repository (a header, the quality in the last column); by
default the wine data that scikit-learn brings along. Three actors work on any machine, also on one with two CPUs.

    python examples/boosting_wine.py
    python examples/boosting_wine.py winequality-red.csv
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

import mltoolkit.lightgbm
import mltoolkit.xgboost
from mltoolkit.lightgbm import RayLGBMClassifier, RayLGBMRegressor
from mltoolkit.xgboost import RayParams, RayXGBClassifier, RayXGBRegressor, RayXGBRFClassifier, RayXGBRFRegressor

ACTORS = RayParams(num_actors=3)
CLASSIFIERS = (RayXGBClassifier, RayXGBRFClassifier, RayLGBMClassifier)
REGRESSORS = (RayXGBRegressor, RayXGBRFRegressor, RayLGBMRegressor)


def load(csv: str | None) -> tuple[pd.DataFrame, Any, str]:
    """Return the measurements, the quality of each wine, and where they come from."""
    if csv is not None:
        table = pd.read_csv(csv, sep=None, engine="python")  # ";" or ",", whichever it is
        return table.iloc[:, :-1], table.iloc[:, -1], os.path.basename(csv)
    data = load_wine(as_frame=True)
    return data.data, data.target, "scikit-learn's wine data"


def main() -> None:
    parser = argparse.ArgumentParser(description="Wine quality with boosted trees on actors.")
    parser.add_argument(
        "csv", nargs="?", default=os.environ.get("MLTOOLKIT_WINE_CSV"), help="file of wines, quality in the last column"
    )
    X, quality, source = load(parser.parse_args().csv)
    good = (quality >= quality.median()).astype(int)
    print(f"{len(X)} wines with {X.shape[1]} measurements each, from {source}")
    X_train, X_test, good_train, good_test, quality_train, quality_test = train_test_split(
        X, good, quality, test_size=0.25, random_state=0
    )

    print("Is it good? Estimators, accuracy on wines that they have not seen:")
    for estimator in CLASSIFIERS:
        started = time.perf_counter()
        model = estimator(n_estimators=50, random_state=0).fit(X_train, good_train, ray_params=ACTORS)
        seconds = time.perf_counter() - started
        print(f"  {estimator.__name__:20} {model.score(X_test, good_test):.3f} in {seconds:.2f} s")

    print("How good? Estimators, R2:")
    for estimator in REGRESSORS:
        model = estimator(n_estimators=50, random_state=0).fit(X_train, quality_train, ray_params=ACTORS)
        print(f"  {estimator.__name__:20} {model.score(X_test, quality_test):.3f}")

    print("Is it good? The native interfaces, accuracy:")
    dtrain = mltoolkit.xgboost.RayDMatrix(X_train, good_train)
    dtest = mltoolkit.xgboost.RayDMatrix(X_test, good_test)
    booster = mltoolkit.xgboost.train({"objective": "binary:logistic"}, dtrain, 50, ray_params=ACTORS)
    probability = mltoolkit.xgboost.predict(booster, dtest, ray_params=ACTORS)
    print(f"  XGBoost              {np.mean((probability > 0.5) == good_test):.3f}")
    dtrain = mltoolkit.lightgbm.RayDMatrix(X_train, good_train)
    dtest = mltoolkit.lightgbm.RayDMatrix(X_test, good_test)
    booster = mltoolkit.lightgbm.train({"objective": "binary"}, dtrain, lightgbm.Booster, 50, ray_params=ACTORS)
    probability = mltoolkit.lightgbm.predict(booster, dtest, ray_params=ACTORS)
    print(f"  LightGBM             {np.mean((probability > 0.5) == good_test):.3f}")


if __name__ == "__main__":
    main()

"""Grid search on wine quality: scikit-learn's own `GridSearchCV`, every fit a task of mltoolkit.

Nothing of the search changes but the two lines that choose the backend. The data are a CSV file like the wine-quality
sets of the UCI repository (a header, the quality in the last column) or a data set of OpenML by its name; by default
the wine data that scikit-learn brings along.

    python examples/wine_grid_search.py
    python examples/wine_grid_search.py winequality-red.csv
    python examples/wine_grid_search.py --openml wine-quality-red --progress
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import joblib
import pandas as pd
from sklearn.datasets import fetch_openml, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.tree import DecisionTreeClassifier

import mltoolkit
from mltoolkit.util.joblib import register_ray

TREES = {
    "criterion": ["gini", "entropy"],
    "max_depth": [4, 6, 8, 12, None],
    "min_samples_leaf": [1, 2, 4, 8],
    "max_features": [None, "sqrt"],
}
FORESTS = {"max_depth": [4, 8, None], "min_samples_leaf": [1, 2, 4], "max_features": ["sqrt", None]}


def load(csv: str | None, openml: str | None) -> tuple[pd.DataFrame, Any, str]:
    """Return the measurements, the quality of each wine, and where they come from."""
    if openml is not None:
        data = fetch_openml(openml, version=1, as_frame=True)
        return data.data, data.target, f"{openml} of OpenML"
    if csv is not None:
        table = pd.read_csv(csv, sep=None, engine="python")  # ";" or ",", whichever it is
        return table.iloc[:, :-1], table.iloc[:, -1], os.path.basename(csv)
    data = load_wine(as_frame=True)
    return data.data, data.target, "scikit-learn's wine data"


def main() -> None:
    parser = argparse.ArgumentParser(description="Grid search on wine quality with mltoolkit.")
    parser.add_argument(
        "csv", nargs="?", default=os.environ.get("MLTOOLKIT_WINE_CSV"), help="file of wines, quality in the last column"
    )
    parser.add_argument("--openml", metavar="NAME", help="data set of OpenML to use instead of a file")
    parser.add_argument("--progress", action="store_true", help="show a bar for each search")
    args = parser.parse_args()

    X, y, source = load(args.csv, args.openml)
    print(f"{len(X)} wines with {X.shape[1]} measurements each, from {source}")

    register_ray()
    with mltoolkit.init(), joblib.parallel_config("mltoolkit", progress=args.progress):
        cpus = mltoolkit.cluster_resources()["CPU"]
        searches = {
            "decision trees, full grid": GridSearchCV(DecisionTreeClassifier(random_state=0), TREES, cv=5),
            # Each forest asks for two threads of its own; a task has one CPU, and so none is used twice.
            "random forests, eight of a grid": RandomizedSearchCV(
                RandomForestClassifier(50, random_state=0, n_jobs=2), FORESTS, n_iter=8, cv=3, random_state=0
            ),
        }
        for name, search in searches.items():
            started = time.perf_counter()
            search.fit(X, y)
            seconds = time.perf_counter() - started
            fits = len(search.cv_results_["params"]) * search.n_splits_
            print(f"{name}: {fits} fits in {seconds:.2f} s on {cpus:g} CPUs")
            print(f"  accuracy {search.best_score_:.3f} with {search.best_params_}")


if __name__ == "__main__":
    main()

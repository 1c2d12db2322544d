"""How fast is scikit-learn's GridSearchCV through each joblib backend, on many small fits and on fewer larger ones?

Cold: a fresh interpreter that has imported scikit-learn and loaded the data; the clock starts before the runtime is
imported, started and its backend registered, and stops when the search is fitted. Warm: the same search again in the
same session. The scores of the search are compared across backends by run.py: a faster wrong answer does not count.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import SEED, Recorder, parser, run_fresh, seed_everything
from _joblib_backends import BACKENDS, JoblibBackend
from _runtimes import answer

if TYPE_CHECKING:
    import numpy as np
    from sklearn.model_selection import GridSearchCV

SEARCHES = ("tree_grid", "forest_grid")


def load_data(wine: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return features and classes of the wine-quality CSV at `wine`, else of the wine data of scikit-learn."""
    if wine is None:
        from sklearn.datasets import load_wine

        features, classes = load_wine(return_X_y=True)
        return features, classes
    import numpy as np

    table = np.loadtxt(wine, delimiter=";", skiprows=1)
    return table[:, :-1], table[:, -1].astype(int)


def make_search(name: str, smoke: bool) -> GridSearchCV:
    """Return the unfitted search of this name, with fixed seeds and folds."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.tree import DecisionTreeClassifier

    grid: dict[str, list[Any]]
    estimator: Any
    if name == "tree_grid":
        estimator = DecisionTreeClassifier(random_state=SEED)
        grid = {
            "criterion": ["gini", "entropy"],
            "max_depth": [4, 6, 8, 12, None],
            "min_samples_split": [2, 5, 10, 20],
            "min_samples_leaf": [1, 4],
        }
    else:
        estimator = RandomForestClassifier(random_state=SEED)
        grid = {"n_estimators": [25, 50], "max_depth": [6, 12, None], "max_features": ["sqrt", 0.5]}
    if smoke:
        grid = {key: values[:1] for key, values in grid.items()} | {"max_depth": grid["max_depth"][:2]}
    return GridSearchCV(estimator, grid, cv=KFold(5, shuffle=True, random_state=SEED))


def child(search_name: str, backend: str, wine: str | None, smoke: bool) -> None:
    """Measure one search in this fresh interpreter: once cold, then warm."""
    start = time.perf_counter()
    import sklearn.ensemble
    import sklearn.model_selection
    import sklearn.tree  # noqa: F401

    imported = time.perf_counter() - start
    features, classes = load_data(wine)
    values: dict[str, list[float]] = {"sklearn_import": [imported]}
    start = time.perf_counter()
    with JoblibBackend(backend):
        search = make_search(search_name, smoke).fit(features, classes)
        values[f"{search_name}_cold"] = [time.perf_counter() - start]
        for _ in range(1 if smoke else 2):
            start = time.perf_counter()
            make_search(search_name, smoke).fit(features, classes)
            values.setdefault(f"{search_name}_warm", []).append(time.perf_counter() - start)
    facts = {f"{search_name}_score": round(float(search.cv_results_["mean_test_score"].sum()), 12)}
    answer(values, facts)


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, BACKENDS)
    arguments.add_argument("--wine", help="path of the wine-quality CSV; without it the data that scikit-learn bundles")
    arguments.add_argument("--searches", nargs="+", choices=SEARCHES, default=SEARCHES, help="which are measured")
    arguments.add_argument("--child", choices=SEARCHES, help="used by the program itself")
    options = arguments.parse_args()
    seed_everything()
    if options.child:
        child(options.child, options.runtime, options.wine, options.smoke)
        return
    record = Recorder(options.runtime)
    for search in options.searches:
        command = [sys.executable, __file__, "--child", search, "--runtime", options.runtime]
        command += ["--wine", str(Path(options.wine).resolve())] if options.wine else []
        command += ["--smoke"] if options.smoke else []
        run_fresh(command, record)
    record.finish(options.out, (options.runtime, "scikit-learn", "joblib", "numpy", "distributed"))


if __name__ == "__main__":
    main()

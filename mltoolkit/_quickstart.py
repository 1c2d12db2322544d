"""``mltoolkit quickstart``: a grid search on every CPU through the joblib backend, compared with one process."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mltoolkit._processes import CommandError

__all__ = ["load_wine_csv", "quickstart"]

# 80 candidates of a few milliseconds each: the kind of search where the cost per task decides.
GRID: dict[str, list[Any]] = {
    "criterion": ["gini", "entropy"],
    "max_depth": [4, 6, 8, 12, None],
    "min_samples_leaf": [1, 2, 4, 8],
    "max_features": [None, "sqrt"],
}
FOLDS = 5


def quickstart(wine_csv: str | None, console: Console | None = None) -> None:
    """Run the search both ways and print what was done, what was found and how long it took.

    Parameters
    ----------
    wine_csv : str or None
        A file for :func:`load_wine_csv`; ``None`` means the wine data that scikit-learn brings along.
    console : rich.console.Console, default=None
        Where to print; ``None`` means standard output.

    Raises
    ------
    CommandError
        If scikit-learn is missing or the file cannot be used.
    """
    console = console or Console(highlight=False)
    try:
        import joblib
        from sklearn.datasets import load_wine
        from sklearn.model_selection import GridSearchCV
        from sklearn.tree import DecisionTreeClassifier
    except ImportError as error:
        raise CommandError(f"quickstart needs scikit-learn ({error}): pip install 'mltoolkit[sklearn]'") from error
    import mltoolkit
    from mltoolkit.util.joblib import register_ray

    if wine_csv is None:
        X, y = load_wine(return_X_y=True)
        source = "scikit-learn's wine data"
    else:
        X, y = load_wine_csv(wine_csv)
        source = wine_csv
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), GRID, cv=FOLDS)
    console.print(f"Data: {source}, {len(y)} wines with {len(X[0])} measurements each")

    started = time.perf_counter()
    search.fit(X, y)
    one_process_s = time.perf_counter() - started
    alone = search.best_params_, search.best_score_
    fits = len(search.cv_results_["params"]) * FOLDS
    console.print(f"Job:  the best of {fits // FOLDS} decision trees, each scored on {FOLDS} folds: {fits} fits")

    started = time.perf_counter()
    with mltoolkit.init():
        register_ray()
        start_s = time.perf_counter() - started
        with joblib.parallel_config("mltoolkit", n_jobs=-1):
            search.fit(X, y)
        cold_s = time.perf_counter() - started
        again = time.perf_counter()
        with joblib.parallel_config("mltoolkit", n_jobs=-1):
            search.fit(X, y)
        warm_s = time.perf_counter() - again
        cpus = mltoolkit.cluster_resources()["CPU"]

    table = Table()
    for column in ("where", "time", "speed"):
        table.add_column(column, justify="left" if column == "where" else "right")
    table.add_row("one process", f"{one_process_s:.2f} s", "")
    table.add_row(f"mltoolkit, from start to result (ready in {start_s:.2f} s)", *_timing(cold_s, one_process_s))
    table.add_row("mltoolkit, the same search again", *_timing(warm_s, one_process_s))
    console.print(table)
    console.print(f"CPUs: {cpus:g}")
    same = (
        "the same as in one process"
        if (search.best_params_, search.best_score_) == alone
        else "NOT what one process found"
    )
    console.print(f"Best: {search.best_score_:.3f} accuracy with {_readable(search.best_params_)} ({same})")


def load_wine_csv(path: str) -> tuple[Any, Any]:
    """Read a table of numbers with a header row, the last column being what is predicted.

    Parameters
    ----------
    path : str
        Text with columns separated by ``;`` or ``,``, such as the wine-quality data.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), dtype=float64
    y : ndarray of shape (n_samples,), dtype=int64

    Raises
    ------
    CommandError
        If the file cannot be read or holds something else.
    """
    import numpy as np

    try:
        text = Path(path).read_text()
        header = text.partition("\n")[0]
        rows = list(csv.reader(text.splitlines(), delimiter=";" if ";" in header else ","))
        table = np.array([[float(cell) for cell in row] for row in rows[1:] if row])
    except OSError as error:
        raise CommandError(f"cannot read the data: {error}") from error
    except ValueError as error:
        raise CommandError(f"{path!r} must hold rows of numbers of equal length below a header: {error}") from error
    if table.ndim != 2 or table.shape[1] < 2:
        raise CommandError(f"{path!r} must have at least one row and two columns, got shape {table.shape}.")
    return table[:, :-1], table[:, -1].astype(np.int64)


def _timing(seconds: float, reference: float) -> tuple[str, str]:
    return f"{seconds:.2f} s", f"{reference / seconds:.2f}x"


def _readable(params: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in params.items())

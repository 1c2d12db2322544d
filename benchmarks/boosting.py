"""What does it cost to distribute XGBoost or LightGBM: time with start-up, memory of all processes, the fixed cost on small data?

Each measurement is a fresh interpreter that has imported the library and made its data; the clock starts before the runtime
is imported and started, and stops when the model is there. Two ranks with one thread each, against the plain library with
two threads. Memory is measured in an interpreter of its own, since watching it takes time. The loss of the models is
compared by run.py's reader: a faster worse model does not count.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _boosting_runtimes import RUNTIMES, TRAINERS
from _harness import SEED, Recorder, parser, run_fresh, seed_everything, session_pss
from _runtimes import answer

if TYPE_CHECKING:
    import numpy as np

PARTS = ("time", "memory", "wine")
PARAMS: dict[str, dict[str, Any]] = {
    "xgboost": {"objective": "binary:logistic", "tree_method": "hist"},
    "lightgbm": {"objective": "binary", "verbosity": -1},
}
PREFIX = {"xgboost": "boost", "lightgbm": "lightgbm"}
_LOOK_EVERY_S = 0.02


def make_data(smoke: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return 500,000 rows of 28 columns, and labels that a tree cannot learn perfectly."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    rows = 2_000 if smoke else 500_000
    features = rng.standard_normal((rows, 28), dtype=np.float32)
    scores = features @ rng.standard_normal(28).astype(np.float32) + rng.standard_normal(rows, dtype=np.float32)
    return features, (scores > 0).astype(np.float32)


def load_wine(wine: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the wine-quality CSV at `wine`, else the wine data of scikit-learn; the label is whether it is good."""
    import numpy as np

    if wine is None:
        from sklearn.datasets import load_wine as bundled

        features, classes = bundled(return_X_y=True)
        return features, (classes > 0).astype(np.float32)
    table = np.loadtxt(wine, delimiter=";", skiprows=1)
    return table[:, :-1], (table[:, -1] >= 6).astype(np.float32)


def log_loss(booster: Any, features: np.ndarray, labels: np.ndarray) -> float:
    """Loss of a model on its training data."""
    import numpy as np

    features, labels = features[:50_000], labels[:50_000]
    if type(booster).__module__.startswith("xgboost"):
        import xgboost

        features = xgboost.DMatrix(features)
    predicted = np.clip(booster.predict(features), 1e-7, 1 - 1e-7)
    return float(-np.mean(labels * np.log(predicted) + (1 - labels) * np.log(1 - predicted)))


class PeakWatch:
    """The greatest proportional set size of all processes of this measurement while the block runs, in MB."""

    def __enter__(self) -> PeakWatch:
        self.peak = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            self.peak = max(self.peak, session_pss())


def child(library: str, part: str, runtime: str, wine: str | None, smoke: bool) -> None:
    """Measure one part in this fresh interpreter."""
    importlib.import_module("numpy")
    importlib.import_module(library)
    values: dict[str, list[float]] = {}
    facts: dict[str, float] = {}
    train, plain = TRAINERS[library][runtime], TRAINERS[library]["process"]
    params, prefix = PARAMS[library], PREFIX[library]
    if part == "wine":
        features, labels = load_wine(wine)
        start = time.perf_counter()
        plain(params, features, labels, 100, ranks=2)
        alone = time.perf_counter() - start
        start = time.perf_counter()
        train(params, features, labels, 100, ranks=3)
        # On a busy machine the threads of one process may wait for each other longer than distributing takes.
        values[f"{prefix}_wine_cost"] = [max(time.perf_counter() - start - alone, 0.001)]
    else:
        features, labels = make_data(smoke)
        rounds = 3 if smoke else 50
        if part == "memory":
            with PeakWatch() as watch:
                booster = train(params, features, labels, rounds, ranks=2)
            values[f"{prefix}_peak"] = [watch.peak]
        else:
            start = time.perf_counter()
            booster = train(params, features, labels, rounds, ranks=2)
            values[f"{prefix}_train"] = [time.perf_counter() - start]
            values[f"{prefix}_loss"] = [log_loss(booster, features, labels)]
        facts[f"{prefix}_{part}_data_mb"] = features.nbytes / 1e6
    answer(values, facts)


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, RUNTIMES)
    arguments.add_argument("--wine", help="path of the wine-quality CSV; without it the data that scikit-learn bundles")
    arguments.add_argument("--library", choices=tuple(PARAMS), default="xgboost", help="default: %(default)s")
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    arguments.add_argument("--child", choices=PARTS, help="used by the program itself")
    options = arguments.parse_args()
    seed_everything()
    if options.child:
        child(options.library, options.child, options.runtime, options.wine, options.smoke)
        return
    record = Recorder(options.runtime)
    for part in options.parts:
        if options.runtime not in TRAINERS[options.library]:
            continue
        if part == "wine" and options.runtime == "process":
            continue  # it is what the others are compared with
        command = [
            sys.executable,
            __file__,
            "--child",
            part,
            "--library",
            options.library,
            "--runtime",
            options.runtime,
        ]
        command += ["--wine", str(Path(options.wine).resolve())] if options.wine else []
        command += ["--smoke"] if options.smoke else []
        run_fresh(command, record, timeout=600)
    record.finish(options.out, (options.runtime, "xgboost-cpu", "xgboost", "lightgbm", "numpy", "distributed"))


if __name__ == "__main__":
    main()

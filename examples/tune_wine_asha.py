"""A sweep with ASHA: learning rate and momentum of a neural network that rates wines.

Of the samples only the better ones are trained to the end. The data are a CSV file like the wine-quality sets of the
UCI repository (a header, the quality in the last column), by default the wine data that scikit-learn brings along.
All trials share one copy of them. Needs PyTorch.

    python examples/tune_wine_asha.py
    python examples/tune_wine_asha.py winequality-red.csv --samples 100
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from mltoolkit import tune
from mltoolkit.tune.schedulers import ASHAScheduler

EPOCHS = 16
BATCH = 32


def load(csv: str | None) -> tuple[dict[str, np.ndarray], str]:
    """Return the wines, scaled and split, and where they come from."""
    if csv is None:
        wines = load_wine()
        X, y, source = wines.data, wines.target, "scikit-learn's wine data"
    else:
        table = pd.read_csv(csv, sep=None, engine="python")  # ";" or ",", whichever it is
        X, y = table.iloc[:, :-1].to_numpy(), pd.factorize(table.iloc[:, -1], sort=True)[0]
        source = os.path.basename(csv)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
    scaler = StandardScaler().fit(X_train)
    X_train, X_test = (scaler.transform(part).astype(np.float32) for part in (X_train, X_test))
    return {"X_train": X_train, "y_train": y_train, "X_test": X_test, "y_test": y_test}, source


def train(config: dict[str, Any], wines: dict[str, np.ndarray]) -> None:
    import torch  # here, not above: only the processes of trials need it, and each imports it once

    # A copy: what comes out of shared memory is read-only.
    X_train, y_train, X_test, y_test = (
        torch.tensor(wines[name]) for name in ("X_train", "y_train", "X_test", "y_test")
    )
    model = torch.nn.Sequential(
        torch.nn.Linear(X_train.shape[1], 32), torch.nn.ReLU(), torch.nn.Linear(32, int(y_train.max()) + 1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=config["momentum"])
    loss_of = torch.nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(X_train)).split(BATCH):
            optimizer.zero_grad()
            loss = loss_of(model(X_train[rows]), y_train[rows])
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            outputs = model(X_test)
            tune.report(
                {
                    "loss": loss_of(outputs, y_test).item(),
                    "accuracy": (outputs.argmax(dim=1) == y_test).float().mean().item(),
                }
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="ASHA over learning rate and momentum of a network.")
    parser.add_argument(
        "csv", nargs="?", default=os.environ.get("MLTOOLKIT_WINE_CSV"), help="file of wines, quality in the last column"
    )
    parser.add_argument("--samples", type=int, default=50, help="configurations to try (default: %(default)s)")
    args = parser.parse_args()

    wines, source = load(args.csv)
    print(f"{len(wines['X_train'])} wines to train on, {len(wines['X_test'])} to test on, from {source}")

    tuner = tune.Tuner(
        tune.with_parameters(train, wines=wines),
        param_space={"lr": tune.loguniform(1e-4, 1e-1), "momentum": tune.uniform(0.1, 0.9)},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=args.samples,
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=2),
            seed=0,
        ),
        run_config=tune.RunConfig(verbose=1),
    )
    started = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - started

    epochs = sum(result.metrics["training_iteration"] for result in results)
    print(f"{len(results)} samples in {seconds:.1f} s: {epochs} epochs instead of {len(results) * EPOCHS}")
    best = results.get_best_result()
    print(f"best loss {best.metrics['loss']:.3f}, accuracy {best.metrics['accuracy']:.3f}")
    print("with " + ", ".join(f"{name} = {value:.4f}" for name, value in best.config.items()))


if __name__ == "__main__":
    main()

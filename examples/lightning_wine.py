"""Wine quality four times: plain torch, Lightning, Lightning on two workers, and on six that share the CPUs.

The network, the data and the size of a batch of all workers are the same, so all four learn the same; what changes is one
line, `strategy=RayStrategy(num_workers=2)`. The data are a CSV file like the wine-quality sets of the UCI repository (a
header, the quality in the last column); by default the wine data that scikit-learn brings along.

    python examples/lightning_wine.py
    python examples/lightning_wine.py winequality-red.csv --only two
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from sklearn.datasets import load_wine
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mltoolkit.lightning import RayStrategy

BATCH = 24
EPOCHS = 20


class WineNet(pl.LightningModule):
    """Two hidden layers."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(features, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, classes),
        )

    def training_step(self, batch: Any, _: int) -> Any:
        loss = cross_entropy(self.body(batch[0]), batch[1])
        self.log("loss", loss, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.003)


def load(csv: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the measurements, each with mean 0 and deviation 1, and the quality as a number from 0."""
    if csv is None:
        data = load_wine()
        features, quality = data.data, data.target
    else:
        table = pd.read_csv(csv, sep=None, engine="python")  # ";" or ",", whichever it is
        features, quality = table.iloc[:, :-1].to_numpy(), table.iloc[:, -1].to_numpy()
    X = torch.tensor(features, dtype=torch.float32)
    return (X - X.mean(0)) / X.std(0), torch.tensor(pd.factorize(quality, sort=True)[0])


def quiet() -> None:
    """Have Lightning say nothing; on the workers `init_hook` calls it."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def with_torch(model: WineNet, data: TensorDataset) -> None:
    """Train without Lightning."""
    optimizer = model.configure_optimizers()
    loader = DataLoader(data, batch_size=BATCH, shuffle=True)
    for _ in range(EPOCHS):
        for inputs, targets in loader:
            optimizer.zero_grad()
            cross_entropy(model.body(inputs), targets).backward()
            optimizer.step()


def with_lightning(model: WineNet, data: TensorDataset, workers: int = 0) -> None:
    """Train with Lightning, in this process or on workers."""
    strategy: Any = "auto"
    if workers:
        # More workers than CPUs are fine where each asks for a part of one.
        share = min(1.0, (os.cpu_count() or 1) / workers)
        strategy = RayStrategy(num_workers=workers, num_cpus_per_worker=share, init_hook=quiet)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        strategy=strategy,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=BATCH // max(workers, 1), shuffle=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Wine quality in plain torch, in Lightning, and on workers.")
    parser.add_argument(
        "csv", nargs="?", default=os.environ.get("MLTOOLKIT_WINE_CSV"), help="file of wines, quality in the last column"
    )
    ways = {
        "torch": ("plain torch", lambda model, data: with_torch(model, data)),
        "lightning": ("Lightning", lambda model, data: with_lightning(model, data)),
        "two": ("two workers", lambda model, data: with_lightning(model, data, 2)),
        "six": ("six workers", lambda model, data: with_lightning(model, data, 6)),
    }
    parser.add_argument("--only", choices=list(ways), help="one of the four")
    options = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    X, quality = load(options.csv)
    test = torch.arange(len(X)) % 4 == 0
    data = TensorDataset(X[~test], quality[~test])
    print(f"{len(X)} wines with {X.shape[1]} measurements each; accuracy on a quarter that no way has learned from:")
    for name, (title, train) in ways.items():
        if options.only not in (None, name):
            continue
        torch.manual_seed(0)
        model = WineNet(X.shape[1], int(quality.max()) + 1)
        started = time.perf_counter()
        train(model, data)
        seconds = time.perf_counter() - started
        with torch.no_grad():  # on the model of this process, wherever it has been trained
            right = (model.body(X[test]).argmax(1) == quality[test]).float().mean().item()
        print(f"  {title:12} {right:.3f} in {seconds:.2f} s")


if __name__ == "__main__":
    main()

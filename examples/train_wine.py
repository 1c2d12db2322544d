"""A neural network that rates wines, trained by two processes: plain PyTorch on TorchTrainer.

Each worker sees its half of every epoch; gradients are averaged, so that all have the same model. The data are a CSV file
like the wine-quality sets of the UCI repository (a header, the quality in the last column), by default the wine data that
scikit-learn brings along. Needs PyTorch.

    python examples/train_wine.py
    python examples/train_wine.py winequality-red.csv --workers 4
"""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

from mltoolkit import train
from mltoolkit.train.torch import TorchTrainer, enable_reproducibility, prepare_data_loader, prepare_model

EPOCHS = 20


def load(csv: str | None) -> dict[str, np.ndarray]:
    """Return the wines, scaled and split."""
    if csv is None:
        X, y = load_wine(return_X_y=True)
    else:
        table = pd.read_csv(csv, sep=None, engine="python")  # ";" or ",", whichever it is
        X, y = table.iloc[:, :-1].to_numpy(), pd.factorize(table.iloc[:, -1], sort=True)[0]
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
    scaler = StandardScaler().fit(X_train)
    X_train, X_test = (scaler.transform(part).astype(np.float32) for part in (X_train, X_test))
    return {"X_train": X_train, "y_train": y_train, "X_test": X_test, "y_test": y_test}


def make_model(num_features: int, num_classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(num_features, 32), torch.nn.ReLU(), torch.nn.Linear(32, num_classes))


def train_loop(config: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs."""
    enable_reproducibility(0)
    wines = {name: torch.tensor(values) for name, values in config["wines"].items()}
    loader = DataLoader(TensorDataset(wines["X_train"], wines["y_train"]), batch_size=16, shuffle=True)
    loader = prepare_data_loader(loader)  # each worker reads its part
    model = prepare_model(make_model(wines["X_train"].shape[1], config["classes"]))  # gradients are averaged
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_of = torch.nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        for X, y in loader:
            optimizer.zero_grad()
            loss = loss_of(model(X), y)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = (model(wines["X_test"]).argmax(dim=1) == wines["y_test"]).float().mean().item()
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if train.get_context().get_world_rank() == 0:  # the model is the same on all ranks: one keeps it
                torch.save(model.module.state_dict(), os.path.join(folder, "model.pt"))
                checkpoint = train.Checkpoint.from_directory(folder)
            train.report({"loss": loss.item(), "accuracy": accuracy}, checkpoint=checkpoint)
    return {"batches per worker": len(loader), "ranks": train.get_context().get_world_size()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv", nargs="?", help="wines to rate; scikit-learn's by default")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    wines = load(args.csv)
    classes = int(wines["y_train"].max()) + 1
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"wines": wines, "classes": classes},
        scaling_config=train.ScalingConfig(num_workers=max(args.workers, 2)),
        run_config=train.RunConfig(
            verbose=0,
            checkpoint_config=train.CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="accuracy"),
        ),
    )
    result = trainer.fit()
    print(f"{result.return_value['ranks']} workers, {result.return_value['batches per worker']} batches each")
    history = result.metrics_dataframe
    for epoch in (1, EPOCHS // 2, EPOCHS):
        row = history.iloc[epoch - 1]
        print(f"epoch {epoch:2d}: loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}")

    best = result.get_best_checkpoint("accuracy", "max")
    model = make_model(wines["X_train"].shape[1], classes)
    with best.as_directory() as folder:
        model.load_state_dict(torch.load(os.path.join(folder, "model.pt"), weights_only=True))
    predicted = model(torch.tensor(wines["X_test"])).argmax(dim=1).numpy()
    print(f"the best checkpoint, in this process: accuracy {(predicted == wines['y_test']).mean():.3f}")


if __name__ == "__main__":
    main()

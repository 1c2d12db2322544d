"""The network of tune_wine.py: its data, its training, and the configurations that are tried."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from _harness import SEED

BATCH, HIDDEN = 64, 64


def points(count: int) -> list[dict[str, float]]:
    """Return the pairs of learning rate and momentum."""
    generator = random.Random(SEED)
    return [{"lr": 10 ** generator.uniform(-4, -1), "momentum": generator.uniform(0.1, 0.9)} for _ in range(count)]


@lru_cache(maxsize=1)
def load_data(wine: str | None) -> tuple[Any, Any, Any, Any, int]:
    """Return features and classes for training and for validation, and the number of classes.

    Of the wine-quality CSV at `wine`, else of scikit-learn's wine data, repeated to about the same size.
    """
    import numpy as np
    import torch

    if wine is not None:
        table = np.loadtxt(wine, delimiter=";", skiprows=1)
        features, classes = table[:, :-1], np.unique(table[:, -1], return_inverse=True)[1]
    else:
        from sklearn.datasets import load_wine

        features, classes = load_wine(return_X_y=True)
        features, classes = np.tile(features[:, :11], (9, 1)), np.tile(classes, 9)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    order = np.random.default_rng(SEED).permutation(len(features))
    x = torch.tensor(features[order], dtype=torch.float32)
    y = torch.tensor(classes[order], dtype=torch.int64)
    cut = len(x) * 4 // 5
    return x[:cut], y[:cut], x[cut:], y[cut:], int(y.max()) + 1


def train(point: dict[str, float], epochs: int, wine: str | None) -> Iterator[float]:
    """Train one network; yield its validation loss after each epoch."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    x, y, x_valid, y_valid, classes = load_data(wine)
    # A generator of its own: threads of one process share torch's.
    generator = torch.Generator().manual_seed(SEED)
    model = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.1, 0.1, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=point["lr"], momentum=point["momentum"])
    loss_of = nn.CrossEntropyLoss()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss_of(model(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            yield float(loss_of(model(x_valid), y_valid))

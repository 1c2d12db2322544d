"""A sweep over distributed training: each trial has two workers of its own, and ASHA stops the poor ones.

What is tuned is learning rate and width of a network that recognizes handwritten digits, on the data that scikit-learn
brings along. Needs PyTorch.

    python examples/train_sweep.py
"""

from __future__ import annotations

import time
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from mltoolkit import train, tune
from mltoolkit.train.torch import TorchTrainer, prepare_data_loader, prepare_model
from mltoolkit.tune.schedulers import ASHAScheduler

EPOCHS = 9
SAMPLES = 6


def train_loop(config: dict[str, Any]) -> None:
    """What each worker of a trial runs."""
    torch.manual_seed(0)
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X, dtype=torch.float32) / 16, torch.tensor(y)
    loader = prepare_data_loader(DataLoader(TensorDataset(X[:1400], y[:1400]), batch_size=50, shuffle=True))
    layers = [torch.nn.Linear(64, config["width"]), torch.nn.ReLU(), torch.nn.Linear(config["width"], 10)]
    model = prepare_model(torch.nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    for _ in range(config["epochs"]):
        for inputs, targets in loader:
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = (model(X[1400:]).argmax(dim=1) == y[1400:]).float().mean().item()
        train.report({"accuracy": accuracy, "workers": train.get_context().get_world_size()})


def main() -> None:
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"epochs": EPOCHS},  # the sweep adds to it
        scaling_config=train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
    )
    tuner = tune.Tuner(
        trainer,
        param_space={"train_loop_config": {"lr": tune.loguniform(1e-3, 1), "width": tune.choice([16, 64])}},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=SAMPLES,
            scheduler=ASHAScheduler(grace_period=1, max_t=EPOCHS, reduction_factor=3),
            seed=3,
        ),
        run_config=tune.RunConfig(verbose=0),
    )
    began = time.perf_counter()
    results = tuner.fit()
    epochs = sum(result.metrics["training_iteration"] for result in results)
    print(
        f"{SAMPLES} trials with {results[0].metrics['workers']} workers each in {time.perf_counter() - began:.1f} s: "
        f"{epochs} epochs instead of {SAMPLES * EPOCHS}"
    )
    best = results.get_best_result()
    chosen = best.config["train_loop_config"]
    print(f"best accuracy {best.metrics['accuracy']:.3f} with lr = {chosen['lr']:.3f}, width = {chosen['width']}")


if __name__ == "__main__":
    main()

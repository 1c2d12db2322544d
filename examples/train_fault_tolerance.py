"""Training that survives the death of a worker: it goes on from the last checkpoint, with a new process.

A network predicts how diabetes progresses, on the data that scikit-learn brings along. In the middle of the training one of
the two workers kills itself, as the kernel does with processes that use too much memory. Needs PyTorch.

    python examples/train_fault_tolerance.py
"""

from __future__ import annotations

import os
import signal
import tempfile
from typing import Any

import torch
from sklearn.datasets import load_diabetes
from torch.utils.data import DataLoader, TensorDataset

from mltoolkit import train
from mltoolkit.train.torch import TorchTrainer, prepare_data_loader, prepare_model

EPOCHS = 12
DIES_IN = 7


def train_loop(config: dict[str, Any]) -> int:
    """What each worker runs; returns the epoch that it began with."""
    torch.manual_seed(0)
    X, y = (torch.tensor(part, dtype=torch.float32) for part in load_diabetes(return_X_y=True))
    y = ((y - y.mean()) / y.std()).reshape(-1, 1)
    loader = prepare_data_loader(DataLoader(TensorDataset(X * 20, y), batch_size=32, shuffle=True))
    model = prepare_model(torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    first = 0
    checkpoint = train.get_checkpoint()
    if checkpoint is not None:  # there was a run before, which was cut short
        with checkpoint.as_directory() as folder:
            state = torch.load(os.path.join(folder, "state.pt"), weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1

    rank = train.get_context().get_world_rank()
    for epoch in range(first, EPOCHS):
        loader.sampler.set_epoch(epoch)
        if epoch == DIES_IN and first == 0 and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        for inputs, targets in loader:
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with tempfile.TemporaryDirectory() as folder:
            kept = None
            if rank == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
                torch.save(state, os.path.join(folder, "state.pt"))
                kept = train.Checkpoint.from_directory(folder)
            train.report({"epoch": epoch, "loss": loss.item(), "began_with": first}, checkpoint=kept)
    return first


def fit(max_failures: int) -> train.Result:
    return TorchTrainer(
        train_loop,
        scaling_config=train.ScalingConfig(num_workers=2),
        run_config=train.RunConfig(verbose=0, failure_config=train.FailureConfig(max_failures=max_failures)),
    ).fit()


def main() -> None:
    try:
        fit(max_failures=0)
    except train.TrainingFailedError as error:
        print(f"without another try: {str(error).partition('; ')[0]}")
    result = fit(max_failures=1)
    epochs = result.metrics_dataframe[["epoch", "began_with"]].astype(int).to_numpy().tolist()
    print("epochs before the worker died:", *(epoch for epoch, began in epochs if began == 0))
    print("epochs from the checkpoint on:", *(epoch for epoch, began in epochs if began > 0))
    print(f"began the second time with epoch {result.return_value}, loss in the end {result.metrics['loss']:.2f}")


if __name__ == "__main__":
    main()

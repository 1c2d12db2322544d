"""A small convolutional network that learns to read digits, on two workers, with all that a Trainer offers.

The best checkpoint, early stopping, a log, and afterwards a test and predictions: the Trainer of this process has all of
it, although the training ran in others.

    python examples/lightning_digits.py
"""

from __future__ import annotations

import csv
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mltoolkit.lightning import RayStrategy


class Digits(pl.LightningModule):
    """One convolution, one linear layer."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, channels, 3),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(9 * channels, 10),
        )

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = cross_entropy(self.body(batch[0]), batch[1])
        self.log("loss", loss, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        output = self.body(batch[0])
        self.log("val_loss", cross_entropy(output, batch[1]), sync_dist=True)
        self.log("val_accuracy", (output.argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("accuracy", (self.body(batch[0]).argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.body(batch[0]).argmax(1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)]


def quiet() -> None:
    """Have Lightning say nothing; on the workers `init_hook` calls it."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def main() -> None:
    quiet()
    pl.seed_everything(0, verbose=False)
    X, y = load_digits(return_X_y=True)
    images, labels = torch.tensor(X / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(y)
    part = torch.arange(len(y)) % 4
    train, validate, test = (
        DataLoader(TensorDataset(images[chosen], labels[chosen]), batch_size=32, shuffle=shuffled)
        for chosen, shuffled in ((part > 1, True), (part == 0, False), (part == 1, False))
    )
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(dirpath=f"{folder}/checkpoints", monitor="val_loss")
        patience = EarlyStopping("val_loss", patience=2, min_delta=0.01)
        logger = CSVLogger(folder)
        model = Digits()
        trainer = pl.Trainer(
            max_epochs=12,
            strategy=RayStrategy(num_workers=2, init_hook=quiet),
            accelerator="cpu",
            callbacks=[best, patience],
            logger=logger,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, train, validate)
        print(
            f"epoch {trainer.current_epoch}, step {trainer.global_step}, {best.best_model_score:.3f} at best, kept as"
        )
        print(f"  {Path(best.best_model_path).name}")
        with open(f"{logger.log_dir}/metrics.csv") as stream:
            losses = [float(row["val_loss"]) for row in csv.DictReader(stream) if row["val_loss"]]
        print("validation losses:", " ".join(f"{loss:.2f}" for loss in losses))

        (tested,) = trainer.test(model, test, ckpt_path="best", verbose=False)
        print(f"accuracy {tested['accuracy']:.3f} of the best, computed by the workers")
        predicted = torch.cat(trainer.predict(model, test))
        print(
            f"accuracy {(predicted == labels[part == 1]).float().mean():.3f} of predictions, in the order of the images"
        )


if __name__ == "__main__":
    main()

"""Lightning in a session, data, a model and callbacks, and Trainers that are quiet."""

from __future__ import annotations

import os
import warnings

import pytest


@pytest.fixture(scope="module")
def pl():
    """Lightning, in a session whose fork server is a fork of this process, so that it is not imported twice."""
    import mltoolkit as ray

    ray.shutdown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("pytorch_lightning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLTOOLKIT_ZYGOTE", "fork")
        ray.init(num_cpus=4)
    yield package
    ray.shutdown()


@pytest.fixture(scope="module")
def parts(pl):
    """Data, a model and a callback that are defined inside a function, as in a notebook."""
    import torch

    class Net(pl.LightningModule):
        def __init__(self, fail_on=None):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
            self.seen = []
            self.fail_on = fail_on

        def training_step(self, batch, index):
            if self.fail_on == self.global_rank and index == 1:
                raise ZeroDivisionError("in this rank's step")
            loss = torch.nn.functional.mse_loss(self.body(batch[0]), batch[1])
            self.log("loss", loss, prog_bar=True, sync_dist=True)
            self.seen.append(loss.item())
            return loss

        def validation_step(self, batch, _):
            self.log("val", torch.nn.functional.mse_loss(self.body(batch[0]), batch[1]), sync_dist=True)

        test_step = validation_step

        def predict_step(self, batch, _):
            return self.body(batch[0])

        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)]

    class Record(pl.Callback):
        def __init__(self):
            self.losses = []
            self.ranks = None

        def on_train_epoch_end(self, trainer, module):
            self.losses.append(float(trainer.callback_metrics["loss"]))
            sampler = trainer.train_dataloader.sampler
            self.ranks = (trainer.global_rank, trainer.world_size, trainer.local_rank, type(sampler).__name__)

    class Bar(pl.callbacks.ProgressBar):
        def __init__(self):
            super().__init__()
            self.calls = []

        def disable(self):
            raise AssertionError("rank 0's bar is shown")

        def enable(self):
            pass

        def on_train_epoch_start(self, trainer, module):
            self.calls.append((trainer.current_epoch, os.getpid()))

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.calls.append((batch_idx + 1, self.total_train_batches, self.get_metrics(trainer, module)))

    torch.manual_seed(0)
    x = torch.randn(64, 6)
    y = x.sum(1, keepdim=True)

    def loader(**options):
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8, **options)

    return Net, Record, Bar, loader


@pytest.fixture
def trainer_of(pl, tmp_path):
    def make(strategy, **options):
        options = {
            "max_epochs": 2,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
            "accelerator": "cpu",
            **options,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pl.Trainer(strategy=strategy, **options)

    return make

"""A program with Trainers on workers: without a main guard, interrupted, and in the older form."""

from __future__ import annotations

import signal

import pytest
from helpers import end_family, start_script, wait_until

pytest.importorskip("lightning")

MODEL = """
import logging, os, sys, time, warnings
warnings.simplefilter("ignore")
import torch
for name in ("lightning.pytorch", "pytorch_lightning"):
    logging.getLogger(name).setLevel(logging.ERROR)

class Net(pl.LightningModule):
    pause = 0.0

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(4, 1)

    def training_step(self, batch, _):
        if self.pause:
            open("running", "w").close()
            time.sleep(self.pause)
        return torch.nn.functional.mse_loss(self.body(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

torch.manual_seed(0)
x = torch.randn(32, 4)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)

def error(net):
    with torch.no_grad():
        return torch.nn.functional.mse_loss(net.body(x), x.sum(1, keepdim=True)).item()
"""


def test_an_interrupt_leaves_a_process_in_which_the_next_fit_works(tmp_path):
    process = start_script(
        "import lightning.pytorch as pl\nfrom ray_lightning import RayPlugin, RayStrategy\n"
        + MODEL
        + """
import pytorch_lightning  # both are loaded: the one that this module uses is meant
strategy = RayStrategy(num_workers=2)
assert isinstance(strategy, pl.strategies.DDPStrategy)
slow = Net()
slow.pause = 60.0
try:
    pl.Trainer(max_epochs=1, strategy=strategy, accelerator="cpu", **quiet).fit(slow, loader)
except SystemExit:  # how Lightning ends a run
    print("interrupted")
import signal
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
net = Net()
before = error(net)
plugin = RayPlugin(num_workers=3, use_gpu=False)  # in the place where strategies were before Lightning 2
trainer = pl.Trainer(max_epochs=5, plugins=[plugin], accelerator="cpu", **quiet)
assert trainer.strategy is plugin
trainer.fit(net, loader)
print("trained", error(net) < before / 5)
""",
        tmp_path,
        python_args=("-m", "mltoolkit"),
    )
    try:
        wait_until(lambda: (tmp_path / "running").exists() or process.poll() is not None, 90, "training runs")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        end_family(process.pid)
    assert out.splitlines()[-2:] == ["interrupted", "trained True"], (out, err)

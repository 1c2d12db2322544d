"""The network and the data of lightning_workers.py's `wine`, in a module, as processes that spawn need them."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from _harness import SEED


class WineNet(pl.LightningModule):  # type: ignore[misc]
    """Two hidden layers of 64; notes when its first step begins."""

    def __init__(self, began: float) -> None:
        super().__init__()
        layers: list[Any] = []
        for size, following in itertools.pairwise((11, 64, 64, 6)):
            layers += [torch.nn.Linear(size, following), torch.nn.ReLU()]
        self.body = torch.nn.Sequential(*layers[:-1])
        self.began = began
        self.stepped = False

    def training_step(self, batch: Any, _: int) -> Any:
        """Return the loss."""
        if not self.stepped:
            self.stepped = True
            if self.global_rank == 0 and os.environ.get("FIRST_STEP"):
                Path(os.environ["FIRST_STEP"]).write_text(str(time.time() - self.began))
        return torch.nn.functional.cross_entropy(self.body(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def wine_loader() -> Any:
    """Return as many rows as there are red wines."""
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(1600, 11, generator=generator)
    y = torch.randint(0, 6, (1600,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=32, shuffle=True)

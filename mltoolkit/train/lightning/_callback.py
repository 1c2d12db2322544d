"""Reports of a Trainer's metrics and checkpoints."""

from __future__ import annotations

import os
import tempfile
from typing import Any, ClassVar

from mltoolkit.lightning._package import PackageClass
from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._session import report

__all__ = ["RayTrainReportCallback"]


class RayTrainReportCallback(PackageClass):
    """Reports the metrics of an epoch and a checkpoint of the Trainer when the epoch has ended.

    The checkpoint is a folder with Lightning's file ``checkpoint.ckpt``, for ``Trainer.fit(ckpt_path=...)``.
    """

    _base_in_package: ClassVar[tuple[str, str]] = ("{package}.callbacks", "Callback")
    CHECKPOINT_NAME = "checkpoint.ckpt"

    def __init__(self, checkpoint_upload_mode: None = None, validation: bool = False) -> None:
        super().__init__()
        if checkpoint_upload_mode is not None and getattr(checkpoint_upload_mode, "name", "") != "SYNC":
            raise NotImplementedError(
                f"`checkpoint_upload_mode={checkpoint_upload_mode!r}` is not supported: a checkpoint is stored before "
                "training goes on."
            )
        if validation:
            raise NotImplementedError("`validation` is not supported: use Lightning's validation loop.")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report."""
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        metrics.update(epoch=trainer.current_epoch, step=trainer.global_step)
        with tempfile.TemporaryDirectory() as folder:
            # On all ranks, since strategies that shard gather here; rank 0 alone writes.
            trainer.save_checkpoint(os.path.join(folder, self.CHECKPOINT_NAME), weights_only=False)
            report(metrics, checkpoint=Checkpoint(folder) if trainer.is_global_zero else None)

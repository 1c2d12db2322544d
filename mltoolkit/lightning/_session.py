"""Reports from rank 0 to the trial that has started the workers."""

from __future__ import annotations

from typing import Any

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._internal.mailbox import own_mailbox
from mltoolkit.train.context import TrainContext

__all__ = ["ForwardingSession"]


class ForwardingSession:
    """Passes reports on to the process that runs the trial, and waits until they are stored.

    Parameters
    ----------
    context : TrainContext
        Of the trial.
    """

    def __init__(self, context: TrainContext) -> None:
        self.context = context

    def report(self, metrics: dict[str, Any], checkpoint: Checkpoint | None = None) -> None:
        """Report for all ranks."""
        packed = None
        if checkpoint is not None:
            from mltoolkit.tune.execution._checkpoint_io import pack

            with checkpoint.as_directory() as folder:
                packed = pack(folder)
        own_mailbox.ask(("session", "report", metrics, packed))

    def get_checkpoint(self) -> Checkpoint | None:
        """What the trial goes on from is known to the process of the trial, which passes it as ``ckpt_path``."""
        return None

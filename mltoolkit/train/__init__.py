"""Training: configurations, checkpoints, results."""

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import CheckpointConfig, FailureConfig, RunConfig, SyncConfig
from mltoolkit.train._result import Result
from mltoolkit.train._session import get_checkpoint, get_context, report

__all__ = [
    "Checkpoint",
    "CheckpointConfig",
    "FailureConfig",
    "Result",
    "RunConfig",
    "SyncConfig",
    "get_checkpoint",
    "get_context",
    "report",
]

"""Training: trainers, configurations, checkpoints, results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import CheckpointConfig, CheckpointUploadMode, FailureConfig, RunConfig, SyncConfig
from mltoolkit.train._result import Result
from mltoolkit.train._scaling import ScalingConfig
from mltoolkit.train._session import get_checkpoint, get_context, get_dataset_shard, report
from mltoolkit.train.error import ControllerError, TrainingFailedError, WorkerGroupError

if TYPE_CHECKING:
    from mltoolkit.train._internal.datasets import DataConfig
    from mltoolkit.train.backend import Backend, BackendConfig
    from mltoolkit.train.context import TrainContext
    from mltoolkit.train.data_parallel_trainer import BaseTrainer, DataParallelTrainer
    from mltoolkit.train.user_callback import UserCallback

__all__ = [
    "TRAIN_DATASET_KEY",
    "Backend",
    "BackendConfig",
    "BaseTrainer",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointUploadMode",
    "ControllerError",
    "DataConfig",
    "DataParallelTrainer",
    "FailureConfig",
    "Result",
    "RunConfig",
    "ScalingConfig",
    "SyncConfig",
    "TrainContext",
    "TrainingFailedError",
    "UserCallback",
    "WorkerGroupError",
    "get_checkpoint",
    "get_context",
    "get_dataset_shard",
    "report",
]

TRAIN_DATASET_KEY = "train"

# What starts workers loads when it is asked for: a trial that only reports needs none of it.
_HOME = {
    "Backend": "backend",
    "BackendConfig": "backend",
    "BaseTrainer": "data_parallel_trainer",
    "DataConfig": "_internal.datasets",
    "DataParallelTrainer": "data_parallel_trainer",
    "TrainContext": "context",
    "UserCallback": "user_callback",
}
_SUBMODULES = frozenset({"collective", "lightgbm", "lightning", "sklearn", "tensorflow", "torch", "xgboost"})


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Trainers and their errors under the path that Ray has them at."""

from mltoolkit.train.data_parallel_trainer import BaseTrainer
from mltoolkit.train.error import TrainingFailedError

__all__ = ["BaseTrainer", "TrainingFailedError"]

"""Training with TensorFlow: workers that ``tf.distribute.MultiWorkerMirroredStrategy`` connects."""

from __future__ import annotations

from mltoolkit.train.tensorflow.config import TensorflowConfig
from mltoolkit.train.tensorflow.tensorflow_checkpoint import TensorflowCheckpoint
from mltoolkit.train.tensorflow.tensorflow_trainer import TensorflowTrainer
from mltoolkit.train.tensorflow.train_loop_utils import prepare_dataset_shard

__all__ = ["TensorflowCheckpoint", "TensorflowConfig", "TensorflowTrainer", "prepare_dataset_shard"]

"""The trainer for TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import RunConfig
from mltoolkit.train._internal.datasets import DataConfig
from mltoolkit.train._scaling import ScalingConfig
from mltoolkit.train.data_parallel_trainer import DataParallelTrainer
from mltoolkit.train.tensorflow.config import TensorflowConfig

__all__ = ["TensorflowTrainer"]


class TensorflowTrainer(DataParallelTrainer):
    """Runs a training function on workers that form a cluster of TensorFlow's.

    The function opens ``tf.distribute.MultiWorkerMirroredStrategy()`` and builds its model in ``strategy.scope()``:
    ``TF_CONFIG`` is set. Keras 3 cannot train on several workers, so ``tf.keras`` is Keras 2, of the package ``tf_keras``,
    unless ``TF_USE_LEGACY_KERAS`` says otherwise.

    Parameters
    ----------
    train_loop_per_worker : callable
        Takes `train_loop_config`, or nothing. Imports TensorFlow itself.
    train_loop_config : dict, optional
    tensorflow_config : TensorflowConfig, optional
    scaling_config : ScalingConfig, optional
    dataset_config : DataConfig, optional
    run_config : RunConfig, optional
    datasets : dict, optional
    metadata : dict, optional
    resume_from_checkpoint : Checkpoint, optional
        As for :class:`~mltoolkit.train.DataParallelTrainer`.
    """

    def __init__(
        self,
        train_loop_per_worker: Callable[..., Any],
        *,
        train_loop_config: Mapping[str, Any] | None = None,
        tensorflow_config: TensorflowConfig | None = None,
        scaling_config: ScalingConfig | None = None,
        dataset_config: DataConfig | None = None,
        run_config: RunConfig | None = None,
        datasets: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume_from_checkpoint: Checkpoint | None = None,
    ) -> None:
        if tensorflow_config is not None and not isinstance(tensorflow_config, TensorflowConfig):
            raise TypeError(f"`tensorflow_config` must be a TensorflowConfig, got {tensorflow_config!r}.")
        super().__init__(
            train_loop_per_worker,
            train_loop_config=train_loop_config,
            backend_config=tensorflow_config or TensorflowConfig(),
            scaling_config=scaling_config,
            run_config=run_config,
            datasets=datasets,
            dataset_config=dataset_config,
            metadata=metadata,
            resume_from_checkpoint=resume_from_checkpoint,
        )

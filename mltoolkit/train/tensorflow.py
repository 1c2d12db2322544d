"""Training with TensorFlow: what it would need."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["TensorflowTrainer"]


class TensorflowTrainer:
    """Ray's trainer for ``MultiWorkerMirroredStrategy``, which is not offered.

    Raises
    ------
    NotImplementedError
        Always. A training function can do it on :class:`~mltoolkit.train.DataParallelTrainer`: a backend's ``on_start`` sets
        ``TF_CONFIG`` on the workers, with the addresses of all and the rank of each, and the function opens
        ``tf.distribute.MultiWorkerMirroredStrategy``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            "TensorflowTrainer is not offered. Use DataParallelTrainer with a backend that sets TF_CONFIG on the workers "
            "(the guide to training shows it in 20 lines), or TorchTrainer; Keras 3 also runs on torch."
        )

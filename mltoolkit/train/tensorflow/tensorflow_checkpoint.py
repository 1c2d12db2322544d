"""Checkpoints that hold a model of Keras'."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._checkpoint import Checkpoint

__all__ = ["TensorflowCheckpoint"]

_MODEL_FILE = "model.keras"


class TensorflowCheckpoint(Checkpoint):
    """A checkpoint with a model of Keras'."""

    @classmethod
    def from_model(cls, model: Any) -> TensorflowCheckpoint:
        """Keep a model in a temporary folder, which goes with this object; reporting the checkpoint copies it.

        Parameters
        ----------
        model : tf.keras.Model

        Returns
        -------
        TensorflowCheckpoint
        """
        folder = tempfile.mkdtemp(prefix="checkpoint_keras_")
        model.save(os.path.join(folder, _MODEL_FILE))
        checkpoint = cls(folder)
        checkpoint._keep_while_used(folder)
        return checkpoint

    def get_model(self) -> Any:
        """Load the model.

        Returns
        -------
        tf.keras.Model

        Raises
        ------
        ValueError
            If the checkpoint holds none.
        """
        tf: Any = require("tensorflow", purpose="TensorflowCheckpoint", extra="tensorflow")
        with self.as_directory() as folder:
            file = os.path.join(folder, _MODEL_FILE)
            if not os.path.exists(file):
                raise ValueError(
                    f"{self!r} holds no {_MODEL_FILE}: it was not made by `TensorflowCheckpoint.from_model`."
                )
            return tf.keras.models.load_model(file)

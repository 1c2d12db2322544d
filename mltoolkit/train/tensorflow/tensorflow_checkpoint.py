"""Checkpoints that hold a model of Keras'."""

from __future__ import annotations

import os
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._internal.model_checkpoint import ModelCheckpoint

__all__ = ["TensorflowCheckpoint"]


class TensorflowCheckpoint(ModelCheckpoint):
    """A checkpoint with a model of Keras'."""

    MODEL_FILENAME = "model.keras"

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
        return cls._written(model.save)

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
            file = os.path.join(folder, self.MODEL_FILENAME)
            if not os.path.exists(file):
                raise ValueError(
                    f"{self!r} holds no {self.MODEL_FILENAME}: it was not made by `TensorflowCheckpoint.from_model`."
                )
            return tf.keras.models.load_model(file)

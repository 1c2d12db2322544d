"""Checkpoints that hold a model of torch's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._internal.model_checkpoint import ModelCheckpoint

__all__ = ["TorchCheckpoint"]

_WRAPPER = "module."


class TorchCheckpoint(ModelCheckpoint):
    """A checkpoint with the weights of a model, or with the model itself."""

    MODEL_FILENAME = "model.pt"

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> TorchCheckpoint:
        """Keep weights in a temporary folder, which goes with this object; reporting the checkpoint copies it.

        Parameters
        ----------
        state_dict : dict
            Of a model, or of one that DistributedDataParallel wraps.

        Returns
        -------
        TorchCheckpoint
        """
        is_wrapped = all(name.startswith(_WRAPPER) for name in state_dict)
        return cls._keep({name.removeprefix(_WRAPPER) if is_wrapped else name: v for name, v in state_dict.items()})

    @classmethod
    def from_model(cls, model: Any) -> TorchCheckpoint:
        """Keep a whole model, as a pickle; :meth:`from_state_dict` keeps what is safe to read.

        Parameters
        ----------
        model : torch.nn.Module

        Returns
        -------
        TorchCheckpoint
        """
        torch: Any = require("torch", purpose="TorchCheckpoint", extra="torch")
        is_wrapped = isinstance(model, torch.nn.parallel.DistributedDataParallel)
        return cls._keep(model.module if is_wrapped else model)

    @classmethod
    def _keep(cls, content: Any) -> TorchCheckpoint:
        torch: Any = require("torch", purpose="TorchCheckpoint", extra="torch")
        return cls._written(lambda file: torch.save(content, file))

    def get_model(self, model: Any = None) -> Any:
        """The model that was kept, or a given one with the weights that were.

        Weights are read without running code in the file. A whole model is a pickle, **which runs the code in it**: it is read
        only from a file that nobody but the current user may write.

        Parameters
        ----------
        model : torch.nn.Module, optional
            Gets the weights.

        Returns
        -------
        torch.nn.Module

        Raises
        ------
        ValueError
            If there is no such file, or it holds weights and no model is given.
        UntrustedFileError
            If it holds a model and another user may write it.
        """
        import pickle

        from mltoolkit.train._trust import check_trusted

        torch: Any = require("torch", purpose="TorchCheckpoint", extra="torch")
        with self.as_directory() as folder:
            file = os.path.join(folder, self.MODEL_FILENAME)
            if not os.path.exists(file):
                raise ValueError(f"{self!r} holds no {self.MODEL_FILENAME}: it was not made by TorchCheckpoint.")
            try:
                content = torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:  # a whole model
                with open(file, "rb") as opened:
                    check_trusted(file, opened)
                    whole = torch.load(opened, map_location="cpu", weights_only=False)
                if model is None:
                    return whole
                content = whole.state_dict()
        if model is None:
            raise ValueError(f"{self!r} holds weights. Give the model that they are of: `get_model(model)`.")
        model.load_state_dict(content)
        return model

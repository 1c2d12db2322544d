"""Checkpoints that hold a model of XGBoost."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._checkpoint import Checkpoint

__all__ = ["XGBoostCheckpoint"]


class XGBoostCheckpoint(Checkpoint):
    """A checkpoint that holds a model of XGBoost."""

    MODEL_FILENAME = "model.json"

    @classmethod
    def from_model(
        cls, booster: Any, *, preprocessor: None = None, path: str | os.PathLike[str] | None = None
    ) -> XGBoostCheckpoint:
        """Keep a model in a folder.

        Parameters
        ----------
        booster : xgboost.Booster
        preprocessor : None
            For Ray's signature; any other value raises.
        path : str or path, optional
            An existing folder; by default one for temporary files, which goes with the returned object.

        Returns
        -------
        XGBoostCheckpoint

        Raises
        ------
        NotADirectoryError
            If `path` is no folder.
        """
        if preprocessor is not None:
            raise NotImplementedError("`preprocessor` is not supported: keep it in a file of the checkpoint's folder.")
        if path is not None and not os.path.isdir(path):
            raise NotADirectoryError(f"`path` must be a folder that is there, got {os.fspath(path)!r}.")
        folder = tempfile.mkdtemp(prefix="checkpoint_xgboost_") if path is None else os.fspath(path)
        checkpoint = cls(folder)
        if path is None:
            checkpoint._keep_while_used(folder)
        booster.save_model(os.path.join(folder, cls.MODEL_FILENAME))
        return checkpoint

    def get_model(self) -> Any:
        """The model.

        Returns
        -------
        xgboost.Booster
        """
        xgboost = require("xgboost", purpose="XGBoostCheckpoint", extra="xgboost")
        with self.as_directory() as folder:
            return xgboost.Booster(model_file=os.path.join(folder, self.MODEL_FILENAME))

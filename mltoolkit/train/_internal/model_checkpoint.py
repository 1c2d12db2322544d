"""What checkpoints that hold one model in one file share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any, ClassVar, Self

from mltoolkit._optional import require
from mltoolkit.train._checkpoint import Checkpoint

__all__ = ["BoosterCheckpoint", "ModelCheckpoint"]


class ModelCheckpoint(Checkpoint):
    """A checkpoint that holds a model in one file.

    Attributes
    ----------
    MODEL_FILENAME : str
        Name of the file.
    """

    MODEL_FILENAME: ClassVar[str]

    @classmethod
    def _written(cls, write: Callable[[str], object], path: str | os.PathLike[str] | None = None) -> Self:
        """Have `write` make the model's file in a folder that is there, or in a temporary one that goes with the checkpoint."""
        if path is not None and not os.path.isdir(path):
            raise NotADirectoryError(f"`path` must be a folder that is there, got {os.fspath(path)!r}.")
        folder = tempfile.mkdtemp(prefix="checkpoint_") if path is None else os.fspath(path)
        checkpoint = cls(folder)
        if path is None:
            checkpoint._keep_while_used(folder)
        write(os.path.join(folder, cls.MODEL_FILENAME))
        return checkpoint


class BoosterCheckpoint(ModelCheckpoint):
    """A checkpoint that holds a ``Booster`` of XGBoost or LightGBM."""

    _library: ClassVar[str]

    @classmethod
    def from_model(cls, booster: Any, *, preprocessor: None = None, path: str | os.PathLike[str] | None = None) -> Self:
        """Keep a model in a folder.

        Parameters
        ----------
        booster : Booster
            Of the checkpoint's library.
        preprocessor : None
            For Ray's signature; any other value raises.
        path : str or path, optional
            An existing folder; by default one for temporary files, which goes with the returned object.

        Returns
        -------
        Checkpoint
            Of this class.

        Raises
        ------
        NotADirectoryError
            If `path` is no folder.
        """
        if preprocessor is not None:
            raise NotImplementedError("`preprocessor` is not supported: keep it in a file of the checkpoint's folder.")
        return cls._written(booster.save_model, path)

    def get_model(self) -> Any:
        """The model.

        Returns
        -------
        Booster
            Of the checkpoint's library.
        """
        library = require(self._library, purpose=type(self).__name__, extra=self._library)
        with self.as_directory() as folder:
            return library.Booster(model_file=os.path.join(folder, self.MODEL_FILENAME))

"""Reports of LightGBM's rounds from a training function or a trial."""

from __future__ import annotations

import os
from typing import Any

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._internal.boosting import check_model_file
from mltoolkit.train.lightgbm.config import current_network
from mltoolkit.tune.integration.lightgbm import TuneReportCheckpointCallback

__all__ = ["RayTrainReportCallback"]


class RayTrainReportCallback(TuneReportCheckpointCallback):
    """Reports evaluations after each round, and checkpoints of the model.

    In a training function all workers must have one: they report together, and rank 0 brings the checkpoint. LightGBM
    evaluates the rows of each worker by themselves; this callback makes one value of them, which callbacks that come after
    it see as well, so that ``lightgbm.early_stopping`` ends all workers in the same round.

    Parameters
    ----------
    metrics : str, list of str or dict of str to str, optional
        Which to report: names such as ``"train-binary_logloss"``, or new names and the names they stand for. Default: all.
    filename : str, default="model.txt"
        Name of the model's file in the checkpoint.
    frequency : int, default=0
        Rounds between checkpoints; 0 for none while it trains.
    checkpoint_at_end : bool, default=True
        Report a checkpoint with the last round.
    results_postprocessing_fn : callable, optional
        Turns the dict of metrics into the one that is reported.

    Notes
    -----
    In a training function, a round that turns out to be the last because of early stopping has been reported by then, so it
    brings no checkpoint: set `frequency` there.
    """

    #: Before all others, which should see what all workers have found.
    order = -1_000_000

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str = TuneReportCheckpointCallback.CHECKPOINT_NAME) -> Any:
        """Load the model of a checkpoint that this callback has reported.

        Parameters
        ----------
        checkpoint : Checkpoint
        filename : str, default="model.txt"
            As given to the callback.

        Returns
        -------
        lightgbm.Booster

        Raises
        ------
        FileNotFoundError
            If the checkpoint has no such file.
        """
        with checkpoint.as_directory() as folder:
            check_model_file(checkpoint, folder, filename)
        return super().get_model(checkpoint, filename)

    @property
    def filename(self) -> str:
        """Name of the model's file in the checkpoint."""
        return self._filename

    def save(self, model: Any, folder: str) -> None:
        """Write a model as the file that checkpoints have."""
        model.save_model(os.path.join(folder, self._filename), num_iteration=-1)

    def __call__(self, env: Any) -> None:
        """Report a round."""
        network = current_network()
        if network is not None:
            network.reduce(env)
        super().__call__(env)

"""Reports of XGBoost's rounds from a training function or a trial."""

from __future__ import annotations

import os
from typing import Any

from mltoolkit._boosting.session import current_session as actor_session
from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._internal.boosting import check_model_file
from mltoolkit.train._session import get_context
from mltoolkit.tune.integration.xgboost import TuneReportCheckpointCallback

__all__ = ["RayTrainReportCallback"]


class RayTrainReportCallback(TuneReportCheckpointCallback):
    """Reports evaluations after each round, and checkpoints of the model.

    In a training function all workers must have one: they report together, and rank 0 brings the checkpoint.

    Parameters
    ----------
    metrics : str, list of str or dict of str to str, optional
        Which to report: names such as ``"train-logloss"``, or new names and the names they stand for. Default: all.
    filename : str, default="model.ubj"
        Name of the model's file in the checkpoint.
    frequency : int, default=0
        Rounds between checkpoints; 0 for none while it trains.
    checkpoint_at_end : bool, default=True
        Report a checkpoint when training is over.
    results_postprocessing_fn : callable, optional
        Turns the dict of metrics into the one that is reported.
    """

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str = TuneReportCheckpointCallback.CHECKPOINT_NAME) -> Any:
        """Load the model of a checkpoint that this callback has reported.

        Parameters
        ----------
        checkpoint : Checkpoint
        filename : str, default="model.ubj"
            As given to the callback.

        Returns
        -------
        xgboost.Booster

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
        model.save_model(os.path.join(folder, self._filename))

    def _send(self, metrics: dict[str, Any], model: Any) -> None:
        others = actor_session() is None and (getattr(get_context(), "world_rank", 0) or 0) > 0
        super()._send(metrics, None if others else model)

"""LightGBM on actors inside a trial of Tune, under the names of ``lightgbm_ray.tune``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mltoolkit._optional import require
from mltoolkit.tune.integration.lightgbm import TuneReportCallback, TuneReportCheckpointCallback

__all__ = ["TuneReportCallback", "TuneReportCheckpointCallback", "load_model", "with_report"]


def load_model(model_path: str | os.PathLike[str]) -> Any:
    """Load a model from a file, such as the one in a checkpoint.

    Parameters
    ----------
    model_path : path
        The file.

    Returns
    -------
    lightgbm.Booster
    """
    lightgbm = require("lightgbm", purpose="load_model()", extra="lightgbm")
    return lightgbm.Booster(model_file=os.fspath(model_path))


def with_report(callbacks: Sequence[Any]) -> list[Any]:
    """Return the callbacks, and one that reports to the trial if there is none."""
    if any(isinstance(callback, TuneReportCheckpointCallback) for callback in callbacks):
        return list(callbacks)
    return [*callbacks, TuneReportCallback()]

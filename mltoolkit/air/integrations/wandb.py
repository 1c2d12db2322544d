"""Weights & Biases, in the driver and in trainables."""

from __future__ import annotations

import os
from typing import Any

from mltoolkit import _optional
from mltoolkit.air.integrations._session import running
from mltoolkit.tune.logger._values import jsonable
from mltoolkit.tune.logger.wandb import WandbLoggerCallback, read_api_key

__all__ = ["WandbLoggerCallback", "setup_wandb"]


def setup_wandb(
    config: dict[str, Any] | None = None,
    api_key: str | None = None,
    api_key_file: str | None = None,
    rank_zero_only: bool = True,
    **kwargs: Any,
) -> Any:
    """Begin a Weights & Biases run in a trainable.

    The run has the id and the name of the trial, and the experiment's name as its group.

    Parameters
    ----------
    config : dict, default=None
        Logged as the run's configuration.
    api_key : str, default=None
        By default that of ``WANDB_API_KEY`` or ``wandb login``.
    api_key_file : str, default=None
        File with the API key on its first line.
    rank_zero_only : bool, default=True
        Whether only the first worker of a distributed training logs.
    **kwargs
        Given to ``wandb.init``; they go before the trial's names.

    Returns
    -------
    wandb.Run
        In workers that do not log, a disabled one.

    Raises
    ------
    ImportError
        If wandb is not installed.
    ValueError
        If the key was given twice.
    """
    wandb: Any = _optional.require("wandb", purpose="setup_wandb", extra="wandb")
    here = running()
    if rank_zero_only and here.rank != 0:
        return wandb.init(mode="disabled")
    key = read_api_key(api_key, api_key_file)
    if key:
        os.environ["WANDB_API_KEY"] = key
    options: dict[str, Any] = {
        "id": kwargs.pop("trial_id", None) or here.trial_id,
        "name": kwargs.pop("trial_name", None) or here.trial_name,
        "group": here.experiment_name or os.environ.get("WANDB_GROUP_NAME"),
        "project": os.environ.get("WANDB_PROJECT_NAME"),
        "resume": "allow",
        "reinit": "finish_previous",  # the run of the trial that this process ran before
        "allow_val_change": True,
        "config": jsonable(config or {}),
    }
    return wandb.init(**{**options, **kwargs})

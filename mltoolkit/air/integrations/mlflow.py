"""MLflow, in the driver and in trainables."""

from __future__ import annotations

import os
from typing import Any

from mltoolkit import _optional
from mltoolkit.air.integrations._session import NoopModule, running
from mltoolkit.tune.logger._values import flatten
from mltoolkit.tune.logger.mlflow import MLflowLoggerCallback

__all__ = ["MLflowLoggerCallback", "setup_mlflow"]

# The run that this process began, and for which trial: processes are used for one trial after the other.
_begun: tuple[str, str | None] | None = None


def setup_mlflow(
    config: dict[str, Any] | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    experiment_id: str | None = None,
    experiment_name: str | None = None,
    tracking_token: str | None = None,
    artifact_location: str | None = None,
    run_name: str | None = None,
    create_experiment_if_not_exists: bool = False,
    tags: dict[str, Any] | None = None,
    rank_zero_only: bool = True,
) -> Any:
    """Begin an MLflow run in a trainable, so that it can call MLflow itself.

    Parameters
    ----------
    config : dict, default=None
        Logged as the run's parameters.
    tracking_uri : str, default=None
        Where runs are stored; on several nodes it must be a server.
    registry_uri : str, default=None
        Where models are registered.
    experiment_id : str, default=None
        Goes before the name; by default that of ``MLFLOW_EXPERIMENT_ID``, or the trial's id.
    experiment_name : str, default=None
        By default that of ``MLFLOW_EXPERIMENT_NAME``, or the trial's name.
    tracking_token : str, default=None
        Token to log in to the server, set as ``MLFLOW_TRACKING_TOKEN``.
    artifact_location : str, default=None
        Where an experiment that is made keeps its artifacts.
    run_name : str, default=None
        By default the trial's name, or the experiment's.
    create_experiment_if_not_exists : bool, default=False
        Whether to make the experiment if there is none.
    tags : dict, default=None
        Tags of the run.
    rank_zero_only : bool, default=True
        Whether only the first worker of a distributed training logs.

    Returns
    -------
    module
        ``mlflow`` with an active run; in workers that do not log, an object whose methods do nothing.

    Raises
    ------
    ImportError
        If mlflow is not installed.
    ValueError
        If there is no such experiment.
    """
    global _begun
    mlflow: Any = _optional.require("mlflow", purpose="setup_mlflow", extra="mlflow")
    here = running()
    if rank_zero_only and here.rank != 0:
        return NoopModule()
    if tracking_token:
        os.environ["MLFLOW_TRACKING_TOKEN"] = tracking_token
    if tracking_uri is not None:
        mlflow.set_tracking_uri(tracking_uri)
    if registry_uri is not None:
        mlflow.set_registry_uri(registry_uri)

    active = mlflow.active_run()
    if active is not None and _begun is not None and _begun[0] == active.info.run_id:
        if _begun[1] == here.trial_id and here.trial_id is not None:
            return mlflow  # the same trial called twice
        mlflow.end_run()
        active = None
    if active is None:
        identifier = _experiment(
            mlflow,
            experiment_id or os.environ.get("MLFLOW_EXPERIMENT_ID") or here.trial_id,
            experiment_name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or here.trial_name,
            artifact_location,
            create_experiment_if_not_exists,
        )
        name = run_name or here.trial_name or experiment_name
        active = mlflow.start_run(experiment_id=identifier, run_name=name, tags=tags)
        _begun = active.info.run_id, here.trial_id
    mlflow.log_params({name: str(value) for name, value in flatten(config or {}).items()})
    return mlflow


def _experiment(mlflow: Any, identifier: str | None, name: str | None, location: str | None, make: bool) -> str:
    if identifier is not None:
        exceptions = _optional.require("mlflow.exceptions", purpose="setup_mlflow", extra="mlflow")
        try:
            return str(mlflow.get_experiment(experiment_id=identifier).experiment_id)
        except exceptions.MlflowException:  # a trial's id seldom is an experiment's as well
            pass
    experiment = mlflow.get_experiment_by_name(name) if name else None
    if experiment is not None:
        return str(experiment.experiment_id)
    if name and make:
        return str(mlflow.create_experiment(name=name, artifact_location=location))
    raise ValueError(
        f"There is no MLflow experiment with the id {identifier!r} or the name {name!r}. Give `experiment_name` of one "
        "that exists, or `create_experiment_if_not_exists=True` as well."
    )

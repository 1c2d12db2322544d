"""Results in MLflow."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any

from mltoolkit import _optional
from mltoolkit.tune.logger._values import flatten, step_of
from mltoolkit.tune.logger.logger import LoggerCallback

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["MLflowLoggerCallback"]

_BATCH = 100  # parameters in one request, which MLflow limits


class MLflowLoggerCallback(LoggerCallback):
    """Log each trial as a run of an MLflow experiment.

    Runs are written by the driver, with a client of its own: neither MLflow's active run nor its tracking URI are
    changed. In a trainable, use :func:`mltoolkit.air.integrations.mlflow.setup_mlflow`.

    Parameters
    ----------
    tracking_uri : str, default=None
        Where runs are stored; by default where MLflow's own settings say.
    registry_uri : str, default=None
        Where models are registered.
    experiment_name : str, default=None
        Made if there is none of that name; by default that of ``MLFLOW_EXPERIMENT_NAME``.
    tags : dict of str to str, default=None
        Tags of each run; the trial's name and id are added.
    tracking_token : str, default=None
        Token to log in to the server, set as ``MLFLOW_TRACKING_TOKEN``.
    save_artifact : bool, default=False
        Whether to store the trial's folder with the run when it ends.
    log_params_on_trial_end : bool, default=False
        Whether to log the configuration when the trial ends rather than when it starts. MLflow does not change
        parameters: of those that a scheduler mutates, the first value stays, or with this option the last one.

    Raises
    ------
    ImportError
        If mlflow is not installed.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        registry_uri: str | None = None,
        experiment_name: str | None = None,
        tags: dict[str, Any] | None = None,
        tracking_token: str | None = None,
        save_artifact: bool = False,
        log_params_on_trial_end: bool = False,
    ) -> None:
        _optional.require("mlflow", purpose="MLflowLoggerCallback", extra="mlflow")
        self.tracking_uri = tracking_uri
        self.registry_uri = registry_uri
        self.experiment_name = experiment_name
        self.tags = dict(tags or {})
        self.tracking_token = tracking_token
        self.should_save_artifact = save_artifact
        self.log_params_on_trial_end = log_params_on_trial_end
        self._client: Any = None
        self._experiment_id: str | None = None
        self._runs: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}  # holds connections; made anew by `setup`

    def setup(self, *args: Any, **info: Any) -> None:
        """Connect, and find or make the experiment.

        Raises
        ------
        ValueError
            If no experiment is named.
        """
        if self.tracking_token:
            os.environ["MLFLOW_TRACKING_TOKEN"] = self.tracking_token
        tracking = _optional.require("mlflow.tracking", purpose="MLflowLoggerCallback", extra="mlflow")
        self._client = tracking.MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.registry_uri)
        name = self.experiment_name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name:
            raise ValueError(
                "MLflowLoggerCallback does not know which experiment to log to: "
                "give `experiment_name` or set MLFLOW_EXPERIMENT_NAME."
            )
        experiment = self._client.get_experiment_by_name(name)
        self._experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)

    def log_trial_start(self, trial: Trial) -> None:
        """Begin a run, or go on with the one that the trial has."""
        if trial.trial_id in self._runs:
            return
        tags = {**self.tags, "trial_name": str(trial), "trial_id": trial.trial_id}
        run = self._client.create_run(experiment_id=self._experiment_id, run_name=str(trial), tags=tags)
        self._runs[trial.trial_id] = run.info.run_id
        if not self.log_params_on_trial_end:
            self._log_params(trial)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log the numbers of a result in one request."""
        if trial.trial_id not in self._runs:
            self.log_trial_start(trial)
        entities = _optional.require("mlflow.entities", purpose="MLflowLoggerCallback", extra="mlflow")
        step, now_ms = step_of(result), int(time.time() * 1000)
        flat = flatten({name: value for name, value in result.items() if name != "config"})
        metrics = [
            entities.Metric(name, float(value), now_ms, step)
            for name, value in flat.items()
            if isinstance(value, (int, float)) and (isinstance(value, int) or not math.isnan(value))
        ]
        self._client.log_batch(run_id=self._runs[trial.trial_id], metrics=metrics)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the run."""
        run_id = self._runs.pop(trial.trial_id, None)
        if run_id is None:
            return
        if self.log_params_on_trial_end:
            self._log_params(trial, run_id)
        if self.should_save_artifact and os.path.isdir(trial.path):
            self._client.log_artifacts(run_id=run_id, local_dir=trial.path)
        self._client.set_terminated(run_id=run_id, status="FAILED" if failed else "FINISHED")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """End the runs of trials that never ended."""
        for run_id in self._runs.values():
            self._client.set_terminated(run_id=run_id, status="KILLED")
        self._runs.clear()

    def _log_params(self, trial: Trial, run_id: str | None = None) -> None:
        entities = _optional.require("mlflow.entities", purpose="MLflowLoggerCallback", extra="mlflow")
        params = [entities.Param(name, str(value)) for name, value in flatten(trial.config).items()]
        for first in range(0, len(params), _BATCH):
            batch = params[first : first + _BATCH]
            self._client.log_batch(run_id=run_id or self._runs[trial.trial_id], params=batch)

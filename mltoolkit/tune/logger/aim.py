"""Results in Aim."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from mltoolkit import _optional
from mltoolkit.tune.logger._values import flatten, step_of
from mltoolkit.tune.logger.logger import LoggerCallback

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["AimLoggerCallback"]

_NOT_LOGGED = frozenset({"config", "pid", "timestamp", "time_total_s", "training_iteration", "context", "epoch"})


class AimLoggerCallback(LoggerCallback):
    """Log each trial as an Aim run.

    Metrics are tracked as ``ray/tune/<metric>``, nested keys joined with ``/``. The keys ``context`` and ``epoch`` of
    a result become Aim's own.

    Parameters
    ----------
    repo : str or aim.Repo, default=None
        Where runs are stored; by default the experiment's folder.
    experiment_name : str, default=None
        By default the name of the experiment's folder.
    metrics : list of str, default=None
        Metrics to track; by default all that are numbers.
    **aim_run_kwargs
        Given to ``aim.Run``.

    Raises
    ------
    ImportError
        If aim is not installed.
    ValueError
        If ``metrics`` is empty.
    """

    VALID_HPARAMS = (str, bool, int, float, list, type(None))

    def __init__(
        self,
        repo: Any = None,
        experiment_name: str | None = None,
        metrics: list[str] | None = None,
        **aim_run_kwargs: Any,
    ) -> None:
        _optional.require("aim", purpose="AimLoggerCallback", extra="aim")
        if metrics is not None and not metrics:
            raise ValueError("`metrics` must name one metric at least, or be None to track all; got an empty list.")
        self._repo = repo
        self._experiment_name = experiment_name
        self._metrics = metrics
        self._aim_run_kwargs = aim_run_kwargs
        self._runs: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_runs": {}}

    def log_trial_start(self, trial: Trial) -> None:
        """Begin a run."""
        aim: Any = _optional.require("aim", purpose="AimLoggerCallback", extra="aim")
        self.log_trial_end(trial)
        run = aim.Run(
            repo=self._repo or str(trial.experiment_path),
            experiment=self._experiment_name or os.path.basename(trial.experiment_path),
            **self._aim_run_kwargs,
        )
        run["trial_id"] = trial.trial_id
        run["trial_log_dir"] = trial.path
        if trial.location:
            run["trial_ip"] = trial.location.rpartition(":")[0]
        if trial.evaluated_params:
            params = flatten(trial.evaluated_params)
            run["hparams"] = {
                name: value if isinstance(value, self.VALID_HPARAMS) else str(value) for name, value in params.items()
            }
        self._runs[trial.trial_id] = run

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Track the metrics of a result."""
        if trial.trial_id not in self._runs:
            self.log_trial_start(trial)
        run, step = self._runs[trial.trial_id], step_of(result)
        epoch, context = result.get("epoch"), result.get("context")
        for name, value in flatten({key: result[key] for key in result if key not in _NOT_LOGGED}).items():
            if self._metrics is not None and name not in self._metrics:
                continue
            if isinstance(value, (int, float)) and math.isfinite(value):
                run.track(value, name=f"ray/tune/{name}", step=step, epoch=epoch, context=context)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the run."""
        run = self._runs.pop(trial.trial_id, None)
        if run is not None:
            run.close()

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """End the runs of trials that never ended."""
        for run in self._runs.values():
            run.close()
        self._runs.clear()

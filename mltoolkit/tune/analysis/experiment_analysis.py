"""The trials of an experiment, and which of them is best."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mltoolkit.train import Checkpoint
from mltoolkit.train._session import DEFAULT_METRIC
from mltoolkit.tune.analysis._source import ExperimentSource, experiment_folder
from mltoolkit.tune.analysis._tables import TrialTables, config_columns, flat_result, make_table, trial_row, trial_table
from mltoolkit.tune.error import MissingMetricError
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.search._nested import lookup

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ExperimentAnalysis"]

logger = logging.getLogger(__name__)

_SCOPES = ("all", "last", "avg", "last-5-avg", "last-10-avg")


class ExperimentAnalysis:
    """What came out of an experiment.

    Reading an experiment from its folder executes nothing that lies there: configurations hold what JSON can express,
    and errors are texts. Folders that Ray wrote can be read as well.

    Parameters
    ----------
    experiment_checkpoint_path : str or path, optional
        Folder of the experiment, or the state file in it. None with `trials` for an experiment that was kept in
        memory, of which there are the last results alone.
    trials : list of Trial, optional
        Read from the folder if not given.
    default_metric : str, optional
        What the properties compare trials by, ``"a/b"`` for a nested metric.
    default_mode : {'min', 'max'}, optional
        Whether good is low or high.
    storage_filesystem, remote_storage_path : None
        For Ray's signature; any other value raises.

    Attributes
    ----------
    trials : list of Trial
        In the order in which they were created.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no experiment in it.
    """

    def __init__(
        self,
        experiment_checkpoint_path: str | os.PathLike[str] | None = None,
        *,
        trials: list[Trial] | None = None,
        default_metric: str | None = None,
        default_mode: str | None = None,
        storage_filesystem: None = None,
        remote_storage_path: None = None,
    ) -> None:
        for name, value in (("storage_filesystem", storage_filesystem), ("remote_storage_path", remote_storage_path)):
            if value is not None:
                raise NotImplementedError(f"`{name}={value!r}` is not supported. Copy the experiment to a local disk.")
        _check_mode(default_mode, "default_mode")
        if experiment_checkpoint_path is None and trials is None:
            raise ValueError("`ExperimentAnalysis` needs the folder of an experiment, or its `trials`; got neither.")
        folder = None if experiment_checkpoint_path is None else experiment_folder(experiment_checkpoint_path)
        self._source = ExperimentSource(folder, trials)
        self.default_metric = DEFAULT_METRIC if default_metric is None and default_mode else default_metric
        self.default_mode = default_mode

    @property
    def trials(self) -> list[Trial]:
        """The trials, in the order in which they were created."""
        return self._source.trials

    @property
    def experiment_path(self) -> str | None:
        """Folder of the experiment; None if it was kept in memory."""
        return None if self._source.folder is None else str(self._source.folder)

    # ---- the best trial by the experiment's own metric

    @property
    def best_trial(self) -> Trial:
        """The trial with the best last result."""
        self._need_defaults("best_trial", "get_best_trial(metric, mode)")
        trial = self.get_best_trial()
        if trial is None:
            raise ValueError(
                f"No trial is the best: none reported a finite number as {self.default_metric!r}. "
                f"Reported were: {', '.join(self._metric_names()) or 'no metrics at all'}."
            )
        return trial

    @property
    def best_config(self) -> dict[str, Any]:
        """The configuration of the best trial."""
        self._need_defaults("best_config", "get_best_config(metric, mode)")
        return self.best_trial.config

    @property
    def best_result(self) -> dict[str, Any]:
        """The last result of the best trial."""
        self._need_defaults("best_result", "get_best_trial(metric, mode).last_result")
        return self.best_trial.last_result

    @property
    def best_logdir(self) -> str:
        """The folder of the best trial."""
        self._need_defaults("best_logdir", "get_best_logdir(metric, mode)")
        return self.best_trial.path

    @property
    def best_checkpoint(self) -> Checkpoint | None:
        """The checkpoint of the best trial that was reported with the best value; None if it has none."""
        self._need_defaults("best_checkpoint", "get_best_checkpoint(trial, metric, mode)")
        return self.get_best_checkpoint(self.best_trial)

    @property
    def best_dataframe(self) -> pd.DataFrame:
        """All results of the best trial, one row each."""
        self._need_defaults("best_dataframe", "trial_dataframes[get_best_trial(metric, mode).trial_id]")
        return self._trial_dataframe(self.best_trial)

    @property
    def best_result_df(self) -> pd.DataFrame:
        """The last result of the best trial as one row, named by the trial's id."""
        self._need_defaults("best_result_df", "get_best_trial(metric, mode).last_result")
        return make_table([flat_result(self.best_result)], index="trial_id")

    # ---- all trials

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The last result of each trial, by its id."""
        return {trial.trial_id: trial.last_result for trial in self.trials}

    @property
    def results_df(self) -> pd.DataFrame:
        """The last result of each trial that reported one, a row named by the trial's id."""
        return make_table((flat_result(trial.last_result) for trial in self.trials if trial.last_result), "trial_id")

    @property
    def trial_dataframes(self) -> Mapping[str, pd.DataFrame]:
        """All results of each trial, by its id; empty where a trial reported none.

        Tables are made as they are looked at, and are the same ones as long as the same object is used.
        """
        return TrialTables(self.trials, self._trial_dataframe)

    def dataframe(self, metric: str | None = None, mode: str | None = None) -> pd.DataFrame:
        """One result of each trial that reported any, with the configuration in columns such as ``"config/lr"``.

        Values that the search space drew within a list have columns of their own, such as
        ``"config/model/layers/0"``. The column ``"logdir"`` names the trial's folder.

        Parameters
        ----------
        metric : str, optional
            ``"a/b"`` for a nested one.
        mode : {'min', 'max'}, optional
            With both, the result in which the metric is lowest or highest of all that the trial reported; else its
            last one.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingMetricError
            If results are to be chosen by a metric that no trial reported; those that are there get named.
        ValueError
            If `mode` is given without `metric`, or the results before the last were not kept (in memory) and one of
            them is needed.
        """
        _check_mode(mode)
        if mode and not metric:
            raise ValueError(f"`dataframe(mode={mode!r})` needs a `metric` as well.")
        if mode and metric:
            self._check_reported(metric)
            if not self._source.is_complete:
                self._check_last_is_best(metric, mode)
        results = self._source.results()
        is_stored = self._source.folder is not None
        rows = []
        for trial in self.trials:
            row = trial_row(trial, results.get(trial.trial_id, []), metric, mode)
            if row is not None:
                rows.append(row | {"logdir": trial.path if is_stored else None})
        return make_table(rows)

    def get_all_configs(self, prefix: bool = False) -> dict[str, dict[str, Any]]:
        """The configuration of each trial, by its id.

        Parameters
        ----------
        prefix : bool, default=False
            Whether to give them flat, under names such as ``"config/lr"``.

        Returns
        -------
        dict of str to dict
        """
        if not prefix:
            return {trial.trial_id: trial.config for trial in self.trials}
        return {trial.trial_id: config_columns(trial.config, trial.evaluated_params) for trial in self.trials}

    # ---- choosing

    def get_best_trial(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> Trial | None:
        """The trial with the best value of a metric; the only one if there is but one.

        Parameters
        ----------
        metric : str, optional
            ``"a/b"`` for a nested one; the experiment's own if not given.
        mode : {'min', 'max'}, optional
            Whether good is low or high; the experiment's own if not given.
        scope : {'last', 'all', 'avg', 'last-5-avg', 'last-10-avg'}, default='last'
            What a trial is judged by: its last result, its best one, or the mean of all, the last five or ten.
        filter_nan_and_inf : bool, default=True
            Whether to pass over trials whose value is not finite.

        Returns
        -------
        Trial or None
            None, and a line in the log, if no trial has such a value.
        """
        if scope not in _SCOPES:
            raise ValueError(f"`scope` must be one of {', '.join(map(repr, _SCOPES))}, got {scope!r}.")
        if len(self.trials) == 1:
            return self.trials[0]
        metric, mode = self._metric_or_default(metric), self._mode_or_default(mode)
        best, best_value = None, math.nan
        for trial in self.trials:
            value = trial.metric(metric, mode if scope == "all" else scope)
            if value is None or (filter_nan_and_inf and not math.isfinite(value)):
                continue
            if best is None or (value > best_value if mode == "max" else value < best_value):
                best, best_value = trial, value
        if best is None:
            names = ", ".join(self._metric_names()) or "no metrics at all"
            logger.warning("No trial reported a finite number as %r. Reported were: %s.", metric, names)
        return best

    def get_best_config(
        self, metric: str | None = None, mode: str | None = None, scope: str = "last"
    ) -> dict[str, Any] | None:
        """The configuration of the best trial, see :meth:`get_best_trial`; None if no trial is the best."""
        trial = self.get_best_trial(metric, mode, scope)
        return trial.config if trial else None

    def get_best_logdir(self, metric: str | None = None, mode: str | None = None, scope: str = "last") -> str | None:
        """The folder of the best trial, see :meth:`get_best_trial`; None if no trial is the best."""
        trial = self.get_best_trial(metric, mode, scope)
        return trial.path if trial else None

    # ---- checkpoints

    def get_best_checkpoint(
        self, trial: Trial | str, metric: str | None = None, mode: str | None = None
    ) -> Checkpoint | None:
        """The kept checkpoint of a trial that was reported with the best value of a metric.

        Parameters
        ----------
        trial : Trial or str
            A trial, its id or its folder.
        metric : str, optional
            The experiment's own if not given, or ``"training_iteration"`` if it has none.
        mode : {'min', 'max'}, optional
            The experiment's own if not given.

        Returns
        -------
        Checkpoint or None
            None, and a line in the log, if the trial has no checkpoint with a number for that metric.
        """
        mode = self._mode_or_default(mode)
        scored = [pair for pair in self._scored_checkpoints(trial, metric) if isinstance(pair[1], (int, float))]
        scored = [pair for pair in scored if not math.isnan(pair[1])]
        if not scored:
            name = metric or self.default_metric or "training_iteration"
            logger.warning("Trial %s has no checkpoint that was reported with a number for %r.", trial, name)
            return None
        # Of equal ones the first, as of trials.
        return (max if mode == "max" else min)(scored, key=lambda pair: pair[1])[0]

    def get_last_checkpoint(
        self, trial: Trial | str | None = None, metric: str = "training_iteration", mode: str = "max"
    ) -> Checkpoint | None:
        """The latest kept checkpoint of a trial.

        Parameters
        ----------
        trial : Trial or str, optional
            The best one by `metric` and `mode` if not given.
        metric : str, default='training_iteration'
        mode : {'min', 'max'}, default='max'

        Returns
        -------
        Checkpoint or None
        """
        chosen = self.get_best_trial(metric, mode) if trial is None else self._trial(trial)
        return chosen.checkpoint if chosen else None

    def get_trial_checkpoints_paths(self, trial: Trial | str, metric: str | None = None) -> list[tuple[str, Any]]:
        """Folder of each kept checkpoint of a trial, with the value of a metric that was reported with it.

        Parameters
        ----------
        trial : Trial or str
            A trial, its id or its folder.
        metric : str, optional
            The experiment's own if not given, or ``"training_iteration"`` if it has none.

        Returns
        -------
        list of (str, value)
            The value is None where the metric was not reported.
        """
        return [(checkpoint.path, value) for checkpoint, value in self._scored_checkpoints(trial, metric)]

    def _scored_checkpoints(self, trial: Trial | str, metric: str | None) -> list[tuple[Checkpoint, Any]]:
        metric = metric or self.default_metric or "training_iteration"
        return [(checkpoint, lookup(metrics, metric)) for checkpoint, metrics in self._trial(trial).checkpoints]

    # ---- how the run went

    def stats(self) -> dict[str, Any]:
        """When the experiment began, and when something last happened in it, in seconds since 1970.

        Returns
        -------
        dict
            ``start_time`` and ``timestamp``; None where no trial started.
        """
        starts = [trial.start_time for trial in self.trials if trial.start_time is not None]
        ends = [end for trial in self.trials if (end := trial.end_time or trial.last_result.get("timestamp"))]
        return {"start_time": min(starts, default=None), "timestamp": max(ends, default=None)}

    def runner_data(self) -> dict[str, Any]:
        """What is known of the run as a whole, under the names that Ray's controller gives it.

        Returns
        -------
        dict
            ``_metric``, ``_start_time``, ``_total_time`` (of all trials, in seconds), ``_has_errored``.
        """
        return {
            "_metric": self.default_metric,
            "_start_time": self.stats()["start_time"],
            "_total_time": sum(trial.last_result.get("time_total_s", 0.0) for trial in self.trials),
            "_has_errored": any(trial.status == Trial.ERROR for trial in self.trials),
        }

    # ---- helpers

    def _trial_dataframe(self, trial: Trial) -> pd.DataFrame:
        return trial_table(trial, self._source.results().get(trial.trial_id, []))

    def _dataframe_reader(self, trial: Trial) -> DataframeReader:
        return DataframeReader(self, trial)

    def _trial(self, trial: Trial | str) -> Trial:
        if isinstance(trial, Trial):
            return trial
        for known in self.trials:
            if trial in (known.trial_id, known.path, str(known)):
                return known
        raise ValueError(f"There is no trial {trial!r}. Give one of `trials`, its id or its folder.")

    def _need_defaults(self, name: str, instead: str) -> None:
        if not self.default_metric or not self.default_mode:
            raise ValueError(
                f"`{name}` needs to know what is best: the experiment was run without `metric` and `mode`. "
                f"Give them to TuneConfig or `tune.run`, or use `{instead}`."
            )

    def _metric_or_default(self, metric: str | None) -> str:
        if not metric and not self.default_metric:
            raise ValueError("No `metric` was given, and the experiment was run without one. Give its name.")
        return metric or self.default_metric or ""

    def _mode_or_default(self, mode: str | None) -> str:
        _check_mode(mode)
        if not mode and not self.default_mode:
            raise ValueError("No `mode` was given, and the experiment was run without one. Give 'min' or 'max'.")
        return mode or self.default_mode or ""

    def _metric_names(self) -> list[str]:
        return sorted({name for trial in self.trials for name in trial.metric_analysis})

    def _check_reported(self, metric: str) -> None:
        names = self._metric_names()
        if names and metric not in names:
            raise MissingMetricError(f"No trial reported a number as {metric!r}. Reported were: {', '.join(names)}.")

    def _check_last_is_best(self, metric: str, mode: str) -> None:
        for trial in self.trials:
            analysis = trial.metric_analysis.get(metric)
            if analysis is not None and analysis.count and analysis.over(mode) != analysis.last:
                raise ValueError(
                    f"`dataframe({metric!r}, {mode!r})` needs all results, but the experiment was kept in memory, "
                    f"with last results alone: the best one of trial {trial} came before. Give a `storage_path`."
                )

    def __repr__(self) -> str:
        return f"ExperimentAnalysis({len(self.trials)} trials, path={self.experiment_path!r})"


class DataframeReader:
    """Reads all results of a trial when they are asked for; pickled, it is the trial's alone."""

    def __init__(self, analysis: ExperimentAnalysis, trial: Trial) -> None:
        self._analysis = analysis
        self._trial = trial

    def __call__(self) -> pd.DataFrame:
        """The results, one row each."""
        return self._analysis._trial_dataframe(self._trial)

    def __reduce__(self) -> Any:
        results = self._analysis._source.results().get(self._trial.trial_id, [])
        return (partial, (trial_table, self._trial, results))


def _check_mode(mode: str | None, name: str = "mode") -> None:
    if mode not in (None, "min", "max"):
        raise ValueError(f"`{name}` must be 'min' or 'max', got {mode!r}.")

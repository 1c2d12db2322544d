"""The results of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

from mltoolkit.train import Result
from mltoolkit.train._checkpoint import local_filesystem
from mltoolkit.tune.analysis.experiment_analysis import ExperimentAnalysis
from mltoolkit.tune.experiment.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ResultGrid"]


class ResultGrid:
    """What `Tuner.fit` gives: a sequence of results, one for each trial, in the order of their creation.

    Parameters
    ----------
    experiment_analysis : ExperimentAnalysis
    """

    def __init__(self, experiment_analysis: ExperimentAnalysis) -> None:
        self._experiment_analysis = experiment_analysis
        self._results = [self._trial_to_result(trial) for trial in experiment_analysis.trials]

    @property
    def experiment_path(self) -> str | None:
        """Folder of the experiment; None if it was kept in memory."""
        return self._experiment_analysis.experiment_path

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem that `experiment_path` is on."""
        return local_filesystem()

    @property
    def errors(self) -> list[BaseException]:
        """The errors of the trials that failed."""
        return [result.error for result in self._results if result.error is not None]

    @property
    def num_errors(self) -> int:
        """How many trials failed."""
        return sum(trial.status == Trial.ERROR for trial in self._experiment_analysis.trials)

    @property
    def num_terminated(self) -> int:
        """How many trials ended without an error."""
        return sum(trial.status == Trial.TERMINATED for trial in self._experiment_analysis.trials)

    def get_best_result(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> Result:
        """The result of the best trial; the only one if there is but one.

        Parameters
        ----------
        metric : str, optional
            ``"a/b"`` for a nested one; that of the TuneConfig if not given.
        mode : {'min', 'max'}, optional
            Whether good is low or high; that of the TuneConfig if not given.
        scope : {'last', 'all', 'avg', 'last-5-avg', 'last-10-avg'}, default='last'
            What a trial is judged by: its last result, its best one, or the mean of all, the last five or ten.
        filter_nan_and_inf : bool, default=True
            Whether to pass over trials whose value is not finite.

        Returns
        -------
        Result

        Raises
        ------
        ValueError
            If neither the arguments nor the TuneConfig say what is best.
        RuntimeError
            If no trial has a value to go by; the metrics that were reported get named.
        """
        analysis = self._experiment_analysis
        trial = analysis.get_best_trial(metric, mode, scope, filter_nan_and_inf)
        if trial is None:
            finite = "finite number" if filter_nan_and_inf else "number"
            names = ", ".join(analysis._metric_names()) or "no metrics at all"
            hint = " To let NaN and infinity count, pass `filter_nan_and_inf=False`." if filter_nan_and_inf else ""
            raise RuntimeError(
                f"No trial is the best: none reported a {finite} as {metric or analysis.default_metric!r}. "
                f"Reported were: {names}.{hint}"
            )
        return self._results[analysis.trials.index(trial)]

    def get_dataframe(self, filter_metric: str | None = None, filter_mode: str | None = None) -> pd.DataFrame:
        """One result of each trial, with the configuration in columns such as ``"config/lr"``.

        Parameters
        ----------
        filter_metric : str, optional
            ``"a/b"`` for a nested one.
        filter_mode : {'min', 'max'}, optional
            With both, the result in which the metric is lowest or highest of all that the trial reported; else its
            last one.

        Returns
        -------
        pandas.DataFrame
        """
        return self._experiment_analysis.dataframe(metric=filter_metric, mode=filter_mode)

    def _trial_to_result(self, trial: Trial) -> Result:
        is_stored = self._experiment_analysis.experiment_path is not None
        return Result(
            metrics=dict(trial.last_result),
            checkpoint=trial.checkpoint,
            error=None if trial.status == Trial.TERMINATED else trial.get_error(),
            path=trial.path if is_stored else None,
            best_checkpoints=trial.checkpoints,
            _read_dataframe=self._experiment_analysis._dataframe_reader(trial),
        )

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, i: int) -> Result: ...

    @overload
    def __getitem__(self, i: slice) -> list[Result]: ...

    def __getitem__(self, i: int | slice) -> Result | list[Result]:
        return self._results[i]

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    def __repr__(self) -> str:
        results = ",\n".join(result._repr(indent=2) for result in self._results)
        return f"ResultGrid<[\n{results}\n]>"

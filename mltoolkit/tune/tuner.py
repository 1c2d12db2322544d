"""The Tuner: today's way to run a sweep."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltoolkit.train import RunConfig
from mltoolkit.tune.analysis import ExperimentAnalysis
from mltoolkit.tune.execution._build import as_space, as_trainable, new_name, results_folder
from mltoolkit.tune.execution._definition import SweepDefinition, can_restore, load_definition
from mltoolkit.tune.execution._run import run_sweep
from mltoolkit.tune.result_grid import ResultGrid
from mltoolkit.tune.tune_config import ResumeConfig, TuneConfig

__all__ = ["Tuner"]


class Tuner:
    """A hyperparameter sweep.

    Parameters
    ----------
    trainable : function, subclass of Trainable, trainer or str
        What is run with each configuration. A function reports with `tune.report`, or returns or yields its metrics;
        a string is a name given to `tune.register_trainable`.
    param_space : dict, optional
        The search space: constants, distributions such as ``tune.loguniform(1e-4, 1e-1)`` and
        ``tune.grid_search([...])``, nested as the trainable wants its configuration.
    tune_config : TuneConfig, optional
    run_config : RunConfig, optional

    Raises
    ------
    TypeError, ValueError
        If something is not what it should be.

    Examples
    --------
    >>> import tempfile
    >>> from mltoolkit import tune
    >>> tuner = tune.Tuner(
    ...     lambda config: {"loss": (config["x"] - 2) ** 2},
    ...     param_space={"x": tune.grid_search([0, 1, 2, 3])},
    ...     tune_config=tune.TuneConfig(metric="loss", mode="min"),
    ...     run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    ... )
    >>> tuner.fit().get_best_result().config
    {'x': 2}
    """

    def __init__(
        self,
        trainable: Any = None,
        *,
        param_space: Any = None,
        tune_config: TuneConfig | None = None,
        run_config: RunConfig | None = None,
    ) -> None:
        if tune_config is not None and not isinstance(tune_config, TuneConfig):
            raise TypeError(f"`tune_config` must be a tune.TuneConfig, got {tune_config!r}.")
        if run_config is not None and not isinstance(run_config, RunConfig):
            raise TypeError(f"`run_config` must be a tune.RunConfig, got {run_config!r}.")
        own_run_config = getattr(trainable, "run_config", None)  # of a trainer
        if run_config is None and isinstance(own_run_config, RunConfig):
            run_config = own_run_config
        resolved, label = as_trainable(trainable)
        self._definition = SweepDefinition(
            resolved, label, as_space(param_space), tune_config or TuneConfig(), run_config or RunConfig()
        )
        self._experiment_path: Path | None = None
        self._resume: ResumeConfig | None = None
        self._results: ResultGrid | None = None

    @classmethod
    def restore(
        cls,
        path: str | os.PathLike[str],
        trainable: Any = None,
        resume_unfinished: bool = True,
        resume_errored: bool = False,
        restart_errored: bool = False,
        param_space: Any = None,
        storage_filesystem: None = None,
        num_samples: int | None = None,
        _resume_config: ResumeConfig | None = None,
    ) -> Tuner:
        """Go on with a sweep that was interrupted or whose driver died.

        Finished trials are not run again, running ones go on from their last checkpoint, and search algorithm and
        scheduler know all that was reported. The folder may have been moved.

        Parameters
        ----------
        path : path-like
            Folder of the experiment: ``<storage_path>/<name>``.
        trainable : optional
            What was swept; by default what was kept with the experiment, where it could be.
        resume_unfinished : bool, default=True
            Whether trials that had not finished go on; otherwise they count as ended.
        resume_errored, restart_errored : bool, default=False
            Whether failed trials are run again, from their last checkpoint or from the beginning.
        param_space : dict, optional
            The same search space again, where it holds objects that no file can keep.
        storage_filesystem : None
            For Ray's signature; other file systems are not supported.
        num_samples : int, optional
            More samples than the sweep had.

        Raises
        ------
        FileNotFoundError
            If the folder holds no experiment.
        TuneError
            If the trainable was not kept and is not given.

        Notes
        -----
        The definition of a sweep is kept as a pickle, whose reading runs code: it is read only from files that nobody
        but the current user may write.
        """
        if storage_filesystem is not None:
            raise NotImplementedError("`storage_filesystem` is not supported: copy the experiment to a local folder.")
        if resume_errored and restart_errored:
            raise ValueError("`resume_errored` and `restart_errored` exclude each other, got both.")
        folder = Path(path).expanduser().absolute()
        tuner = cls.__new__(cls)
        definition = load_definition(folder, trainable, param_space)
        if num_samples is not None:
            definition = replace(definition, tune_config=replace(definition.tune_config, num_samples=num_samples))
        tuner._definition = definition
        tuner._experiment_path = folder
        tuner._resume = _resume_config or ResumeConfig(
            unfinished="resume" if resume_unfinished else "skip",
            errored="resume" if resume_errored else "restart" if restart_errored else "skip",
        )
        tuner._results = None
        return tuner

    @classmethod
    def can_restore(cls, path: str | os.PathLike[str], storage_filesystem: None = None) -> bool:
        """Whether a folder holds an experiment that :meth:`restore` can go on with."""
        if storage_filesystem is not None:
            raise NotImplementedError("`storage_filesystem` is not supported: copy the experiment to a local folder.")
        return can_restore(Path(path).expanduser().absolute())

    def fit(self) -> ResultGrid:
        """Run the sweep.

        Ctrl-C once stops it gracefully, with all that was reported; twice stops at once. Trials that fail do not raise:
        their results carry the error.

        Returns
        -------
        ResultGrid
            One result for each trial, in the order of their creation.

        Raises
        ------
        TuneError
            If the sweep cannot go on: its folder cannot be written, no trial reports the metric, a callback raised.
        """
        analysis: ExperimentAnalysis = run_sweep(
            self._definition, experiment_path=self._experiment_path, resume=self._resume
        )
        self._results = ResultGrid(analysis)
        return self._results

    def get_results(self) -> ResultGrid:
        """The results of the last :meth:`fit`, or of a restored experiment as it lies on disk.

        Raises
        ------
        RuntimeError
            If there are none yet.
        """
        if self._results is None and self._experiment_path is not None:
            tune_config = self._definition.tune_config
            metric, mode = tune_config.metric, tune_config.mode
            self._results = ResultGrid(
                ExperimentAnalysis(
                    self._experiment_path,
                    default_metric=metric if isinstance(metric, str) else None,
                    default_mode=mode if isinstance(mode, str) else None,
                )
            )
        if self._results is None:
            where = results_folder(self._definition.run_config) / new_name(self._definition.trainable_label)
            raise RuntimeError(
                f"The sweep has not run: call `fit()` first. Its results will be in a folder like {where}."
            )
        return self._results

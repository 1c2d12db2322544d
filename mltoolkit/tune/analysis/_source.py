"""Where the trials of an experiment and their results come from: a journal, Ray's own files, or memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mltoolkit.tune.experiment.trial import Trial

__all__ = ["ExperimentSource", "experiment_folder"]


class ExperimentSource:
    """The trials of an experiment, and their results, which are read when they are first asked for.

    Parameters
    ----------
    folder : pathlib.Path or None
        None for an experiment that was kept in memory: of each trial there is then the last result alone.
    trials : list of Trial, optional
        Read from the folder if not given.
    """

    def __init__(self, folder: Path | None, trials: list[Trial] | None = None) -> None:
        self.folder = folder
        self._results: dict[str, list[dict[str, Any]]] | None = None
        if trials is None:
            trials = self._load_trials()
        self.trials = trials

    def _load_trials(self) -> list[Trial]:
        if self.folder is None:
            raise ValueError("Give the folder of an experiment, or its trials.")
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"{self.folder} is not a folder. Give the folder `<storage_path>/<name>` of the experiment."
            )
        if self._has_journal():
            from mltoolkit.tune.execution.history import load_trials

            return load_trials(self.folder)
        from mltoolkit.tune.analysis._ray_folder import load_ray_experiment

        trials, self._results = load_ray_experiment(self.folder)
        return trials

    @property
    def is_complete(self) -> bool:
        """Whether all results are there, not the last ones alone."""
        return self.folder is not None

    def results(self) -> dict[str, list[dict[str, Any]]]:
        """All results by trial id, each trial's in the order in which they were reported."""
        if self._results is None:
            if self.folder is None:
                return {trial.trial_id: [trial.last_result] if trial.last_result else [] for trial in self.trials}
            if self._has_journal():
                from mltoolkit.tune.execution.history import read_results

                self._results = read_results(self.folder)
            else:
                from mltoolkit.tune.analysis._ray_folder import load_ray_experiment

                self._results = load_ray_experiment(self.folder)[1]
        return self._results

    def _has_journal(self) -> bool:
        from mltoolkit.tune.execution.journal import FILE_NAME

        return self.folder is not None and (self.folder / FILE_NAME).exists()


def experiment_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of an experiment, which may be named by the state file in it."""
    folder = Path(path).expanduser().absolute()
    return folder.parent if folder.suffix in (".json", ".jsonl") and not folder.is_dir() else folder

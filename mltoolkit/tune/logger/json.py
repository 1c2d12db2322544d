"""Results and configurations as JSON."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from mltoolkit.tune._torn_lines import cut_torn_line
from mltoolkit.tune.logger._files import AppendFiles, replace_file
from mltoolkit.tune.logger._values import jsonable, to_json
from mltoolkit.tune.logger.logger import LoggerCallback

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["JsonLoggerCallback"]

_FILE = "result.json"
_PARAMS = "params.json"
_PARAMS_PICKLED = "params.pkl"

logger = logging.getLogger(__name__)


class JsonLoggerCallback(LoggerCallback):
    """Write each trial's configuration and results to its folder.

    ``params.json`` and ``params.pkl`` hold the configuration, ``result.json`` one result per line. Values that
    JSON cannot express are written as strings. A ``result.json`` that exists is continued.
    """

    def __init__(self) -> None:
        self._files = AppendFiles(repair=cut_torn_line)
        self._started: set[str] = set()

    def log_trial_start(self, trial: Trial) -> None:
        """Write the configuration.

        Raises
        ------
        StorageError
            If the trial's folder cannot be written.
        """
        self._started.add(trial.trial_id)
        self.update_config(trial, trial.config)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Add a line.

        Raises
        ------
        StorageError
            If the file cannot be written.
        """
        if trial.trial_id not in self._started:
            self.log_trial_start(trial)
        self._files.append(os.path.join(trial.path, _FILE), f"{to_json(result)}\n".encode())

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Close the trial's file."""
        self._started.discard(trial.trial_id)
        self._files.close(os.path.join(trial.path, _FILE))

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Close the files of trials that never ended."""
        self._started.clear()
        self._files.close_all()

    def update_config(self, trial: Trial, config: dict[str, Any]) -> None:
        """Write another configuration, such as the one a trial goes on with after it was mutated."""
        import cloudpickle

        text = to_json(jsonable(config), indent=2, sort_keys=True)
        replace_file(os.path.join(trial.path, _PARAMS), text.encode())
        try:
            pickled = cloudpickle.dumps(config)
        except Exception as error:
            logger.warning("Trial %s: no %s, its configuration cannot be pickled: %s", trial, _PARAMS_PICKLED, error)
        else:
            replace_file(os.path.join(trial.path, _PARAMS_PICKLED), pickled)

"""The base of callbacks that write results somewhere, and the text form of a result."""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.callback import Callback
from mltoolkit.tune.logger._values import to_json

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["LoggerCallback", "pretty_print"]

# Longer sequences stay on one line.
_LONGEST_BLOCK = 3


class LoggerCallback(Callback):
    """Base class of callbacks that log trials; override what is of interest.

    What a logger opens for a trial it should close in :meth:`log_trial_end`: a sweep has many trials.
    """

    def log_trial_start(self, trial: Trial) -> None:
        """A trial starts, or goes on after a pause or a failure, perhaps with another ``trial.config``."""

    def log_trial_restore(self, trial: Trial) -> None:
        """A trial goes on from a checkpoint."""

    def log_trial_save(self, trial: Trial) -> None:
        """A checkpoint of a trial was stored."""

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """A trial reported a result.

        Parameters
        ----------
        iteration : int
            Turns of the sweep's loop so far, not iterations of the trial.
        trial : Trial
        result : dict
            The result; not to be changed.
        """

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """A trial ended, with an error if ``failed``."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Log the start."""
        self.log_trial_start(trial)

    def on_trial_restore(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Log that the trial goes on."""
        self.log_trial_restore(trial)

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Log the checkpoint."""
        self.log_trial_save(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Log the result."""
        self.log_trial_result(iteration, trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Log the end."""
        self.log_trial_end(trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Log the end."""
        self.log_trial_end(trial, failed=True)


def pretty_print(result: dict[str, Any], exclude: Collection[str] | None = None) -> str:
    """A result as YAML text, without its configuration and without entries that are None.

    Parameters
    ----------
    result : dict
        What a trial or an algorithm reported.
    exclude : collection of str, optional
        Keys to leave out as well.

    Returns
    -------
    str

    Examples
    --------
    >>> print(pretty_print({"loss": 0.5, "config": {"lr": 1}, "sizes": [1, 2, 3, 4]}), end="")
    loss: 0.5
    sizes: [1, 2, 3, 4]
    """
    yaml = importlib.import_module("yaml")

    class Dumper(yaml.SafeDumper):  # type: ignore[name-defined]
        def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
            if len(sequence) > _LONGEST_BLOCK:
                flow_style = True
            return super().represent_sequence(tag, sequence, flow_style=flow_style)

    left_out = {"config", "hist_stats", *(exclude or ())}
    shown = {key: value for key, value in result.items() if value is not None and key not in left_out}
    return str(yaml.dump(json.loads(to_json(shown)), Dumper=Dumper, default_flow_style=False))

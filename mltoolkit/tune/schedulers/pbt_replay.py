"""Replay of a schedule that Population Based Training has found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.result import TRAINING_ITERATION
from mltoolkit.tune.schedulers._policy_log import read_policy
from mltoolkit.tune.schedulers.trial_scheduler import FIFOScheduler
from mltoolkit.tune.search._nested import flatten
from mltoolkit.tune.search.variant_generator import format_vars

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

__all__ = ["PopulationBasedTrainingReplay", "perturbed_tag"]


class PopulationBasedTrainingReplay(FIFOScheduler):
    """Train a single trial along a schedule of configurations that Population Based Training has found.

    Parameters
    ----------
    policy_file : path-like
        ``pbt_policy_<trial id>.txt`` in the folder of the experiment.

    Attributes
    ----------
    config : dict
        The configuration that the schedule begins with.
    current_config : dict
        The one that is in use.

    Raises
    ------
    ValueError
        If the file is missing or is no such log.
    """

    def __init__(self, policy_file: str | os.PathLike[str]) -> None:
        self.policy_file = Path(policy_file).expanduser().as_posix()
        config, self._policy = read_policy(policy_file)
        self.config: dict[str, Any] = config or {}
        self.current_config = self.config
        self.experiment_tag = f"replay_{os.path.basename(self.policy_file)}"
        self._trial_id: str | None = None
        self._current_step = 0
        self._num_perturbations = 0

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """Give the trial the first configuration of the schedule.

        Raises
        ------
        ValueError
            If there is a second trial, or neither a schedule nor a configuration.
        """
        if self._trial_id is not None and self._trial_id != trial.trial_id:
            raise ValueError(
                "PopulationBasedTrainingReplay trains one trial; a second one would train the same schedule again. "
                "Use num_samples=1 and no grid search."
            )
        self._trial_id = trial.trial_id
        if self._policy:
            # What the search space says beside the schedule's parameters stays.
            controller.reset_trial(trial, {**trial.config, **self.config})
        elif not trial.config:
            raise ValueError(
                f"{self.policy_file} holds no schedule, and the trial has no configuration. Give a `param_space`, or "
                "the policy file of a trial that was perturbed."
            )
        else:
            self.config = self.current_config = dict(trial.config)

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Change the configuration when its time has come."""
        step = result.get(TRAINING_ITERATION)
        if step is None or self._num_perturbations == len(self._policy):
            return self.CONTINUE
        self._current_step = step
        change_at, config = self._policy[self._num_perturbations]
        if step < change_at:
            return self.CONTINUE
        self._num_perturbations += 1
        self.current_config = config
        checkpoint = controller.save_trial(trial)
        tag = perturbed_tag(self.experiment_tag, flatten(config))
        controller.reset_trial(trial, {**trial.config, **config}, checkpoint, tag=tag)
        return self.NOOP

    def debug_string(self) -> str:
        """Iteration, and number of changes so far."""
        return f"PopulationBasedTraining replay: Step {self._current_step}, perturb {self._num_perturbations}"


def perturbed_tag(tag: str, config: dict[str, Any]) -> str:
    """The tag of a trial whose configuration was changed on the way."""
    return f"{tag}@perturbed[{format_vars(config)}]"

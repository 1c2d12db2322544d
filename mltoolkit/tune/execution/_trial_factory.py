"""From a suggestion to a trial: its id, names, folder, seed and resources."""

from __future__ import annotations

import hashlib
import os
import uuid

from mltoolkit.tune.execution._settings import SweepSettings
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.experiment.naming import dirname_of, tag_of
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.search.search_algorithm import Suggestion
from mltoolkit.tune.trainable.util import checked_resources, resources_of

__all__ = ["TrialFactory"]


class TrialFactory:
    """Makes the trials of a sweep, numbered from where it stands.

    Parameters
    ----------
    settings : SweepSettings
    known : list of Trial
        Those of a restored sweep: new ones are named like them.
    """

    def __init__(self, settings: SweepSettings, known: list[Trial]) -> None:
        self._settings = settings
        self._prefix = known[0].trial_id.partition("_")[0] if known else uuid.uuid4().hex[:5]
        self._next_index = 1 + max((trial.index for trial in known), default=-1)

    @property
    def next_id(self) -> str:
        """Id of the trial that :meth:`make` will make."""
        return f"{self._prefix}_{self._next_index:05d}"

    def make(self, suggestion: Suggestion) -> Trial:
        """Make a trial of a configuration."""
        settings, index = self._settings, self._next_index
        trial = Trial(
            trial_id=self.next_id,
            trainable_name=settings.trainable_name,
            config=suggestion.config,
            index=index,
            evaluated_params=suggestion.evaluated_params,
            experiment_tag=tag_of(index, suggestion.evaluated_params),
            experiment_path=settings.experiment_path,
            seed=None if settings.seed is None else _trial_seed(settings.seed, index),
        )
        self._next_index += 1
        if settings.trial_name_creator is not None:
            trial.custom_name = str(settings.trial_name_creator(trial))
        trial.dirname = self._dirname_of(trial)
        return trial

    def resources_of(self, trial: Trial) -> PlacementGroupFactory:
        """What a trial asks for; a scheduler may have changed it."""
        if trial.placement_group_factory is None:
            asked = self._settings.resources
            if callable(asked):
                asked = checked_resources(asked(trial.config))
            asked = asked or resources_of(self._settings.trainable, trial.config)
            trial.placement_group_factory = asked or PlacementGroupFactory([{"CPU": 1}])
        return trial.placement_group_factory

    def _dirname_of(self, trial: Trial) -> str:
        creator = self._settings.trial_dirname_creator
        if creator is None:
            return dirname_of(trial)
        name = creator(trial)
        if not isinstance(name, str) or not name or os.path.isabs(name) or ".." in name.split(os.sep):
            raise ValueError(
                f"`trial_dirname_creator` must return the name of a folder within the experiment's, got {name!r} for "
                f"trial {trial}."
            )
        # Two trials in one folder would overwrite each other's results and checkpoints.
        taken = os.path.exists(os.path.join(trial.experiment_path, name))
        return f"{name}_{trial.trial_id}" if taken else name


def _trial_seed(seed: int, index: int) -> int:
    """A seed of its own for each trial, the same in each run of the sweep and whatever the concurrency."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:4], "little")

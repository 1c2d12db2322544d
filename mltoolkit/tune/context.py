"""Who a trial is: what `tune.get_context()` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mltoolkit.train._session import get_context

if TYPE_CHECKING:
    from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory

__all__ = ["TuneContext", "get_trial_dir", "get_trial_id", "get_trial_name", "get_trial_resources"]


@dataclass(frozen=True)
class TuneContext:
    """Identity, folder and resources of the trial that runs in this process.

    A trial is one process, so it is rank 0 of a world of size 1; trainers that start workers have contexts of
    their own in them.
    """

    experiment_name: str
    trial_id: str
    trial_name: str
    trial_dir: str
    trial_resources: PlacementGroupFactory | None = None
    seed: int | None = None

    def get_experiment_name(self) -> str:
        """Name of the experiment, which is also the name of its folder."""
        return self.experiment_name

    def get_trial_id(self) -> str:
        """Id of the trial, unique within the experiment."""
        return self.trial_id

    def get_trial_name(self) -> str:
        """Name of the trial in tables and logs."""
        return self.trial_name

    def get_trial_dir(self) -> str:
        """Folder of the trial: results, logs and checkpoints."""
        return self.trial_dir

    def get_trial_resources(self) -> PlacementGroupFactory | None:
        """What the trial was given; None outside a sweep."""
        return self.trial_resources

    def get_world_size(self) -> int:
        """Always 1: a trial is one process."""
        return 1

    def get_world_rank(self) -> int:
        """Always 0."""
        return 0

    def get_local_world_size(self) -> int:
        """Always 1."""
        return 1

    def get_local_rank(self) -> int:
        """Always 0."""
        return 0

    def get_node_rank(self) -> int:
        """Always 0."""
        return 0

    def get_metadata(self) -> dict[str, Any]:
        """What describes the trial, as plain data."""
        return {"experiment_name": self.experiment_name, "trial_id": self.trial_id, "seed": self.seed}


def get_trial_name() -> str:
    """Name of the trial that runs in this process: older form of ``tune.get_context().get_trial_name()``."""
    return str(get_context().get_trial_name())


def get_trial_id() -> str:
    """Id of the trial that runs in this process: older form of ``tune.get_context().get_trial_id()``."""
    return str(get_context().get_trial_id())


def get_trial_dir() -> str:
    """Folder of the trial that runs in this process: older form of ``tune.get_context().get_trial_dir()``."""
    return str(get_context().get_trial_dir())


def get_trial_resources() -> PlacementGroupFactory | None:
    """Resources of the trial that runs here: older form of ``tune.get_context().get_trial_resources()``."""
    resources: PlacementGroupFactory | None = get_context().get_trial_resources()
    return resources

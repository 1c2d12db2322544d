"""Everything a sweep is told before it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mltoolkit.train import CheckpointConfig, FailureConfig
from mltoolkit.tune.callback import Callback
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.schedulers.trial_scheduler import TrialScheduler
from mltoolkit.tune.search.search_algorithm import SearchAlgorithm
from mltoolkit.tune.stopper import Stopper

__all__ = ["SweepSettings"]


@dataclass
class SweepSettings:
    """A sweep, checked and complete.

    Attributes
    ----------
    trainable : callable or class
    resources : PlacementGroupFactory, callable or None
        What a trial gets; a function of its configuration; None for what the trainable asks for, or one CPU.
    seed : int or None
        Fixes what trials compute; the search algorithm has been given it already.
    max_concurrent : int or None
        Trials at a time; None for as many as fit.
    reuse_actors : bool or None
        Whether a process runs several trials in turn; None does so for functions.
    """

    name: str
    experiment_path: Path
    trainable: Any
    trainable_name: str
    search_alg: SearchAlgorithm
    scheduler: TrialScheduler
    stopper: Stopper
    metric: str | Sequence[str] | None = None
    mode: str | Sequence[str] | None = None
    num_samples: int = 1
    seed: int | None = None
    resources: PlacementGroupFactory | Callable[[dict[str, Any]], PlacementGroupFactory] | None = None
    max_concurrent: int | None = None
    reuse_actors: bool | None = None
    failure_config: FailureConfig = field(default_factory=FailureConfig)
    checkpoint_config: CheckpointConfig = field(default_factory=CheckpointConfig)
    callbacks: Sequence[Callback] = ()
    log_files: tuple[str | None, str | None] = (None, None)
    trial_name_creator: Callable[[Trial], str] | None = None
    trial_dirname_creator: Callable[[Trial], str] | None = None
    change_directory: bool = True
    restore_from: str | None = None

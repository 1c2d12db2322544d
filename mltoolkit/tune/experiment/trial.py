"""One trial: a configuration, its state, and what it has reported."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mltoolkit.train import Checkpoint
    from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory

__all__ = ["MetricAnalysis", "Trial"]

_AVERAGED = (5, 10)


class MetricAnalysis:
    """Running summary of one metric over a trial's results: nothing that grows with their number.

    Attributes
    ----------
    max, min, avg, last : float
        Over all results so far.
    """

    __slots__ = ("avg", "count", "last", "max", "min", "recent")

    def __init__(self) -> None:
        self.count = 0
        self.max = -math.inf
        self.min = math.inf
        self.avg = 0.0
        self.last = math.nan
        self.recent: deque[float] = deque(maxlen=max(_AVERAGED))

    def add(self, value: float) -> None:
        """Take one more value; NaN counts as the last one, not in the summary."""
        self.last = value
        if math.isnan(value):
            return
        self.count += 1
        self.max = max(self.max, value)
        self.min = min(self.min, value)
        self.avg += (value - self.avg) / self.count
        self.recent.append(value)

    def over(self, scope: str) -> float:
        """The summary for a scope: ``max``, ``min``, ``avg``, ``last``, ``last-5-avg`` or ``last-10-avg``."""
        if scope.startswith("last-"):
            recent = list(self.recent)[-int(scope.split("-")[1]) :]
            return sum(recent) / len(recent) if recent else math.nan
        if scope != "last" and not self.count:
            return math.nan
        return float(getattr(self, scope))


@dataclass(eq=False)
class Trial:
    """A trial of an experiment.

    Trials compare by identity and hash by their id. Schedulers and callbacks read them; the controller alone
    changes their state.

    Attributes
    ----------
    trial_id : str
        Unique within the experiment, such as ``"5f3a9_00007"``.
    trainable_name : str
    config : dict
        What the trainable gets.
    evaluated_params : dict
        The values that the search space drew, under flat names (``"model/lr"``).
    experiment_tag : str
        Number and drawn values: ``"7_lr=0.1000,momentum=0.9"``.
    experiment_path : pathlib.Path
        Folder of the experiment.
    dirname : str
        Folder of the trial within it.
    placement_group_factory : PlacementGroupFactory or None
        The resources it asks for; None stands for one CPU.
    status : {'PENDING', 'RUNNING', 'PAUSED', 'TERMINATED', 'ERROR'}
    last_result : dict
        What was reported last, with Tune's own keys; empty before the first report.
    metric_analysis : dict of str to MetricAnalysis
        Summary of each numeric metric.
    checkpoints : list of (Checkpoint, dict)
        Those that are kept, oldest first, each with the result that was reported with it.
    num_failures : int
        Times it failed and was started again, or failed for good.
    error : BaseException or None
        Why it is in state ``ERROR``.
    seed : int or None
        What `random`, `numpy` and `torch` are seeded with in the trial, when the sweep has a seed.
    location : str
        ``host:pid`` of the process that runs it, or ran it last.
    """

    PENDING: ClassVar[str] = "PENDING"
    RUNNING: ClassVar[str] = "RUNNING"
    PAUSED: ClassVar[str] = "PAUSED"
    TERMINATED: ClassVar[str] = "TERMINATED"
    ERROR: ClassVar[str] = "ERROR"

    trial_id: str
    trainable_name: str
    config: dict[str, Any]
    index: int = 0
    evaluated_params: dict[str, Any] = field(default_factory=dict)
    experiment_tag: str = ""
    experiment_path: Path = field(default_factory=Path)
    dirname: str = ""
    custom_name: str | None = None
    placement_group_factory: PlacementGroupFactory | None = None
    stopping_criterion: dict[str, float] = field(default_factory=dict)
    seed: int | None = None
    status: str = "PENDING"
    last_result: dict[str, Any] = field(default_factory=dict)
    metric_analysis: dict[str, MetricAnalysis] = field(default_factory=dict)
    checkpoints: list[tuple[Checkpoint, dict[str, Any]]] = field(default_factory=list)
    num_failures: int = 0
    error: BaseException | None = None
    start_time: float | None = None
    end_time: float | None = None
    location: str = ""

    def __hash__(self) -> int:
        return hash(self.trial_id)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __str__(self) -> str:
        return self.custom_name or f"{self.trainable_name}_{self.trial_id}"

    def __repr__(self) -> str:
        return f"<Trial {self} {self.status}>"

    @property
    def path(self) -> str:
        """Folder of the trial: results, logs and checkpoints."""
        return os.path.join(self.experiment_path, self.dirname)

    local_path = path
    logdir = path

    @property
    def trial_name(self) -> str:
        """Name in tables and logs."""
        return str(self)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The latest one that is kept."""
        return self.checkpoints[-1][0] if self.checkpoints else None

    def has_checkpoint(self) -> bool:
        """Whether a checkpoint is kept."""
        return bool(self.checkpoints)

    @property
    def has_reported_at_least_once(self) -> bool:
        """Whether it has reported a result."""
        return bool(self.last_result)

    @property
    def node_ip(self) -> str | None:
        """Address of the host that it reported from last; before its first report the host's name, once it runs."""
        return self.last_result.get("node_ip") or self.location.rpartition(":")[0] or None

    def get_ray_actor_ip(self) -> str | None:
        """See :attr:`node_ip`."""
        return self.node_ip

    def add_checkpoint(self, checkpoint: Checkpoint, metrics: dict[str, Any]) -> None:
        """Take a checkpoint that is complete on disk."""
        self.drop_checkpoint(checkpoint.path)
        self.checkpoints.append((checkpoint, metrics))

    def drop_checkpoint(self, path: str) -> None:
        """Forget a checkpoint that is not kept any longer."""
        self.checkpoints = [kept for kept in self.checkpoints if kept[0].path != path]

    def is_finished(self) -> bool:
        """Whether it will not run again."""
        return self.status in (Trial.TERMINATED, Trial.ERROR)

    @property
    def runtime_s(self) -> float:
        """Seconds since it first started, or between its start and its end."""
        if self.start_time is None:
            return 0.0
        return (self.end_time or time.time()) - self.start_time

    @property
    def error_file(self) -> str | None:
        """Where the traceback of a failed trial lies, if it has failed."""
        file = os.path.join(self.path, "error.txt")
        return file if self.num_failures and os.path.exists(file) else None

    def get_error(self) -> BaseException | None:
        """The error that ended it, or None."""
        return self.error

    def metric(self, name: str, scope: str = "last") -> float | None:
        """A metric's summary over the trial, or None where it never reported that metric as a number."""
        analysis = self.metric_analysis.get(name)
        return None if analysis is None else analysis.over(scope)

    def update_last_result(self, result: dict[str, Any]) -> None:
        """Take a result that was reported."""
        self.last_result = result
        analyses = self.metric_analysis
        for name, value in _flat_numbers(result):
            analysis = analyses.get(name)
            if analysis is None:
                analysis = analyses[name] = MetricAnalysis()
            analysis.add(value)


# Tune's own keys whose summary over time says nothing.
_UNSUMMARISED = frozenset(
    {"config", "pid", "date", "timestamp", "hostname", "node_ip", "trial_id", "done", "experiment_tag"}
)


def _flat_numbers(result: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    numbers = []
    for name, value in result.items():
        if not prefix and name in _UNSUMMARISED:
            continue
        if isinstance(value, dict):
            numbers += _flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):  # numpy's scalars were made plain when they were reported
            numbers.append((f"{prefix}{name}", float(value)))
    return numbers

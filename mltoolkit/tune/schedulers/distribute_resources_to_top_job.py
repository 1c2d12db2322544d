"""Free resources to the best trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mltoolkit.tune.schedulers.distribute_resources import DistributeResources, _resources

if TYPE_CHECKING:
    from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.resource_changing_scheduler import ResourceChangingScheduler

__all__ = ["DistributeResourcesToTopJob"]


class DistributeResourcesToTopJob(DistributeResources):
    """Give all free CPUs and GPUs to the trial that is best so far, and when that has its limit, to the next best.

    Trials that were best before keep what they have.

    Parameters
    ----------
    add_bundles, increase_by, increase_by_times, reserve_resources
        As for :class:`DistributeResources`.
    metric : str, optional
        Key of results that trials are compared by; default: that of the scheduler or the sweep.
    mode : {'min', 'max'}, optional
        Whether less or more of the metric is better; default: that of the scheduler or the sweep.
    """

    def __init__(
        self,
        add_bundles: bool = False,
        increase_by: Mapping[str, float] | None = None,
        increase_by_times: int = -1,
        reserve_resources: Mapping[str, float] | None = None,
        metric: str | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__(add_bundles, increase_by, increase_by_times, reserve_resources)
        if mode not in (None, "min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")
        self.metric = metric
        self.mode = mode

    def _times(
        self,
        trial: Trial,
        trials: Sequence[Trial],
        added: int,
        free: int,
        total: Mapping[str, float],
        base: PlacementGroupFactory,
        unit: Mapping[str, float],
        scheduler: ResourceChangingScheduler,
    ) -> int:
        """How often `unit` should be added to `base` for a trial."""
        if free < 0:
            return added + free
        metric, mode = self.metric or scheduler.metric, self.mode or scheduler.mode
        if metric is None or mode is None:
            raise ValueError(
                f"{type(self).__name__} needs a metric and a mode to tell which trial is best (metric={metric!r}, "
                f"mode={mode!r}). Give them to it, to the base scheduler or to tune.TuneConfig."
            )

        def badness(other: Trial) -> float:
            value = other.last_result.get(metric, math.nan)
            return math.inf if math.isnan(value) else value if mode == "min" else -value

        ranking = sorted(trials, key=badness)
        limit = self.increase_by_times if self.increase_by_times > 0 else math.inf
        best = next((t for t in ranking if self._times_added(_resources(t, base), base, unit) < limit), ranking[0])
        return self._limited(added + free) if trial is best else added

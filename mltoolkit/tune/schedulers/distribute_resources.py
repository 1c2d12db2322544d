"""How free resources are shared out among the trials of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.schedulers._metric_scheduler import positive

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.resource_changing_scheduler import ResourceChangingScheduler
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

__all__ = ["DistributeResources"]

_SHARED = ("CPU", "GPU")


class DistributeResources:
    """Share free CPUs and GPUs out equally among all trials that have not ended.

    To be given to :class:`ResourceChangingScheduler`, which calls it at each result of a trial. Trials never get less
    than they began with; one that has more than its share when others need it gives that back.

    Parameters
    ----------
    add_bundles : bool, default=False
        Whether resources are added as new bundles, for workers that the trial starts, instead of to its one bundle.
    increase_by : dict, optional
        What is added at a time, such as ``{"CPU": 2, "GPU": 1}``. Default: the last bundle with `add_bundles`, else one
        GPU if trials have GPUs, else one CPU.
    increase_by_times : int, default=-1
        How often `increase_by` is added at most; -1 for no limit.
    reserve_resources : dict, optional
        What is kept out of it, such as ``{"CPU": 1}``.

    Raises
    ------
    ValueError
        If `increase_by` has neither CPUs nor GPUs, or a number is negative.
    """

    def __init__(
        self,
        add_bundles: bool = False,
        increase_by: Mapping[str, float] | None = None,
        increase_by_times: int = -1,
        reserve_resources: Mapping[str, float] | None = None,
    ) -> None:
        owner = type(self).__name__
        if increase_by is not None:
            for name, amount in increase_by.items():
                if name not in _SHARED:
                    raise ValueError(f"`increase_by` of {owner} may have 'CPU' and 'GPU', got {name!r}.")
                positive(owner, f"increase_by[{name!r}]", amount)
            if not increase_by:
                raise ValueError(f"`increase_by` of {owner} is empty. Give {{'CPU': 1}}, or leave it out.")
        self.add_bundles = add_bundles
        self.increase_by = dict(increase_by or {})
        self.increase_by_times = increase_by_times
        self.reserve_resources = dict(reserve_resources or {})

    def __call__(
        self, controller: Controller, trial: Trial, result: dict[str, Any], scheduler: ResourceChangingScheduler
    ) -> PlacementGroupFactory | None:
        """The resources that a trial should have now, or None to leave it as it is."""
        base = scheduler.base_trial_resources or PlacementGroupFactory([{"CPU": 1}])
        if not self.add_bundles and len(base.bundles) > 1:
            raise ValueError(
                f"{type(self).__name__}(add_bundles=False) adds to a trial's one bundle, but trials have "
                f"{len(base.bundles)} bundles. Use add_bundles=True."
            )
        unit = self._unit(base)
        trials = list(controller.get_live_trials())
        total = {n: controller.total_resources().get(n, 0) - self.reserve_resources.get(n, 0) for n in _SHARED}
        free = {n: total[n] - sum(_resources(t, base).get(n, 0) for t in trials) for n in _SHARED}
        added = self._times_added(_resources(trial, base), base, unit)
        times = self._times(trial, trials, added, _multiple(free, unit), total, base, unit, scheduler)
        return self._with_added(base, unit, max(times, 0))

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
        """How often `unit` should be added to `base` for a trial.

        Parameters
        ----------
        added : int
            How often it is now.
        free : int
            How often it fits into what no trial has; negative if trials together have too much.
        """
        if free <= 0:
            return added + free
        spare = {n: total[n] - base.required_resources.get(n, 0) * len(trials) for n in _SHARED}
        share = math.ceil(max(_multiple(spare, unit), 0) / len(trials))
        return min(added + free, self._limited(share))

    def _limited(self, times: int) -> int:
        return min(times, self.increase_by_times) if self.increase_by_times > 0 else times

    def _unit(self, base: PlacementGroupFactory) -> dict[str, float]:
        if self.increase_by:
            return self.increase_by
        if self.add_bundles:
            return {name: amount for name, amount in base.bundles[-1].items() if name in _SHARED}
        return {"GPU": 1} if base.bundles[0].get("GPU") else {"CPU": 1}

    def _times_added(self, now: Mapping[str, float], base: PlacementGroupFactory, unit: Mapping[str, float]) -> int:
        extra = {name: now.get(name, 0) - base.required_resources.get(name, 0) for name in unit}
        return max(_multiple(extra, unit), 0)

    def _with_added(self, base: PlacementGroupFactory, unit: Mapping[str, float], times: int) -> PlacementGroupFactory:
        if self.add_bundles:
            return PlacementGroupFactory([*base.bundles, *[unit] * times], strategy=base.strategy)
        bundle = base.bundles[0]
        for name, amount in unit.items():
            bundle[name] = bundle.get(name, 0) + amount * times
        return PlacementGroupFactory([bundle], strategy=base.strategy)


def _resources(trial: Trial, base: PlacementGroupFactory) -> dict[str, float]:
    return (trial.placement_group_factory or base).required_resources


def _multiple(amounts: Mapping[str, float], unit: Mapping[str, float]) -> int:
    """How often a unit fits into amounts, which may be negative."""
    return int(min(amounts[name] // amount for name, amount in unit.items())) if unit else 0

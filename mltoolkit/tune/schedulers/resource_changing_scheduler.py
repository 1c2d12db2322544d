"""A scheduler that changes the resources of trials while they run."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.schedulers.distribute_resources import DistributeResources
from mltoolkit.tune.schedulers.distribute_resources_to_top_job import DistributeResourcesToTopJob
from mltoolkit.tune.schedulers.trial_scheduler import FIFOScheduler, TrialScheduler

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

    AllocationFunction = Callable[
        [Controller, Trial, dict[str, Any], "ResourceChangingScheduler"], PlacementGroupFactory | None
    ]

__all__ = [
    "DistributeResources",
    "DistributeResourcesToTopJob",
    "ResourceChangingScheduler",
    "evenly_distribute_cpus_gpus",
]


class ResourceChangingScheduler(TrialScheduler):
    """Lets another scheduler decide about trials, and changes the resources of those that go on.

    At each result of a trial that goes on, a function says which resources it should have. If those are others than it
    has, the trial is restarted with them from a checkpoint of that moment. Inside the trial,
    ``tune.get_context().get_trial_resources()`` tells what it has.

    Parameters
    ----------
    base_scheduler : TrialScheduler, optional
        Default: first in, first out.
    resources_allocation_function : callable, optional
        Called with the controller, the trial, its result and this scheduler; returns a
        :class:`~mltoolkit.tune.PlacementGroupFactory`, or None to leave the trial as it is. Default:
        :class:`DistributeResources`, which shares free resources out equally. None changes nothing at any time.

    Raises
    ------
    TypeError
        If `base_scheduler` is no scheduler, or the function cannot be called.
    """

    def __init__(
        self,
        base_scheduler: TrialScheduler | None = None,
        resources_allocation_function: AllocationFunction | None = DistributeResources(),  # noqa: B008 - it has no state
    ) -> None:
        if base_scheduler is not None and not isinstance(base_scheduler, TrialScheduler):
            raise TypeError(f"`base_scheduler` must be a TrialScheduler, got {base_scheduler!r}.")
        if resources_allocation_function is not None and not callable(resources_allocation_function):
            raise TypeError(
                "`resources_allocation_function` must be a function of controller, trial, result and scheduler such as "
                f"DistributeResources(), or None; got {resources_allocation_function!r}."
            )
        self._base_scheduler = base_scheduler or FIFOScheduler()
        self._allocate = resources_allocation_function
        self._base_trial_resources: PlacementGroupFactory | None = None

    @property
    def metric(self) -> str | None:
        """The metric of the base scheduler, or of the sweep."""
        return self._base_scheduler.metric or self._metric

    @property
    def mode(self) -> str | None:
        """Whether less or more of the metric is better."""
        return getattr(self._base_scheduler, "_mode", None) or self._mode

    @property
    def base_trial_resources(self) -> PlacementGroupFactory | None:
        """What trials begin with; None before there is one."""
        return self._base_trial_resources

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode of the sweep; False if the base scheduler has others already."""
        self._metric, self._mode = metric, mode
        return self._base_scheduler.set_search_properties(metric, mode, **spec)

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """A trial was created.

        Raises
        ------
        ValueError
            If it begins with other resources than the trials before it.
        """
        resources = trial.placement_group_factory or PlacementGroupFactory([{"CPU": 1}])
        if self._base_trial_resources is None:
            self._base_trial_resources = resources
        elif resources != self._base_trial_resources and trial.start_time is None:
            raise ValueError(
                f"ResourceChangingScheduler needs trials that begin with equal resources. The first has "
                f"{self._base_trial_resources}, {trial} has {resources}."
            )
        self._base_scheduler.on_trial_add(controller, trial)

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Decide as the base scheduler does, and change the resources of a trial that goes on.

        Raises
        ------
        ValueError
            If the function asks for more than the cluster has.
        """
        decision = self._base_scheduler.on_trial_result(controller, trial, result)
        if decision != self.CONTINUE or self._allocate is None:
            return decision
        resources = self._allocate(controller, trial, result, self)
        if resources is None or resources == (trial.placement_group_factory or self._base_trial_resources):
            return decision
        total = controller.total_resources()
        for name, amount in resources.required_resources.items():
            if amount > total.get(name, 0):
                raise ValueError(
                    f"`resources_allocation_function` asks for {name}={amount:g} for trial {trial}, but the cluster has "
                    f"{total.get(name, 0):g}: it could never run."
                )
        controller.reset_trial(trial, trial.config, controller.save_trial(trial), resources=resources)
        return self.NOOP

    def on_trial_complete(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> None:
        """Tell the base scheduler."""
        self._base_scheduler.on_trial_complete(controller, trial, result)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """Tell the base scheduler."""
        self._base_scheduler.on_trial_error(controller, trial)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """Tell the base scheduler."""
        self._base_scheduler.on_trial_remove(controller, trial)

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """As the base scheduler chooses."""
        return self._base_scheduler.choose_trial_to_run(controller)

    def on_stall(self, controller: Controller) -> None:
        """As the base scheduler does."""
        self._base_scheduler.on_stall(controller)

    def debug_string(self) -> str:
        """That of the base scheduler."""
        return f"(ResourceChangingScheduler) {self._base_scheduler.debug_string()}"

    def save(self, checkpoint_path: str | Path) -> None:
        """Write the state, and that of the base scheduler, to a file."""
        with tempfile.TemporaryDirectory() as folder:
            base = os.path.join(folder, "base")
            self._base_scheduler.save(base)
            state = {"base": Path(base).read_bytes(), "own": self._own_state()}
        Path(checkpoint_path).write_bytes(pickle.dumps(state))

    def restore(self, checkpoint_path: str | Path) -> None:
        """Take the state from a file that :meth:`save` wrote."""
        state = pickle.loads(Path(checkpoint_path).read_bytes())
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder, "base")
            base.write_bytes(state["base"])
            self._base_scheduler.restore(base)
        self.__dict__.update(state["own"])

    def _own_state(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_base_scheduler", "_allocate")}


def evenly_distribute_cpus_gpus(
    controller: Controller, trial: Trial, result: dict[str, Any], scheduler: ResourceChangingScheduler
) -> PlacementGroupFactory | None:
    """Share free CPUs and GPUs out equally among all trials: ``DistributeResources()`` as a function."""
    return DistributeResources()(controller, trial, result, scheduler)

"""The processes that trials run in, and how many fit into the cluster."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from typing import Any

import mltoolkit
from mltoolkit.tune import registry
from mltoolkit.tune.execution._checkpoint_io import StorageMarker
from mltoolkit.tune.execution._messages import SlotInfo
from mltoolkit.tune.execution._trial_actor import TrialActor
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.util.placement_group import PlacementGroup, remove_placement_group
from mltoolkit.util.scheduling_strategies import PlacementGroupSchedulingStrategy

__all__ = ["Slot", "SlotPool"]

logger = logging.getLogger(__name__)

_TOTALS_FOR_S = 1.0
_WARN_S = 30.0


class Slot:
    """One process, with the resources of a trial.

    Attributes
    ----------
    actor : ActorHandle
    resources : PlacementGroupFactory
    trial : Trial or None
        The one that it runs or will run; None when it is idle.
    info : SlotInfo or None
        None until it has its resources.
    at_rest : bool
        Whether its trial waits for a decision.
    """

    def __init__(self, resources: PlacementGroupFactory, actor: Any, group: PlacementGroup | None) -> None:
        self.resources = resources
        self.actor = actor
        self.trial: Trial | None = None
        self.info: SlotInfo | None = None
        self.at_rest = False
        self._group = group

    @property
    def is_idle(self) -> bool:
        """Whether a trial may be put here."""
        return self.trial is None and self.info is not None

    def close(self) -> None:
        """End the process and give its resources back."""
        mltoolkit.kill(self.actor)
        if self._group is not None:
            remove_placement_group(self._group)


class SlotPool:
    """Opens and closes slots within what the cluster has.

    Parameters
    ----------
    marker : StorageMarker
    name : str
        Of the trainable.
    """

    def __init__(self, marker: StorageMarker, name: str) -> None:
        self._marker = marker
        self._environments = registry.registered_for_trials()
        self._slots: list[Slot] = []
        self._used: Counter[str] = Counter()
        """What the slots hold: kept up to date rather than summed, since each result asks for it."""
        self._totals: dict[str, float] = {}
        self._totals_until = 0.0
        self._starved_since = time.monotonic()
        self._warned = False
        # A class of the trainable's name: what trials print is shown under it.
        self._actor_class = mltoolkit.remote(type(name, (TrialActor,), {"__doc__": TrialActor.__doc__}))
        self.limit: int | None = None
        """Slots at a time; local mode has one, since all run in the driver."""

    def __iter__(self) -> Any:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def idle(self, resources: PlacementGroupFactory) -> Slot | None:
        """An idle slot with these resources."""
        return next((s for s in self._slots if s.is_idle and s.resources == resources), None)

    def has_room(self, resources: PlacementGroupFactory) -> bool:
        """Whether another slot with these resources fits into the cluster.

        The first one always does: the runtime refuses what can never be had, and a cluster that grows by itself has to
        be asked.
        """
        if not self._slots:
            return True
        if self.limit is not None and len(self._slots) >= self.limit:
            return False
        totals = self.totals()
        return all(
            self._used[name] + amount <= totals.get(name, 0) + 1e-9
            for name, amount in resources.required_resources.items()
        )

    def usage(self) -> str:
        """What the slots hold of the cluster: ``"Resources in use: 2 of 4 CPU"``."""
        totals = self.totals()
        parts = [
            f"{amount:g} of {totals.get(name, 0):g} {name}" for name, amount in sorted(self._used.items()) if amount
        ]
        return f"Resources in use: {', '.join(parts)}" if parts else ""

    def totals(self) -> dict[str, float]:
        """The cluster's resources, asked for at most once a second."""
        if time.monotonic() >= self._totals_until:
            self._totals = mltoolkit.cluster_resources()
            self._totals_until = time.monotonic() + _TOTALS_FOR_S
        return self._totals

    def warn_if_starved(self) -> None:
        """Say once what all trials wait for, when others have held it for long."""
        waiting = [slot for slot in self._slots if slot.info is None and slot.trial is not None]
        now = time.monotonic()
        if len(waiting) < len(self._slots) or not waiting:
            self._starved_since = now
        elif now - self._starved_since > _WARN_S and not self._warned:
            self._warned = True
            logger.warning(
                "No trial could start for %d s: each asks for %s, and of %s others hold all but %s. "
                "Trials start as soon as that changes.",
                _WARN_S,
                waiting[0].resources.required_resources,
                self.totals(),
                mltoolkit.available_resources(),
            )

    def open(self, resources: PlacementGroupFactory) -> Slot:
        """Ask for a process."""
        bundles = resources.bundles
        group = None
        own = bundles[0]
        options: dict[str, Any] = {
            "num_cpus": own.get("CPU", 0),
            "num_gpus": own.get("GPU", 0),
            "resources": {k: v for k, v in own.items() if k not in ("CPU", "GPU", "memory")},
        }
        if own.get("memory"):
            options["memory"] = own["memory"]
        if len(bundles) > 1:
            # What the trial starts goes into its own group, so that nested work never waits for other trials.
            group = resources.to_placement_group()
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group,
                placement_group_bundle_index=-1 if resources.head_bundle_is_empty else 0,
                placement_group_capture_child_tasks=True,
            )
        actor = self._actor_class.options(**options).remote(
            self._marker, self._environments, os.getpid(), socket.gethostname()
        )
        slot = Slot(resources, actor, group)
        self._slots.append(slot)
        self._used.update(resources.required_resources)
        return slot

    def close(self, slot: Slot) -> None:
        """Close a slot; one that is closed already is left alone."""
        if slot in self._slots:
            self._slots.remove(slot)
            self._used.subtract(slot.resources.required_resources)
            slot.close()

    def close_all(self) -> None:
        """Close what is open."""
        for slot in list(self._slots):
            self.close(slot)

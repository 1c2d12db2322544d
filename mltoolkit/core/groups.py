"""Placement groups of a session; the caller holds the head's lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mltoolkit import exceptions
from mltoolkit.core import serialization
from mltoolkit.core.ids import new_id
from mltoolkit.core.ledger import Resources
from mltoolkit.core.serialization import Payload

if TYPE_CHECKING:
    from mltoolkit.core.head import Head


@dataclass
class GroupState:
    """One placement group."""

    group_id: bytes
    bundles: list[Resources]
    strategy: str
    name: str
    state: str = "PENDING"
    payload: Payload | None = None
    ready_ids: list[bytes] = field(default_factory=list)
    waiters: list[Callable[[bool], None]] = field(default_factory=list)


class GroupManager:
    """Create, reserve and remove placement groups."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.groups: dict[bytes, GroupState] = {}

    def create(self, bundles: list[Resources], strategy: str, name: str, payload: Payload, group_id: bytes) -> None:
        """Register a group and reserve it as soon as all its bundles fit."""
        if name and any(g.name == name and g.state != "REMOVED" for g in self.groups.values()):
            raise ValueError(f"The name {name!r} is taken by another placement group.")
        self.groups[group_id] = GroupState(group_id, bundles, strategy, name, payload=payload)
        self.try_reserve()

    def try_reserve(self) -> None:
        """Reserve what is pending and fits now."""
        for group in self.groups.values():
            if group.state != "PENDING":
                continue
            if self.head.ledger.place_bundles(group.bundles, group.strategy, totals=True) is None:
                if not self.head.may_grow:
                    group.state = "INFEASIBLE"
                    self._answer(group)
                continue
            if self.head.reserve_group(group):
                group.state = "CREATED"
                self._answer(group)

    def _answer(self, group: GroupState) -> None:
        payload = group.payload
        if group.state == "INFEASIBLE":
            payload = serialization.error_payload(self.infeasible_error(group))
        elif group.state == "REMOVED":
            payload = serialization.error_payload(
                exceptions.TaskPlacementGroupRemoved("The placement group was removed before it was ready.")
            )
        assert payload is not None
        for object_id in group.ready_ids:
            self.head.objects.resolve(object_id, payload)
            self.head.objects.drop(object_id)
        group.ready_ids = []
        waiters, group.waiters = group.waiters, []
        for waiter in waiters:
            waiter(group.state == "CREATED")

    def infeasible_error(self, group: GroupState) -> Exception:
        """Return the error that says why a group can never be placed."""
        return exceptions.TaskUnschedulableError(
            f"The placement group asks for {group.bundles} with strategy {group.strategy}, which these nodes can never offer: "
            f"{self.head.ledger.largest()}. Ask for less, or start more nodes."
        )

    def ready_ref(self, group_id: bytes) -> bytes:
        """Return a new object, held once for the caller, that is ready when the group is."""
        object_id = new_id()
        group = self.groups.get(group_id)
        self.head.objects.create(object_id, 2)
        if group is None:
            gone = exceptions.TaskPlacementGroupRemoved("The placement group does not exist in this session.")
            self.head.objects.resolve(object_id, serialization.error_payload(gone))
            self.head.objects.drop(object_id)
            return object_id
        group.ready_ids.append(object_id)
        if group.state != "PENDING":
            self._answer(group)
        return object_id

    def on_settled(self, group_id: bytes, callback: Callable[[bool], None]) -> None:
        """Call back when a group is ready, or never will be."""
        group = self.groups.get(group_id)
        if group is None or group.state != "PENDING":
            callback(group is not None and group.state == "CREATED")
        else:
            group.waiters.append(callback)

    def remove(self, group_id: bytes) -> None:
        """Remove a group; what runs in it is killed, what waits for it fails."""
        group = self.groups.get(group_id)
        if group is None or group.state == "REMOVED":
            return
        group.state = "REMOVED"
        self._answer(group)
        head = self.head
        for record in list(head.pool.records.values()):
            allocation = record.allocation
            if allocation is None or allocation.bundle is None or allocation.bundle[0] != group_id:
                continue
            if record.actor is not None:
                gone = exceptions.ActorPlacementGroupRemoved("The placement group of the actor was removed.")
                head.actors._die(record.actor, serialization.error_payload(gone))
            elif record.spec is not None:
                gone_task = exceptions.TaskPlacementGroupRemoved("The placement group of the task was removed.")
                head.tasks.fail(record.spec, serialization.error_payload(gone_task))
                head.pool.kill(record, "its placement group was removed")
        for demand in list(head.tasks.queues):
            inside = getattr(demand.strategy, "placement_group", None)
            if inside is not None and inside.id_bytes == group_id:
                gone_task = exceptions.TaskPlacementGroupRemoved("The placement group of the task was removed.")
                for spec in list(head.tasks.queues.pop(demand)):
                    head.tasks.fail(spec, serialization.error_payload(gone_task))
        head.ledger.remove_group(group_id)
        self.try_reserve()
        head.tasks.dispatch()

    @staticmethod
    def inherited(strategy: Any) -> Any:
        """Return what a task inside a group tells its children: the group, and whether they go there too."""
        return (strategy.placement_group, bool(strategy.placement_group_capture_child_tasks))

    def by_name(self, name: str) -> tuple[bytes, list[Resources], str]:
        """Return a group's id, bundles and strategy."""
        for group in self.groups.values():
            if group.name == name and group.state != "REMOVED":
                return group.group_id, group.bundles, group.strategy
        raise ValueError(f"There is no placement group named {name!r}.")

    def table(self) -> dict[str, Any]:
        """Return all groups as plain data."""
        out = {}
        for group in self.groups.values():
            placed = self.head.ledger.groups.get(group.group_id)
            out[group.group_id.hex()] = {
                "placement_group_id": group.group_id.hex(),
                "name": group.name,
                "strategy": group.strategy,
                "state": "PENDING" if group.state == "INFEASIBLE" else group.state,
                "bundles": dict(enumerate(group.bundles)),
                "bundles_to_node_id": {i: pool.node_id for i, pool in enumerate(placed.pools)} if placed else {},
            }
        return out

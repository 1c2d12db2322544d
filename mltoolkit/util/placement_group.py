"""Placement groups: bundles of resources that are reserved together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mltoolkit.core import serialization, task_context
from mltoolkit.core.backend import require_backend
from mltoolkit.core.ids import new_id
from mltoolkit.core.object_ref import ObjectRef

__all__ = [
    "PlacementGroup",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroup:
    """A handle of a placement group; made by `placement_group`.

    Attributes
    ----------
    id : str
        Hex id.
    bundle_specs : list of dict
        The bundles.
    """

    def __init__(self, id_bytes: bytes, bundles: Sequence[Mapping[str, float]]) -> None:
        self.id_bytes = id_bytes
        self.bundle_specs = [dict(bundle) for bundle in bundles]

    @property
    def id(self) -> str:
        """Hex id."""
        return self.id_bytes.hex()

    @property
    def bundle_count(self) -> int:
        """Number of bundles."""
        return len(self.bundle_specs)

    @property
    def is_empty(self) -> bool:
        """Whether this names no group."""
        return not self.bundle_specs

    def ready(self) -> ObjectRef:
        """Return a reference that is ready when all bundles are reserved; its value is this group."""
        backend = require_backend()
        return ObjectRef(backend.query("group_ready_ref", self.id_bytes), backend)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait until all bundles are reserved.

        Parameters
        ----------
        timeout_seconds : float, default=30
            How long to wait at most.

        Returns
        -------
        bool
            False if the time has passed, or the group can never be placed.
        """
        return bool(require_backend().query("group_wait", self.id_bytes, timeout_seconds))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id_bytes == other.id_bytes

    def __hash__(self) -> int:
        return hash(self.id_bytes)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id}, {self.bundle_specs})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (PlacementGroup, (self.id_bytes, self.bundle_specs))


def placement_group(
    bundles: Sequence[Mapping[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
) -> PlacementGroup:
    """Reserve bundles of resources, all or none, asynchronously.

    Parameters
    ----------
    bundles : list of dict of str to float
        Resources such as ``{"CPU": 1, "GPU": 0.5}``.
    strategy : {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"}, default="PACK"
        On few nodes, on many, on one, each on its own.
    name : str, default=""
        For `get_placement_group`.
    lifetime : {None}
        ``"detached"`` is not offered: a group ends with its session.

    Returns
    -------
    PlacementGroup
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
    if not isinstance(bundles, (list, tuple)) or not bundles:
        raise ValueError(f"`bundles` must be a non-empty list of dicts such as [{{'CPU': 1}}], got {bundles!r}.")
    if lifetime is not None:
        raise NotImplementedError(
            "placement_group() does not offer `lifetime='detached'`; a group ends with its session."
        )
    checked = []
    for bundle in bundles:
        if not isinstance(bundle, Mapping) or not bundle:
            raise ValueError(f"Each bundle must be a non-empty dict such as {{'CPU': 1}}, got {bundle!r}.")
        amounts = {key: float(amount) for key, amount in bundle.items()}
        if any(amount < 0 for amount in amounts.values()) or not any(amounts.values()):
            raise ValueError(f"Amounts in a bundle must be >= 0 and one of them > 0, got {bundle!r}.")
        checked.append({key: amount for key, amount in amounts.items() if amount})
    backend = require_backend()
    group = PlacementGroup(new_id(), checked)
    payload = serialization.serialize(group, None)
    backend.query("group_create", checked, strategy, name, payload, group.id_bytes)
    return group


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Remove a group; tasks and actors that run in it are killed.

    Parameters
    ----------
    placement_group : PlacementGroup
        Which.
    """
    require_backend().query("group_remove", placement_group.id_bytes)


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """Return a group by its name; ValueError if there is none."""
    if not placement_group_name:
        raise ValueError("`placement_group_name` must be a non-empty string.")
    group_id, bundles, _ = require_backend().query("group_by_name", placement_group_name)
    return PlacementGroup(group_id, bundles)


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """Return the state of one group, or of all by id."""
    table: dict[str, Any] = require_backend().query("group_table")
    return table if placement_group is None else table.get(placement_group.id, {})


def get_current_placement_group() -> PlacementGroup | None:
    """Return the group that the running task or actor is in; None if it is in none."""
    current = task_context.current().placement_group
    return current[0] if current else None

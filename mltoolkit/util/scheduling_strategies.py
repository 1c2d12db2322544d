"""Where tasks and actors may run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.util.placement_group import PlacementGroup

__all__ = ["NodeAffinitySchedulingStrategy", "PlacementGroupSchedulingStrategy"]


@dataclass(frozen=True)
class PlacementGroupSchedulingStrategy:
    """Run inside a placement group, with nothing but its resources.

    Parameters
    ----------
    placement_group : PlacementGroup or None
        The group; None leaves the group that the caller runs in.
    placement_group_bundle_index : int, default=-1
        Which bundle; -1 for whichever has room.
    placement_group_capture_child_tasks : bool or None, default=None
        Whether tasks and actors submitted from inside go into the group too.
    """

    placement_group: PlacementGroup | None
    placement_group_bundle_index: int = -1
    placement_group_capture_child_tasks: bool | None = None


@dataclass(frozen=True)
class NodeAffinitySchedulingStrategy:
    """Run on one node.

    Parameters
    ----------
    node_id : str
        As in ``nodes()`` and ``get_runtime_context().get_node_id()``.
    soft : bool
        True: elsewhere if the node is gone or can never hold it.  False: an error then.
    """

    node_id: str
    soft: bool = False

    def __post_init__(self) -> None:
        value: Any = self.node_id
        if not isinstance(value, str) or not value:
            raise ValueError(f"`node_id` must be a node's id as in `nodes()`, got {value!r}.")

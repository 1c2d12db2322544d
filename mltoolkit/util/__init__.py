"""Tools on top of tasks and actors, under the names of ``ray.util``.

Everything is imported at first use, so that ``import mltoolkit`` stays fast and no module here can be part of an
import cycle.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.core.api import list_named_actors
    from mltoolkit.util import multiprocessing, queue, scheduling_strategies
    from mltoolkit.util._node import get_node_ip_address
    from mltoolkit.util.actor_pool import ActorPool
    from mltoolkit.util.check_serialize import inspect_serializability
    from mltoolkit.util.debug import disable_log_once_globally, enable_periodic_logging, log_once
    from mltoolkit.util.helpers import as_completed, map_unordered
    from mltoolkit.util.placement_group import (
        get_current_placement_group,
        get_placement_group,
        placement_group,
        placement_group_table,
        remove_placement_group,
    )
    from mltoolkit.util.preloading import preload_modules
    from mltoolkit.util.seeding import seed_everything
    from mltoolkit.util.serialization import deregister_serializer, register_serializer

__all__ = [
    "ActorPool",
    "as_completed",
    "deregister_serializer",
    "disable_log_once_globally",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "multiprocessing",
    "placement_group",
    "placement_group_table",
    "preload_modules",
    "queue",
    "register_serializer",
    "remove_placement_group",
    "scheduling_strategies",
    "seed_everything",
]

_HOME = {
    "ActorPool": "mltoolkit.util.actor_pool",
    "as_completed": "mltoolkit.util.helpers",
    "deregister_serializer": "mltoolkit.util.serialization",
    "disable_log_once_globally": "mltoolkit.util.debug",
    "enable_periodic_logging": "mltoolkit.util.debug",
    "get_current_placement_group": "mltoolkit.util.placement_group",
    "get_node_ip_address": "mltoolkit.util._node",
    "get_placement_group": "mltoolkit.util.placement_group",
    "inspect_serializability": "mltoolkit.util.check_serialize",
    "list_named_actors": "mltoolkit.core.api",
    "log_once": "mltoolkit.util.debug",
    "map_unordered": "mltoolkit.util.helpers",
    "placement_group": "mltoolkit.util.placement_group",
    "placement_group_table": "mltoolkit.util.placement_group",
    "preload_modules": "mltoolkit.util.preloading",
    "register_serializer": "mltoolkit.util.serialization",
    "remove_placement_group": "mltoolkit.util.placement_group",
    "seed_everything": "mltoolkit.util.seeding",
}
_SUBMODULES = frozenset(
    {
        "actor_pool",
        "check_serialize",
        "dask",
        "debug",
        "helpers",
        "joblib",
        "multiprocessing",
        "queue",
        "scheduling_strategies",
        "seeding",
        "serialization",
    }
)


class _UtilModule(types.ModuleType):
    """Lets ``placement_group`` be a function here and a module in ``import`` statements.

    Importing a submodule binds it as an attribute of its package, which would hide the function of the same name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "placement_group" and isinstance(value, types.ModuleType):
            value = value.placement_group
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _UtilModule


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})

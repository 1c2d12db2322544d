"""Ray's programming model and ML libraries on Dask.

Layers, each of which may import only what stands below it::

    tune, train, rllib, xgboost, lightgbm, lightning, util     libraries: this facade alone
    mltoolkit                                                  the facade: re-exports only
    mltoolkit.core                                             the runtime
    dask, distributed                                          the engine
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mltoolkit import actor, exceptions
from mltoolkit.core.actor import method
from mltoolkit.core.api import (
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_actor,
    get_gpu_ids,
    kill,
    nodes,
    put,
    remote,
    wait,
)
from mltoolkit.core.lifecycle import init, is_initialized, shutdown
from mltoolkit.core.object_ref import DynamicObjectRefGenerator, ObjectRef, ObjectRefGenerator
from mltoolkit.core.runtime_context import get_runtime_context

if TYPE_CHECKING:
    from mltoolkit import util

__version__ = "0.1.0"

__all__ = [
    "DynamicObjectRefGenerator",
    "ObjectRef",
    "ObjectRefGenerator",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "util",
    "wait",
]


def __getattr__(name: str) -> Any:
    # Libraries load at first use: the facade itself stays light.
    if name in ("util", "compat", "tune", "train", "rllib", "xgboost", "lightgbm", "lightning", "data", "serve"):
        import importlib

        try:
            return importlib.import_module(f"mltoolkit.{name}")
        except ModuleNotFoundError as error:
            if error.name == f"mltoolkit.{name}":
                raise AttributeError(f"mltoolkit {__version__} has no module {name!r}.") from None
            raise
    raise AttributeError(f"module 'mltoolkit' has no attribute {name!r}")

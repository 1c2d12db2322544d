"""Lightning's Trainer on workers of this runtime: what ``ray_lightning`` was, for Lightning 2.

::

    trainer = Trainer(strategy=RayStrategy(num_workers=2))
    trainer.fit(model, loader)       # in a script without a main guard, or in a notebook
    model                            # has the trained weights

Both packages are supported, ``lightning`` and ``pytorch_lightning``: strategies are made for the one that the program
uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.lightning.ray_ddp import RayPlugin, RayStrategy
    from mltoolkit.lightning.ray_ddp_sharded import RayShardedPlugin, RayShardedStrategy
    from mltoolkit.lightning.ray_horovod import HorovodRayPlugin, HorovodRayStrategy

__all__ = [
    "HorovodRayPlugin",
    "HorovodRayStrategy",
    "RayPlugin",
    "RayShardedPlugin",
    "RayShardedStrategy",
    "RayStrategy",
]

_HOME = {
    "HorovodRayPlugin": "ray_horovod",
    "HorovodRayStrategy": "ray_horovod",
    "RayPlugin": "ray_ddp",
    "RayShardedPlugin": "ray_ddp_sharded",
    "RayShardedStrategy": "ray_ddp_sharded",
    "RayStrategy": "ray_ddp",
}
_SUBMODULES = frozenset({"ray_ddp", "ray_ddp_sharded", "ray_horovod", "tune"})


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

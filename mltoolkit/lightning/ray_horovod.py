"""Training by ring all-reduce, as Horovod does it."""

from __future__ import annotations

import logging
from typing import Any

from mltoolkit.lightning.ray_ddp import RayPlugin, RayStrategy

__all__ = ["HorovodRayPlugin", "HorovodRayStrategy"]

logger = logging.getLogger(__name__)


class HorovodRayStrategy(RayStrategy):
    """Trains copies of a model on workers and averages their gradients by ring all-reduce.

    Horovod itself is not used, whether it is installed or not: its last release does not build with today's torch, and
    Lightning 2 has no hooks for it. What it does is what torch does here: parameters are broadcast from rank 0 once, then
    each step averages the gradients by all-reduce, in buckets while the backward pass goes on, over rings of gloo on
    CPUs and of NCCL on GPUs. Losses are the same.

    Parameters
    ----------
    num_workers, num_cpus_per_worker, use_gpu, init_hook, resources_per_worker, **ddp_kwargs
        As for :class:`RayStrategy`.
    """

    strategy_name = "horovod_ray"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        logger.info(
            "%s averages gradients by torch's own ring all-reduce (%s), in place of Horovod's.",
            type(self).__name__,
            self.chosen_backend,
        )


class HorovodRayPlugin(HorovodRayStrategy, RayPlugin):
    """:class:`HorovodRayStrategy` under its older name, for ``Trainer(plugins=[HorovodRayPlugin(...)])``."""

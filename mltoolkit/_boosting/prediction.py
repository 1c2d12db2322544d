"""The driver of a prediction."""

from __future__ import annotations

from typing import Any

import numpy as np

import mltoolkit
from mltoolkit._boosting.errors import ActorFailure
from mltoolkit._boosting.group import ActorGroup, is_lost
from mltoolkit._boosting.library import Library
from mltoolkit._boosting.matrix import RayDMatrix
from mltoolkit._boosting.params import RayParams
from mltoolkit._boosting.resources import plan_resources
from mltoolkit._boosting.runtime import light_start
from mltoolkit.util.preloading import preload_modules

__all__ = ["run_prediction"]


def run_prediction(
    library: Library,
    params: RayParams,
    data: RayDMatrix,
    model: Any,
    arguments: dict[str, Any],
    *,
    wants_gpu: bool = False,
) -> np.ndarray:
    """Predict a dataset, each actor its shard.

    Parameters
    ----------
    library : Library
    params : RayParams
        Checked.
    data : RayDMatrix
    model : object
        What ``RankLibrary.predict`` takes.
    arguments : dict
        For ``RankLibrary.predict``.
    wants_gpu : bool, default=False
        Whether each actor should get a GPU if the parameters leave it open.

    Returns
    -------
    ndarray
        In the order of the rows; for files and partitions, in the order in which they were named.

    Raises
    ------
    RuntimeError
        The library's training error, if actors are lost more often than ``max_actor_restarts`` allows.
    """
    preload_modules(*library.preload)
    with light_start(library.module):
        resources = plan_resources(params, wants_gpu=wants_gpu, logger=library.logger)
    restarts = 0
    with ActorGroup(library, params, resources, [data], full_import=False) as group:
        while True:
            try:
                group.start()
                return _predict(group, data, model, arguments)
            except ActorFailure as failure:
                group.drop(failure.ranks)
                if 0 <= params.max_actor_restarts <= restarts:
                    raise library.training_error(
                        f"Prediction lost an actor and max_actor_restarts={params.max_actor_restarts}: {failure}"
                    ) from failure.__cause__
                restarts += 1
                if not all(group.bundle_is_left(rank) for rank in failure.ranks):
                    group.move(plan_resources(params, wants_gpu=wants_gpu, logger=library.logger))
                library.logger.warning("[%s] Prediction lost an actor and is repeated: %s", library.name, failure)


def _predict(group: ActorGroup, data: RayDMatrix, model: Any, arguments: dict[str, Any]) -> np.ndarray:
    about = group.datasets()[data.uid]
    model_ref = mltoolkit.put(model)
    calls = {
        rank: actor.predict.remote(model_ref, data.uid, about, arguments)
        for rank, actor in sorted(group.actors.items())
    }
    parts, lost = [], {}
    for rank, ref in calls.items():
        try:
            parts.append(mltoolkit.get(ref))
        except Exception as error:
            if not is_lost(error):
                group.raise_unwrapped(error)
            lost[rank] = error
    if lost:
        rank, first = min(lost.items())
        raise ActorFailure(tuple(lost), f"rank {rank}: {first}") from first
    return data.in_order(parts, group.places(data))

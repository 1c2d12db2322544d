"""Sweeps over Trainers with workers."""

from __future__ import annotations

from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.integration.pytorch_lightning import TuneReportCallback, TuneReportCheckpointCallback

__all__ = ["TuneReportCallback", "TuneReportCheckpointCallback", "get_tune_resources"]


def get_tune_resources(
    num_workers: int = 1,
    num_cpus_per_worker: float = 1,
    use_gpu: bool = False,
    cpus_per_worker: float | None = None,
) -> PlacementGroupFactory:
    """Resources of a trial whose function trains with a strategy of this package.

    Parameters
    ----------
    num_workers, num_cpus_per_worker, use_gpu
        As for the strategy.
    cpus_per_worker : float, optional
        Older name of `num_cpus_per_worker`.

    Returns
    -------
    PlacementGroupFactory
        For ``tune.with_resources``, or `resources_per_trial` of ``tune.run``. The trial's own process waits while its
        workers train, and asks for nothing.

    Examples
    --------
    >>> get_tune_resources(num_workers=2).required_resources
    {'CPU': 2.0}
    """
    worker: dict[str, float] = {"CPU": num_cpus_per_worker if cpus_per_worker is None else cpus_per_worker}
    if use_gpu:
        worker["GPU"] = 1
    return PlacementGroupFactory([{}, *[dict(worker) for _ in range(num_workers)]])

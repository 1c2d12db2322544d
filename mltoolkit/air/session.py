"""Reporting, as programs for Ray 2.0 to 2.6 write it: ``session.report(...)``."""

from __future__ import annotations

from typing import Any

from mltoolkit.train._session import get_checkpoint, get_context, get_dataset_shard, report

__all__ = [
    "get_checkpoint",
    "get_dataset_shard",
    "get_experiment_name",
    "get_local_rank",
    "get_local_world_size",
    "get_node_rank",
    "get_trial_dir",
    "get_trial_id",
    "get_trial_name",
    "get_trial_resources",
    "get_world_rank",
    "get_world_size",
    "report",
]


def get_experiment_name() -> str:
    """Name of the experiment that the running trial belongs to."""
    return get_context().get_experiment_name()


def get_trial_name() -> str:
    """Name of the running trial."""
    return get_context().get_trial_name()


def get_trial_id() -> str:
    """Id of the running trial."""
    return get_context().get_trial_id()


def get_trial_resources() -> Any:
    """Resources of the running trial, as a PlacementGroupFactory."""
    return get_context().get_trial_resources()


def get_trial_dir() -> str:
    """Folder of the running trial."""
    return get_context().get_trial_dir()


def get_world_size() -> int:
    """Number of workers of the running training function."""
    return get_context().get_world_size()


def get_world_rank() -> int:
    """Number of this worker among all."""
    return get_context().get_world_rank()


def get_local_rank() -> int:
    """Number of this worker among those on its node."""
    return get_context().get_local_rank()


def get_local_world_size() -> int:
    """Number of workers on this node."""
    return get_context().get_local_world_size()


def get_node_rank() -> int:
    """Number of this node among those that have workers."""
    return get_context().get_node_rank()

"""Which checkpoints of a trial are kept."""

from __future__ import annotations

import math
from typing import Any

from mltoolkit.train import Checkpoint, CheckpointConfig
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.search._nested import lookup

__all__ = ["surplus_checkpoints"]


def surplus_checkpoints(trial: Trial, config: CheckpointConfig) -> list[Checkpoint]:
    """The checkpoints beyond those to keep.

    The best ones by the configured score are kept, by default the most recent, and always the latest: a trial that
    fails goes on from there.

    Parameters
    ----------
    trial : Trial
    config : CheckpointConfig
        ``num_to_keep``, ``checkpoint_score_attribute``, ``checkpoint_score_order``.

    Returns
    -------
    list of Checkpoint
        Worst first.
    """
    if config.num_to_keep is None or len(trial.checkpoints) <= config.num_to_keep:
        return []
    ranked = list(trial.checkpoints)
    if config.checkpoint_score_attribute is not None:
        ranked.sort(key=lambda kept: _score(kept[1], config))
    latest = trial.checkpoint
    surplus = [checkpoint for checkpoint, _ in ranked[: -config.num_to_keep]]
    return [checkpoint for checkpoint in surplus if checkpoint is not latest]


def _score(metrics: dict[str, Any], config: CheckpointConfig) -> float:
    """Higher is better; a checkpoint without the metric is the first to go."""
    value = lookup(metrics, config.checkpoint_score_attribute or "")
    if not isinstance(value, (int, float)) or math.isnan(value):
        return -math.inf
    return float(value) if config.checkpoint_score_order == "max" else -float(value)

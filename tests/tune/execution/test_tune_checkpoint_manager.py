"""Which checkpoints are kept: the best, the newest among equals, and always the latest."""

from __future__ import annotations

import math

import pytest

from mltoolkit.train import Checkpoint, CheckpointConfig
from mltoolkit.tune.execution._checkpoint_manager import surplus_checkpoints
from mltoolkit.tune.experiment.trial import Trial

NAN = math.nan

CASES = [
    # scores in order of time, num_to_keep, attribute, order, numbers of those to delete, worst first
    ([1, 2, 3], None, None, "max", []),
    ([1, 2, 3], 3, None, "max", []),
    ([1, 2, 3], 1, None, "max", [0, 1]),
    ([9, 1, 5], 2, None, "max", [0]),
    ([9, 1, 5], 2, "y", "max", [1]),
    ([9, 1, 5], 2, "y", "min", [0]),
    ([9, 8, 1], 2, "y", "max", []),  # the latest is the worst, and kept beside the two best
    ([9, 8, 1], 1, "y", "max", [1]),
    ([5, NAN, 1, 3], 2, "y", "max", [1, 2]),
    ([5, NAN, 1, 3], 2, "y", "min", [1, 0]),
    ([5, None, 1, 3], 2, "y", "max", [1, 2]),
    ([5, "text", 1, 3], 2, "y", "min", [1, 0]),
    ([2, 2, 2, 2], 2, "y", "max", [0, 1]),  # of equals the older go
    ([NAN, NAN], 1, "y", "max", [0]),
]


@pytest.mark.parametrize(("scores", "keep", "attribute", "order", "deleted"), CASES)
def test_surplus(scores, keep, attribute, order, deleted):
    trial = Trial("id", "f", {})
    for i, score in enumerate(scores):
        trial.add_checkpoint(Checkpoint(f"/c/{i}"), {} if score is None else {"y": score})
    config = CheckpointConfig(num_to_keep=keep, checkpoint_score_attribute=attribute, checkpoint_score_order=order)
    assert [int(c.path[3:]) for c in surplus_checkpoints(trial, config)] == deleted


def test_nested_scores():
    trial = Trial("id", "f", {})
    for i, score in enumerate([1, 7, 3]):
        trial.add_checkpoint(Checkpoint(f"/c/{i}"), {"eval": {"y": score}})
    config = CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="eval/y")
    assert [c.path for c in surplus_checkpoints(trial, config)] == ["/c/0"]

"""Checkpoints under the path that older programs import them from."""

from mltoolkit.train._checkpoint import Checkpoint

__all__ = ["Checkpoint"]

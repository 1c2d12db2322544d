"""What learners of a group tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Collective"]


class Collective(Protocol):
    """Operations that all learners of a group make together, in the same order.

    Each ends with an error within the group's timeout if a learner is gone.
    """

    rank: int
    world_size: int

    def broadcast(self, tensor: Any) -> None:
        """Replace a tensor by the first learner's."""

    def average(self, tensor: Any) -> None:
        """Replace a tensor by its mean over the learners."""

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sum numbers over the learners, in double precision."""

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each number over the learners."""

    def close(self) -> None:
        """Leave the group."""

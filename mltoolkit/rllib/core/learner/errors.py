"""What goes wrong in a learner."""

from __future__ import annotations

__all__ = ["LearnerDiedError", "NonFiniteLossError"]


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient became NaN or infinite.

    Attributes
    ----------
    module_id : str
        The module that was updated.
    part : str
        The first part of the loss that is not finite, by its name in results.
    iteration : int
        The learner's update in which it happened, from 1.
    """

    def __init__(self, module_id: str, part: str, iteration: int, detail: str) -> None:
        super().__init__(module_id, part, iteration, detail)
        self.module_id = module_id
        self.part = part
        self.iteration = iteration
        self.detail = detail

    def __str__(self) -> str:
        return (
            f"`{self.part}` of {self.module_id!r} is not finite in the learner's update {self.iteration}: {self.detail}"
        )


class LearnerDiedError(RuntimeError):
    """A learner of a group of several is gone, so that the others can not go on."""

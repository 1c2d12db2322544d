"""What a training run that fails raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ControllerError", "NotEnoughResourcesError", "TrainingFailedError", "WorkerGroupError"]


class TrainingFailedError(RuntimeError):
    """``fit`` of a trainer has failed; the cause is chained."""


class NotEnoughResourcesError(TrainingFailedError):
    """The session can never offer what the workers ask for."""


class WorkerGroupError(TrainingFailedError):
    """Workers of a training run have failed.

    Attributes
    ----------
    worker_failures : dict of int to BaseException
        By world rank: the exceptions that workers raised, as they were there, or how their processes died. Failures
        that merely followed from another one's, such as connections that broke, are left out.
    """

    def __init__(self, error_message: str, worker_failures: Mapping[int, BaseException] | None = None) -> None:
        super().__init__(error_message)
        self.error_message = error_message
        self.worker_failures = dict(worker_failures or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.error_message, self.worker_failures))


class ControllerError(TrainingFailedError):
    """What directs the workers has failed.

    Attributes
    ----------
    controller_failure : BaseException
    """

    def __init__(self, controller_failure: BaseException) -> None:
        super().__init__(f"The training run could not be directed: {controller_failure}")
        self.controller_failure = controller_failure

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.controller_failure,))

"""What a failed call of ``Parallel`` looks like on the driver."""

from __future__ import annotations

from typing import Any

from mltoolkit.exceptions import WorkerCrashedError


class RemoteTraceback(Exception):
    """Where an exception was raised: the ``__cause__`` of an exception that came from a batch.

    Parameters
    ----------
    text : str
        Call, process and traceback.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class CallLostError(WorkerCrashedError):
    """A call was lost together with its process, and again when it was repeated alone.

    Parameters
    ----------
    index : int
        Position of the call in what ``Parallel`` was given, from 0.
    function : str
        Name of the function.
    cause : str
        How the process ended.
    """

    def __init__(self, index: int, function: str, cause: str) -> None:
        super().__init__(index, function, cause)
        self.index = index
        self.function = function
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"Call {self.index} of this Parallel, `{self.function}`, was lost with its process, and lost again when it "
            f"was repeated alone: {self.cause}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.index, self.function, self.cause))

"""What a training function returns, on its way from the process of the trial to the program."""

from __future__ import annotations

import uuid
from typing import Any

import mltoolkit

__all__ = ["ReturnedValue", "leave"]


class _Holder:
    """Keeps a value when the process that it comes from has ended."""

    def __init__(self) -> None:
        self._value: Any = None

    def set(self, value: Any) -> None:
        self._value = value

    def get(self) -> Any:
        return self._value


class ReturnedValue:
    """Waits for a value that another process leaves; a context manager.

    Attributes
    ----------
    key : str
        For :func:`leave`. A name rather than a handle, which no file could keep.
    """

    def __init__(self) -> None:
        self.key = f"train-returned-{uuid.uuid4().hex}"
        self._holder: Any = None

    def __enter__(self) -> ReturnedValue:
        # Its node may die while the training goes on elsewhere; it has nothing to lose until the end.
        options = {"name": self.key, "num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        self._holder = mltoolkit.remote(_Holder).options(**options).remote()
        return self

    def get(self) -> Any:
        """The value; None if none was left."""
        return mltoolkit.get(self._holder.get.remote())

    def __exit__(self, *exception: object) -> None:
        mltoolkit.kill(self._holder)


def leave(key: str, value: Any) -> None:
    """Leave a value for the program; None need not be left.

    Parameters
    ----------
    key : str
    value : object
    """
    if value is not None:
        mltoolkit.get(mltoolkit.get_actor(key).set.remote(value))

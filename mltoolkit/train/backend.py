"""What a framework does before and after the training function: the base for own ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.train._internal.worker_group import WorkerGroup

__all__ = ["Backend", "BackendConfig"]


class Backend:
    """Sets a framework up on the workers of a run.

    Subclasses override what they need. The methods run in the process that directs the workers and reach them through
    ``worker_group.execute(function, *args)``.

    Attributes
    ----------
    share_cuda_visible_devices : bool
        Whether the workers of a node see each other's GPUs; if not, each sees its own.

    Examples
    --------
    >>> class Greeting(Backend):
    ...     def on_start(self, worker_group, backend_config):
    ...         worker_group.execute(print, "hello")
    """

    share_cuda_visible_devices: bool = False

    def on_start(self, worker_group: WorkerGroup, backend_config: Any) -> None:
        """The workers are there and know their ranks; nothing else runs on them."""

    def on_training_start(self, worker_group: WorkerGroup, backend_config: Any) -> None:
        """Right before the training function; ``train.get_context()`` works on the workers."""

    def on_shutdown(self, worker_group: WorkerGroup, backend_config: Any) -> None:
        """The training function has returned on all workers. Not called after a failure: the workers are ended."""


class BackendConfig:
    """Configuration of a :class:`Backend`."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that is configured."""
        return Backend

    @property
    def train_func_context(self) -> Callable[[], AbstractContextManager[Any]]:
        """Makes a context manager in which the training function runs on each worker."""
        return nullcontext

    @property
    def framework(self) -> str | None:
        """Name of the framework, if it has one."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        return dict(vars(self))

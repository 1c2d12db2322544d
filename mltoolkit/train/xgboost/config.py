"""How the workers of a run become a collective of XGBoost's."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._internal.worker_group import WorkerGroup
from mltoolkit.train.backend import Backend, BackendConfig

__all__ = ["XGBoostBackend", "XGBoostConfig"]

_LOOPBACK = "127.0.0.1"

_tracker: Any = None
"""In the process of rank 0: lives as long as the collective."""
_arguments: dict[str, Any] | None = None
"""How this process joins the collective; None outside a run, and where there is one worker."""


@dataclass
class XGBoostConfig(BackendConfig):
    """Configuration of XGBoost's collective, which the training function finds set up.

    Parameters
    ----------
    xgboost_communicator : {'rabit'}, default='rabit'
        How the workers talk to each other.
    """

    xgboost_communicator: str = "rabit"

    def __post_init__(self) -> None:
        if self.xgboost_communicator != "rabit":
            raise NotImplementedError(
                f"`XGBoostConfig.xgboost_communicator` must be 'rabit', got {self.xgboost_communicator!r}: the workers of a "
                "run meet at a tracker that rank 0 runs."
            )

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that this configures."""
        return XGBoostBackend

    @property
    def train_func_context(self) -> Callable[[], AbstractContextManager[Any]]:
        """Makes the worker a member of the collective while the training function runs."""
        return _membership


class XGBoostBackend(Backend):
    """Connects the workers of a run by ``xgboost.collective``."""

    def on_training_start(self, worker_group: WorkerGroup, backend_config: XGBoostConfig) -> None:
        """Start the tracker on rank 0, on the loopback interface where all workers share a host, and tell all of it."""
        require("xgboost", purpose="XGBoostTrainer", extra="xgboost")
        if len(worker_group) == 1:
            return
        host = _LOOPBACK if worker_group.on_one_host else worker_group.workers[0].info.address
        arguments = worker_group.execute_single(0, _start_tracker, len(worker_group), host)
        worker_group.execute(_set_arguments, arguments)

    def on_shutdown(self, worker_group: WorkerGroup, backend_config: XGBoostConfig) -> None:
        """Stop the tracker."""
        if len(worker_group) > 1:
            worker_group.execute_single(0, _stop_tracker)


def _start_tracker(count: int, host: str) -> dict[str, Any]:
    from xgboost.tracker import RabitTracker

    global _tracker
    _tracker = RabitTracker(n_workers=count, host_ip=host, sortby="task")
    _tracker.start()
    return dict(_tracker.worker_args())


def _stop_tracker() -> None:
    global _tracker
    tracker, _tracker = _tracker, None
    tracker.free()


def _set_arguments(arguments: dict[str, Any]) -> None:
    global _arguments
    _arguments = arguments


@contextlib.contextmanager
def _membership() -> Iterator[None]:
    """Be a member of the collective, if there is one.

    Raises
    ------
    ConnectionError
        If it breaks because another worker is lost.
    """
    if _arguments is None:
        yield
        return
    from xgboost.core import XGBoostError

    from mltoolkit.train._session import get_context
    from mltoolkit.xgboost._collective import is_about_peers, joined

    try:
        with contextlib.ExitStack() as stack:
            # XGBoost greets the user on the standard output of the thread that has imported it.
            with contextlib.redirect_stdout(io.StringIO()):
                stack.enter_context(joined(_arguments, get_context().get_world_rank()))
            yield
    except XGBoostError as error:
        if not is_about_peers(str(error)):
            raise
        reasons = re.findall(r"^- \[.*?\]: *(.*?) *$", str(error), re.MULTILINE)
        raise ConnectionError(
            f"The connection to another worker broke: {'; '.join(reasons) or str(error).partition('Stack trace')[0].strip()}"
        ) from error

"""Being a rank of XGBoost's collective, quietly."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["is_about_peers", "joined"]

_TIMEOUT_S = 1800  # a lost rank closes its sockets and is noticed at once; this is for networks that swallow packets


@contextlib.contextmanager
def joined(arguments: Mapping[str, Any], index: int) -> Iterator[None]:
    """Belong to a collective inside the block.

    Parameters
    ----------
    arguments : dict
        From the tracker.
    index : int
        Place among the ranks. They are sorted by it, so that the same data is in the same place every time.
    """
    from xgboost import collective

    context = collective.CommunicatorContext(
        **arguments,
        dmlc_communicator="rabit",
        dmlc_task_id=f"{index:06d}",
        dmlc_timeout=_TIMEOUT_S,
        dmlc_retry=1,  # the tracker listens before anybody is told of it: who does not reach it now never will
    )
    with _quiet_stderr():  # each rank would greet the user
        context.__enter__()
    failed = True
    try:
        yield
        failed = False
    finally:
        try:
            with _quiet_stderr() if failed else contextlib.nullcontext():
                context.__exit__(None, None, None)
        except Exception:
            if not failed:  # otherwise the error under way says more
                raise


def is_about_peers(text: str) -> bool:
    """Whether a message of XGBoost's says that another rank is lost."""
    return any(
        word in text for word in ("collective", "allreduce", "tracker", "socket", "Rabit", "broadcast", "allgather")
    )


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what native code writes to the process's standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)

"""What all workers of a training run do together without the help of a framework."""

from __future__ import annotations

from typing import Any, TypeVar

from mltoolkit.train._session import current_session

__all__ = ["barrier", "broadcast_from_rank_zero"]

T = TypeVar("T")


def broadcast_from_rank_zero(data: T) -> T:
    """Give what rank 0 has to all workers; each waits for all others.

    It goes by way of the process that directs the run: for a few words of configuration, not for tensors.

    Parameters
    ----------
    data : object
        Rank 0's is sent, those of the others are not looked at.

    Returns
    -------
    object
        Rank 0's.

    Raises
    ------
    RuntimeError
        If no training function of a trainer runs in this process.
    """
    session: Any = current_session()
    exchange = getattr(session, "exchange", None)
    if exchange is None:
        raise RuntimeError(
            "`train.collective` may be used only in the training function of a trainer, which runs on its workers."
        )
    given: T = exchange(data)
    return given


def barrier() -> None:
    """Wait until all workers are here.

    Raises
    ------
    RuntimeError
        If no training function of a trainer runs in this process.
    """
    broadcast_from_rank_zero(None)

"""What code inside an actor can ask: which rank it is, and how it sends something to the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["BoostingSession", "current_session", "get_actor_rank", "get_session", "put_queue", "set_session"]


class BoostingSession:
    """The rank of this actor and its line to the driver.

    Parameters
    ----------
    rank : int
        Rank of the actor, from 0 to ``num_actors - 1``; it stays the same through restarts.
    put : callable
        Sends one message, of a kind and a value.
    """

    def __init__(self, rank: int, put: Callable[[str, Any], None]) -> None:
        self._rank = rank
        self._put = put

    def get_actor_rank(self) -> int:
        """Return the rank of this actor."""
        return self._rank

    def put_queue(self, item: Any) -> None:
        """Send an item to the driver; see :func:`put_queue`."""
        self._put("item", item)


_session: BoostingSession | None = None


def set_session(session: BoostingSession | None) -> None:
    """Make a session the one of this process."""
    global _session
    _session = session


def current_session() -> BoostingSession | None:
    """The session of this process; None outside an actor that trains."""
    return _session


def get_session() -> BoostingSession:
    """Return the session of this actor.

    Raises
    ------
    ValueError
        Outside an actor.
    """
    if _session is None:
        raise ValueError(
            "get_session() works only inside an actor that trains or predicts: call `get_actor_rank()` and `put_queue()` "
            "from callbacks, objectives and metrics, not from the program that starts them."
        )
    return _session


def get_actor_rank() -> int:
    """Return the rank of the actor that this code runs in.

    Returns
    -------
    int
        From 0 to ``num_actors - 1``.

    Raises
    ------
    ValueError
        Outside an actor.
    """
    return get_session().get_actor_rank()


def put_queue(item: Any) -> None:
    """Send something from an actor to the driver.

    A callable is called there, without arguments, as soon as it arrives. Everything else is collected in
    ``additional_results["callback_returns"][rank]`` of ``train``.

    Parameters
    ----------
    item : object
        Anything that can be pickled.

    Raises
    ------
    ValueError
        Outside an actor.
    """
    get_session().put_queue(item)

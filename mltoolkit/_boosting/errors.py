"""What can go wrong while actors train together, as the parts of this package tell each other."""

from __future__ import annotations

__all__ = ["ActorFailure", "LostPeersError"]


class LostPeersError(Exception):
    """The rank was in good order, but could not reach the others any more.

    Raised inside an actor when the library's collective breaks; the reason is with another rank.
    """


class ActorFailure(Exception):
    """One or more ranks of an attempt are lost, and it may be worth trying again.

    Parameters
    ----------
    ranks : tuple of int
        Ranks whose process is gone; empty when only the connection between them broke.
    reason : str
        What is known.
    """

    def __init__(self, ranks: tuple[int, ...], reason: str) -> None:
        super().__init__(ranks, reason)
        self.ranks = ranks
        self.reason = reason

    def __str__(self) -> str:
        return self.reason

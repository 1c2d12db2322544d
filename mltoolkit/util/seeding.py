"""Repeatable random numbers in a process."""

from __future__ import annotations

__all__ = ["seed_everything"]


def seed_everything(seed: int) -> None:
    """Seed ``random``, ``numpy.random`` and ``torch`` in this process.

    Libraries that are not imported yet are not imported for that: they are seeded when they are.

    Parameters
    ----------
    seed : int
        From 0 to 2**63 - 1; numpy takes it modulo 2**32.

    Raises
    ------
    ValueError
        If the seed is out of range.

    Examples
    --------
    >>> import random
    >>> seed_everything(1)
    >>> first = random.random()
    >>> seed_everything(1)
    >>> random.random() == first
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"`seed` must be a whole number from 0 to 2**63 - 1, got {seed!r}.")
    # Loaded here: the module belongs to executors, and what it needs is of no use to most drivers.
    from mltoolkit.core.process_setup import reseed

    reseed(seed)

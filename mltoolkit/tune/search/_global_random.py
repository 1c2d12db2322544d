"""Python's and numpy's global generators, seeded for the length of a call."""

from __future__ import annotations

import contextlib
import random
import secrets
import sys
from collections.abc import Iterator

__all__ = ["draw_seed", "mix", "seeded_globals"]


def draw_seed() -> int:
    """A seed for a sweep that was given none.

    Drawn from numpy's global generator where numpy is in use: a program that calls ``np.random.seed`` first gets the
    same sweep again.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        return int(numpy.random.randint(2**31))
    return secrets.randbits(31)


def mix(seed: int, index: int) -> int:
    """A seed for one of many: differs for neighbours in either argument; fits 32 bits."""
    return (seed * 0x9E3779B1 + index * 0x85EBCA77 + 0x27D4EB2F) % 2**32


@contextlib.contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed the global generators, and put them back afterwards.

    Functions given to ``sample_from`` mostly draw from these: this makes what they return repeatable, and leaves the
    user's own random numbers as they are.
    """
    numpy = sys.modules.get("numpy")
    state = random.getstate()
    numpy_state = None if numpy is None else numpy.random.get_state()
    random.seed(seed)
    if numpy is not None:
        numpy.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)

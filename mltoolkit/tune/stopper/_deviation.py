"""How far numbers lie apart."""

from __future__ import annotations

import math
from collections.abc import Collection

__all__ = ["deviation"]


def deviation(values: Collection[float]) -> float:
    """Population standard deviation; NaN where a value is not finite.

    Examples
    --------
    >>> deviation([1.0, 3.0])
    1.0
    """
    mean = sum(values) / len(values)
    # Products, not powers: those of large numbers raise, while these become infinite.
    return math.sqrt(sum((value - mean) * (value - mean) for value in values) / len(values))

"""The rungs of a sweep, from the iterations at which its trials ended."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["infer_rungs"]

_FACTORS = (4, 3, 2)  # the sparser grid is the likelier one: of a rung on it nobody stopping is the exception


def infer_rungs(ends: Iterable[float]) -> list[float]:
    """Rungs of successive halving on which the ends of trials lie, those between them included.

    Rungs are multiples of each other by one factor. The last end need not be one: it may be ``max_t``.

    Parameters
    ----------
    ends : iterable of float
        Where trials ended.

    Returns
    -------
    list of float
        Empty where the ends lie on no such grid.

    Examples
    --------
    >>> infer_rungs([1, 3, 27]), infer_rungs([1, 4, 100]), infer_rungs([3, 5, 7])
    ([1, 3, 9, 27], [1, 4, 16, 64], [])
    """
    distinct = sorted(set(ends))
    if not distinct or distinct[0] <= 0:
        return []
    for points in (distinct, distinct[:-1]):
        if len(points) < 2:
            break
        for factor in _FACTORS:
            if all(_is_power(point / points[0], factor) for point in points):
                last = math.floor(math.log(distinct[-1] / points[0], factor) + 1e-9)
                return [points[0] * factor**step for step in range(last + 1)]
    return []


def _is_power(ratio: float, factor: int) -> bool:
    return math.isclose(factor ** round(math.log(ratio, factor)), ratio)

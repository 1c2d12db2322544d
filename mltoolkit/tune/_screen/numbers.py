"""How values look: alone, and among the others of their column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["format_value", "format_values"]

_DIGITS = 6
_LOSS = 0.005  # of a value, at most, that rounding to the decimals of its column may cost
_LARGEST = 10.0**_DIGITS
_LARGEST_INT = 1e300  # larger ones may not be a float at all


def format_value(value: Any) -> str:
    """A value as it is shown alone.

    Examples
    --------
    >>> [format_value(value) for value in (0.1 + 0.2, 1e-7, 10**12, True, None, [1, 2])]
    ['0.3', '1e-07', '1000000000000', 'True', 'None', '[1, 2]']
    """
    if isinstance(value, float):
        return f"{value:.{_DIGITS}g}"
    if isinstance(value, type) or callable(value):
        return str(getattr(value, "__name__", value))
    return " ".join(str(value).split())


def format_values(values: Sequence[Any]) -> list[str]:
    """Values as a column shows them: numbers that are not all whole have the same number of decimals.

    There are as many as the values need, up to about six significant digits of the largest one; if that says too
    little of the smallest one, all are written with an exponent.

    Examples
    --------
    >>> format_values([1.0, 0.98148123, None]), format_values([3, 10])
    (['1.000000', '0.981481', 'None'], ['3', '10'])
    >>> format_values([0.1, 0.025]), format_values([0.12, 3.4567e-6])
    (['0.100', '0.025'], ['1.2000e-01', '3.4567e-06'])
    """
    numbers = [value for value in values if _is_number(value)]
    floats = [value for value in numbers if isinstance(value, float)]
    if not any(map(math.isfinite, floats)) or any(isinstance(value, str) for value in values):
        return [format_value(value) for value in values]
    form = _common_form([float(value) for value in numbers if math.isfinite(value)])
    return [f"{value:{form}}" if _is_number(value) else format_value(value) for value in values]


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < _LARGEST_INT
    return isinstance(value, float)


def _common_form(numbers: list[float]) -> str:
    largest = max(abs(value) for value in numbers)
    if largest < _LARGEST:
        lead = math.floor(math.log10(largest)) if largest else 0
        most = _DIGITS - lead if lead >= 0 else _DIGITS - 1 - lead
        decimals = min(max(_decimals(value) for value in numbers), most)
        if all(abs(round(value, decimals) - value) <= _LOSS * abs(value) for value in numbers) and lead >= -4:
            return f".{decimals}f"
    return f".{max(_decimals(value, exponent=True) for value in numbers)}e"


def _decimals(value: float, *, exponent: bool = False) -> int:
    """Decimals of a value's six significant digits, before an exponent or without one."""
    mantissa, _, power = f"{value:.{_DIGITS - 1}e}".partition("e")
    kept = len(mantissa.partition(".")[2].rstrip("0"))
    return kept if exponent else max(0, kept - int(power))

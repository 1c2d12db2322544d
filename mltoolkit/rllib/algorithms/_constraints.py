"""What a setting may be: descriptions that documentation shows and checks that validation runs."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Allowed",
    "anything",
    "function",
    "kind_of_class",
    "mapping",
    "number",
    "one_of",
    "optional",
    "resources",
    "schedule",
    "sequence_of",
    "switch",
    "text",
    "whole_number",
]


@dataclass(frozen=True)
class Allowed:
    """A set of values, as a phrase that follows "must be" and as a test.

    Parameters
    ----------
    description : str
    fault : callable
        Returns None for a value that is allowed, a phrase that says what exactly is wrong with one that nearly is,
        and an empty string where the description says it all.
    """

    description: str
    fault: Callable[[Any], str | None]

    def problem(self, name: str, value: Any) -> str | None:
        """What to tell the user about a value, or None if it is allowed."""
        fault = self.fault(value)
        if fault is None:
            return None
        reason = f" ({fault})" if fault else ""
        return f"`{name}` must be {self.description}, got {_shown(value)}{reason}."

    def __or__(self, other: Allowed) -> Allowed:
        def fault(value: Any) -> str | None:
            faults = [self.fault(value), other.fault(value)]
            return None if None in faults else next(filter(None, faults), "")

        return Allowed(f"{self.description} or {other.description}", fault)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _test(description: str, accepts: Callable[[Any], bool]) -> Allowed:
    return Allowed(description, lambda value: None if accepts(value) else "")


def whole_number(minimum: int | None = None) -> Allowed:
    """An integer, not below a minimum; NumPy's integers are integers, booleans are not.

    Examples
    --------
    >>> whole_number(1).problem("num_epochs", 0)
    '`num_epochs` must be a whole number >= 1, got 0.'
    """

    def accepts(value: Any) -> bool:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return whole and (minimum is None or int(value) >= minimum)

    return _test("a whole number" + (f" >= {minimum}" if minimum is not None else ""), accepts)


def number(minimum: float | None = None, maximum: float | None = None, *, above: float | None = None) -> Allowed:
    """A real number within bounds that are themselves allowed, and above one that is not; never NaN.

    Examples
    --------
    >>> number(0, 1).problem("gamma", 1.5)
    '`gamma` must be a number in [0, 1], got 1.5.'
    """

    def accepts(value: Any) -> bool:
        return (
            _is_number(value)
            and not math.isnan(value)
            and (minimum is None or value >= minimum)
            and (maximum is None or value <= maximum)
            and (above is None or value > above)
        )

    if minimum is not None and maximum is not None:
        bounds = f" in [{minimum}, {maximum}]"
    elif above is not None:
        bounds = f" > {above}"
    else:
        bounds = f" >= {minimum}" if minimum is not None else ""
    return _test("a number" + bounds, accepts)


def switch() -> Allowed:
    """True or False."""
    return _test("True or False", lambda value: isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"))


def text() -> Allowed:
    """A string."""
    return _test("a string", lambda value: isinstance(value, str))


def one_of(*values: Any) -> Allowed:
    """One of a few values.

    Examples
    --------
    >>> one_of("norm", "value").problem("grad_clip_by", "global")
    "`grad_clip_by` must be 'norm' or 'value', got 'global'."
    """
    names = [repr(value) for value in values]
    description = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def accepts(value: Any) -> bool:
        # By type as well: `True == 1`, and arrays answer `==` with an array.
        return any(type(value) is type(each) and value == each for each in values)

    return _test(description, accepts)


def optional(allowed: Allowed) -> Allowed:
    """None, or what is given."""
    return Allowed(f"{allowed.description} or None", lambda value: None if value is None else allowed.fault(value))


def anything(description: str) -> Allowed:
    """Whatever the user gives; checked where it is used."""
    return _test(description, lambda value: True)


def mapping() -> Allowed:
    """A dict whose keys are strings."""

    def fault(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return ""
        wrong = [key for key in value if not isinstance(key, str)]
        return f"the key {wrong[0]!r} is no string" if wrong else None

    return Allowed("a dict with strings as keys", fault)


def resources() -> Allowed:
    """A dict from names of resources to amounts."""

    def fault(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return ""
        for name, amount in value.items():
            if not (isinstance(name, str) and _is_number(amount) and amount >= 0):
                return f"{name!r}: {amount!r} is no amount of a resource"
        return None

    return Allowed("a dict such as {'special_hardware': 1}", fault)


def function(description: str = "a function") -> Allowed:
    """Something that can be called."""
    return _test(description, callable)


def kind_of_class(description: str) -> Allowed:
    """A class; whether it is of the right kind is checked where it is used, without importing the kind here."""
    return _test(description, lambda value: isinstance(value, type))


def sequence_of(item: Allowed, description: str) -> Allowed:
    """A list or tuple of items that are each allowed."""

    def fault(value: Any) -> str | None:
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            return ""
        for index, each in enumerate(value):
            if item.fault(each) is not None:
                return f"item {index} is {each!r}, which is not {item.description}"
        return None

    return Allowed(description, fault)


def schedule(minimum: float | None = None, maximum: float | None = None, *, above: float | None = None) -> Allowed:
    """A number, or its course over the timesteps sampled so far as ``[[timestep, value], ...]``.

    Examples
    --------
    >>> lr = schedule(0)
    >>> lr.problem("lr", [[0, 1e-3], [100_000, 1e-4]]) is None
    True
    >>> lr.problem("lr", [[10, 1e-3], [100, 1e-4]])
    '`lr` must be a number >= 0 or a schedule [[0, value], [timestep, value], ...], got [[10, 0.001], [100, 0.0001]] \
(it starts at timestep 10, not at 0).'
    """
    value_of = number(minimum, maximum, above=above)

    def fault(value: Any) -> str | None:
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            return value_of.fault(value)
        previous = None
        for point in value:
            if isinstance(point, (str, bytes)) or not isinstance(point, Sequence) or len(point) != 2:
                return f"{point!r} is no pair of a timestep and a value"
            timestep, level = point
            if not _is_number(timestep):
                return f"the timestep {timestep!r} is no number"
            if value_of.fault(level) is not None:
                return f"the value {level!r} is not {value_of.description}"
            if previous is None and timestep != 0:
                return f"it starts at timestep {timestep}, not at 0"
            if previous is not None and timestep <= previous:
                return f"timestep {timestep} does not come after {previous}"
            previous = timestep
        return None if previous is not None else "it is empty"

    return Allowed(f"{value_of.description} or a schedule [[0, value], [timestep, value], ...]", fault)

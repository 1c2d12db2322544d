"""From what users give for `stop` to a stopper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mltoolkit.tune.stopper.dictionary import DictionaryStopper
from mltoolkit.tune.stopper.function_stopper import FunctionStopper
from mltoolkit.tune.stopper.noop import NoopStopper
from mltoolkit.tune.stopper.stopper import CombinedStopper, Stopper

__all__ = ["make_stopper"]


def make_stopper(stop: Any) -> Stopper:
    """The stopper that `stop` stands for.

    Parameters
    ----------
    stop : None, dict, callable, Stopper or list of these

    Returns
    -------
    Stopper

    Raises
    ------
    TypeError
        If it is none of these, or a stopper's class.
    ValueError
        If it has a `stop_all` but is no Stopper, or a bound of a dict is a dict.

    Examples
    --------
    >>> make_stopper({"training_iteration": 5})("a", {"training_iteration": 5})
    True
    """
    if stop is None:
        return NoopStopper()
    if isinstance(stop, Stopper):
        return stop
    if isinstance(stop, Mapping):
        return DictionaryStopper(stop) if stop else NoopStopper()
    if isinstance(stop, (list, tuple)):
        return CombinedStopper(*map(make_stopper, stop))
    if isinstance(stop, type):
        raise TypeError(f"`stop` was given the class {stop.__name__}; give an instance: `{stop.__name__}(...)`.")
    if FunctionStopper.is_valid_function(stop):
        return FunctionStopper(stop)
    raise TypeError(
        "`stop` must be a dict of bounds, a function of (trial_id, result), a Stopper or a list of these, "
        f"got {stop!r} of type {type(stop).__name__}."
    )

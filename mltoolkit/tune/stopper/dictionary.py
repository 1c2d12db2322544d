"""Bounds on metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mltoolkit.tune.search._nested import lookup
from mltoolkit.tune.stopper.stopper import Stopper

__all__ = ["DictionaryStopper"]

logger = logging.getLogger(__name__)

_ABSENT = object()


class DictionaryStopper(Stopper):
    """Ends a trial as soon as one of its metrics has reached a bound.

    A metric that a trial does not report is passed over, and named once in the log: it may come with a later result.

    Parameters
    ----------
    criteria : dict
        Bounds by metric, ``"a/b"`` for a nested one. A trial ends when ``result[metric] >= bound``; for a metric to
        be low, report its negative or give a function.

    Examples
    --------
    >>> stopper = DictionaryStopper({"training_iteration": 10, "eval/accuracy": 0.9})
    >>> stopper("a", {"training_iteration": 3, "eval": {"accuracy": 0.95}})
    True
    """

    def __init__(self, criteria: Mapping[str, Any]) -> None:
        self._criteria: dict[str, Any] = {}
        for metric, bound in criteria.items():
            if not isinstance(metric, str):
                raise TypeError(f"`stop` must map names of metrics to bounds, got {metric!r} for a name.")
            if isinstance(bound, Mapping):
                inner = next(iter(bound), "name")
                raise ValueError(
                    f"`stop[{metric!r}]` must be a bound, got {bound!r}. "
                    f"Write nested metrics with slashes: `stop={{'{metric}/{inner}': ...}}`."
                )
            if hasattr(bound, "item"):
                bound = bound.item()
            if not isinstance(bound, (int, float)) or bound != bound:
                raise TypeError(f"`stop[{metric!r}]` must be a number, got {bound!r}.")
            self._criteria[metric] = bound
        self._named: set[str] = set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether one of the bounds is reached."""
        for metric, bound in self._criteria.items():
            value = lookup(result, metric, _ABSENT)
            if value is _ABSENT:
                self._name_once(metric, trial_id, result)
            elif isinstance(value, (int, float)) and value >= bound:
                return True
        return False

    def _name_once(self, metric: str, trial_id: str, result: dict[str, Any]) -> None:
        if metric in self._named:
            return
        self._named.add(metric)
        logger.warning(
            "Trial %s did not report %r, which `stop` has a bound for; it reported %s. "
            "If it is never reported, the trial runs to its own end.",
            trial_id,
            metric,
            ", ".join(map(repr, result)),
        )

    def stop_all(self) -> bool:
        """False."""
        return False

    @property
    def criteria(self) -> dict[str, Any]:
        """The bounds by metric."""
        return dict(self._criteria)

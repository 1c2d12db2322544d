"""Ending the experiment when its best trials get no better."""

from __future__ import annotations

import bisect
import math
from typing import Any

from mltoolkit.tune.error import MissingMetricError
from mltoolkit.tune.search._nested import lookup
from mltoolkit.tune.stopper._deviation import deviation
from mltoolkit.tune.stopper.stopper import Stopper

__all__ = ["ExperimentPlateauStopper"]


class ExperimentPlateauStopper(Stopper):
    """Ends the experiment when the best values of a metric hardly differ any more.

    That is when the (population) standard deviation of the `top` best values of all trials has been within a bound
    for more results in a row than `patience`.

    Parameters
    ----------
    metric : str
        ``"a/b"`` for a nested one.
    std : float > 0, default=0.001
        The bound, in the metric's unit.
    top : int >= 2, default=10
        How many of the best values are considered.
    mode : {'min', 'max'}, default='min'
        Whether good is low or high.
    patience : int >= 0, default=0
        Results to wait for a change.

    Examples
    --------
    >>> stopper = ExperimentPlateauStopper("loss", std=0.1, top=2)
    >>> stopper("a", {"loss": 1.0}), stopper("b", {"loss": 0.5}), stopper("c", {"loss": 0.51})
    (False, False, True)
    >>> stopper.stop_all()
    True
    """

    def __init__(self, metric: str, std: float = 0.001, top: int = 10, mode: str = "min", patience: int = 0) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")
        if isinstance(top, bool) or not isinstance(top, int) or top <= 1:
            raise ValueError(f"`top` must be an integer >= 2, got {top!r}.")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
            raise ValueError(f"`patience` must be an integer >= 0, got {patience!r}.")
        if isinstance(std, bool) or not isinstance(std, (int, float)) or not std > 0:
            raise ValueError(f"`std` must be a number > 0, got {std!r}.")
        self._metric = metric
        self._std = std
        self._top = top
        self._mode = mode
        self._patience = patience
        self._iterations = 0
        self._top_values: list[float] = []
        self._has_plateaued = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the experiment, and so this trial, is to end."""
        value = lookup(result, self._metric)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise MissingMetricError(
                f"ExperimentPlateauStopper watches the metric {self._metric!r}, for which trial {trial_id} reported "
                f"no number but {value!r}. It reported {', '.join(map(repr, result))}."
            )
        if not math.isnan(value):  # NaN is not among the best
            bisect.insort(self._top_values, value)
            surplus = slice(self._top, None) if self._mode == "min" else slice(None, -self._top)
            del self._top_values[surplus]
            self._has_plateaued = len(self._top_values) == self._top and deviation(self._top_values) <= self._std
        self._iterations = self._iterations + 1 if self._has_plateaued else 0
        return self.stop_all()

    def has_plateaued(self) -> bool:
        """Whether the best values are that close together now.

        Returns
        -------
        bool
        """
        return self._has_plateaued

    def stop_all(self) -> bool:
        """Whether they have been for long enough."""
        return self._has_plateaued and self._iterations >= self._patience

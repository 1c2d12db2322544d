"""What the plots of a sweep need of its results: one record for each trial, and how its values are spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mltoolkit.tune._screen.columns import shorten
from mltoolkit.tune._screen.numbers import format_value
from mltoolkit.tune._screen.state import lookup, number
from mltoolkit.tune.logger._values import flatten

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LABEL_LENGTH", "PlottedTrial", "Scale", "Sweep", "category", "is_log_like", "is_number", "load"]

LABEL_LENGTH = 24
_LOG_RATIO = 30.0
_FEW = 6  # so many numbers are all marked


@dataclass(frozen=True)
class PlottedTrial:
    """One trial.

    Attributes
    ----------
    name : str
    params : dict of str to object
        Flat.
    value : float or None
        The metric in the last result.
    history : pandas.DataFrame or None
        All results.
    """

    name: str
    params: dict[str, Any]
    value: float | None
    history: pd.DataFrame | None


@dataclass(frozen=True)
class Sweep:
    """The trials of a sweep, and what says which of them is best.

    Attributes
    ----------
    trials : list of PlottedTrial
    metric : str
    mode : {'min', 'max'}
    """

    trials: list[PlottedTrial]
    metric: str
    mode: str

    @property
    def finished(self) -> list[PlottedTrial]:
        """The trials with a value, the worst ones first: what is drawn last lies on top."""
        with_value = [trial for trial in self.trials if trial.value is not None and math.isfinite(trial.value)]
        return sorted(with_value, key=lambda trial: trial.value or 0.0, reverse=self.mode == "min")

    def varied(self, names: Sequence[str] | None) -> list[str]:
        """The parameters that differ between trials, or those in ``names``.

        Raises
        ------
        ValueError
            If there is none, or a name is of none.
        """
        known = list(dict.fromkeys(name for trial in self.trials for name in trial.params))
        if names is not None:
            unknown = [name for name in names if name not in known]
            if unknown:
                raise ValueError(f"No parameter is called {unknown[0]!r}. There are: {', '.join(known) or 'none'}.")
            return list(names)
        varied = [name for name in known if len({repr(trial.params.get(name)) for trial in self.trials}) > 1]
        if not varied:
            raise ValueError("The trials do not differ in any parameter.")
        return varied


def load(results: Any, metric: str | None, mode: str | None) -> Sweep:
    """The trials of a ResultGrid, an ExperimentAnalysis or an iterable of Result.

    Raises
    ------
    ValueError
        If nothing says which metric counts, or no trial has reported it.
    TypeError
        If it is neither.
    """
    analysis = results if hasattr(results, "trial_dataframes") else getattr(results, "_experiment_analysis", None)
    metric = metric or getattr(analysis, "default_metric", None)
    mode = mode or getattr(analysis, "default_mode", None)
    if metric is None:
        raise ValueError("Nothing says which metric to plot: give `metric`.")
    if mode not in (None, "min", "max"):
        raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")
    if hasattr(results, "trial_dataframes"):
        frames = results.trial_dataframes
        trials = [
            _trial(trial.trial_id, trial.config, trial.last_result, frames.get(trial.trial_id), metric)
            for trial in results.trials
        ]
    else:
        try:
            items = list(results)
        except TypeError:
            raise TypeError(f"Plots take a ResultGrid or an ExperimentAnalysis, got {results!r}.") from None
        trials = [
            _trial(
                str((item.metrics or {}).get("trial_id", i)), item.config, item.metrics, item.metrics_dataframe, metric
            )
            for i, item in enumerate(items)
        ]
    if all(trial.value is None for trial in trials):
        raise ValueError(f"None of the {len(trials)} trials has reported the metric {metric!r} as a number.")
    return Sweep(trials, metric, mode or "min")


def _trial(name: str, config: Any, last: Any, history: pd.DataFrame | None, metric: str) -> PlottedTrial:
    last = last or {}
    value = number(lookup(last, metric))
    return PlottedTrial(name, flatten(config or last.get("config") or {}), value, history)


def is_log_like(values: Sequence[float]) -> bool:
    """Whether numbers spread over orders of magnitude, as `loguniform` draws them.

    Examples
    --------
    >>> is_log_like([1e-4, 1e-3, 1e-2, 1e-1]), is_log_like([0.1, 0.5, 0.9]), is_log_like([0, 1, 100])
    (True, False, False)
    """
    ordered = sorted(value for value in values if math.isfinite(value))
    if len(ordered) < 2 or ordered[0] <= 0 or ordered[-1] / ordered[0] < _LOG_RATIO:
        return False
    median = ordered[len(ordered) // 2]
    return (median - ordered[0]) / (ordered[-1] - ordered[0]) < 0.25


class Scale:
    """One axis of parallel coordinates: where a value lies between 0 and 1."""

    def __init__(self, values: list[Any]) -> None:
        numbers = [value for value in values if is_number(value)]
        present = [value for value in values if value is not None]
        self.categories: list[str] = []
        self.log = False
        if len(numbers) < len(present) or not numbers:
            self.categories = sorted({category(value) for value in values})
            return
        self.log = is_log_like(numbers)
        self.low, self.high = self._scaled(min(numbers)), self._scaled(max(numbers))
        self.marked = sorted(set(numbers)) if len(set(numbers)) <= _FEW else self._marks()

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else float(value)

    def position(self, value: Any) -> float:
        """From 0 to 1; categories are spread evenly, numbers that are missing lie below."""
        if self.categories:
            return (self.categories.index(category(value)) + 0.5) / len(self.categories)
        if value is None:
            return -0.03
        if self.high == self.low:
            return 0.5
        return (self._scaled(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[str, float]]:
        """Labels with their positions."""
        if self.categories:
            return [
                (shorten(text, LABEL_LENGTH), (i + 0.5) / len(self.categories))
                for i, text in enumerate(self.categories)
            ]
        return [
            (f"{value:.3g}" if isinstance(value, float) else str(value), self.position(value)) for value in self.marked
        ]

    def _marks(self) -> list[float]:
        if self.log:
            return [10.0**power for power in range(math.ceil(self.low), math.floor(self.high) + 1)]
        return [self.low + share * (self.high - self.low) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]


def is_number(value: Any) -> bool:
    """Whether a parameter is a number; truth values are choices."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def category(value: Any) -> str:
    """A choice as text."""
    return "none" if value is None else format_value(value)

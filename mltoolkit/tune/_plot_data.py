"""What the plots of a sweep need of its results: one record for each trial, and how its values are spread."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mltoolkit.tune._screen.columns import shorten
from mltoolkit.tune._screen.numbers import format_value
from mltoolkit.tune._screen.state import lookup, number
from mltoolkit.tune.logger._values import flatten

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LABEL_LENGTH",
    "MISSING",
    "PlottedTrial",
    "Scale",
    "Sweep",
    "category",
    "is_log_like",
    "is_number",
    "load",
    "log_marks",
    "tick_label",
]

LABEL_LENGTH = 24
_LOG_RATIO = 30.0
_FEW = 6  # so many numbers are all marked
_MANY = 12  # so many values are no choices any more
_APART = 0.055  # marks of an axis, as a share of it
MISSING = object()  # a parameter that a trial does not have, unlike one that is None


@dataclass(frozen=True)
class PlottedTrial:
    """One trial.

    Attributes
    ----------
    key : str
        Its id.
    name : str
        As tables show it.
    params : dict of str to object
        Flat.
    value : float or None
        The metric in the last result.
    history : pandas.DataFrame or None
        All results.
    """

    key: str
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

    @property
    def best(self) -> PlottedTrial:
        """The trial whose last value is the best one."""
        return self.finished[-1]

    def is_log(self, values: Sequence[float]) -> bool:
        """Whether values of the metric belong on a logarithmic axis.

        Of a metric to be minimised the good values are the small ones, which a linear axis would press together
        whatever the others are.
        """
        if self.mode == "max":
            return is_log_like(values)
        finite = [value for value in values if math.isfinite(value)]
        return len(finite) > 1 and min(finite) > 0 and max(finite) >= _LOG_RATIO * min(finite)

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
        varied = [name for name in known if len({repr(trial.params.get(name, MISSING)) for trial in self.trials}) > 1]
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
            _trial(
                trial.trial_id, trial.trial_name, trial.config, trial.last_result, frames.get(trial.trial_id), metric
            )
            for trial in results.trials
        ]
    else:
        try:
            items = list(results)
        except TypeError:
            raise TypeError(f"Plots take a ResultGrid or an ExperimentAnalysis, got {results!r}.") from None
        names = {trial.trial_id: trial.trial_name for trial in getattr(analysis, "trials", ())}
        trials = []
        for i, item in enumerate(items):
            key = str((item.metrics or {}).get("trial_id", i))
            name = names.get(key) or _name_of_folder(item.path, key)
            trials.append(_trial(key, name, item.config, item.metrics, item.metrics_dataframe, metric))
    sweep = Sweep(trials, metric, mode or "min")
    if not sweep.finished:
        raise ValueError(f"None of the {len(trials)} trials has reported the metric {metric!r} as a finite number.")
    return sweep


def _name_of_folder(path: Any, key: str) -> str:
    """The name of a trial, with which that of its folder begins."""
    name, found, _ = os.path.basename(str(path or "")).partition(key)
    return name + key if found else key


def _trial(key: str, name: str, config: Any, last: Any, history: pd.DataFrame | None, metric: str) -> PlottedTrial:
    last = last or {}
    value = number(lookup(last, metric))
    return PlottedTrial(key, name, flatten(config or last.get("config") or {}), value, history)


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


def log_marks(low: float, high: float) -> list[float]:
    """Where a logarithmic axis is marked: at its ends, and at round numbers between them.

    Examples
    --------
    >>> log_marks(0.03, 7.0)
    [0.03, 0.1, 1.0, 7.0]
    >>> log_marks(1e-4, 0.1)
    [0.0001, 0.001, 0.01, 0.1]
    """
    start, length = math.log10(low), math.log10(high / low)
    powers = range(math.floor(start), math.ceil(start + length) + 1)
    inner: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5)):
        candidates = [float(f"{step}e{power}") for power in powers for step in steps]
        inner = [mark for mark in candidates if _APART < math.log10(mark / low) / length < 1 - _APART]
        if len(inner) > 1:
            break
    return [low, *inner[:: math.ceil(len(inner) / _FEW) or 1], high]


def tick_label(value: float) -> str:
    """A number at an axis, in three significant digits."""
    return format_value(float(f"{value:.3g}"))


class Scale:
    """One axis of parallel coordinates: where a value lies between 0 and 1.

    Parameters
    ----------
    values : list of object
        ``MISSING`` where a trial has none.
    log : bool, default=None
        By default where numbers spread as `loguniform` draws them.
    """

    def __init__(self, values: list[Any], log: bool | None = None) -> None:
        numbers = [value for value in values if is_number(value)]
        present = [value for value in values if value is not MISSING]
        self.categories: list[str] = []
        self.log = False
        others = {category(value) for value in present if not is_number(value)}
        few = len({category(value) for value in values}) <= _MANY
        if not numbers or (others - {"None"}) or (others and few):
            # Choices among numbers go by their size, and what is none comes last.
            ordered = [*sorted(numbers), *sorted(filter(_is_choice, values), key=category), None, MISSING]
            known = {category(value) for value in values}
            self.categories = [text for text in dict.fromkeys(map(category, ordered)) if text in known]
            return
        self.log = is_log_like(numbers) if log is None else log
        self.low, self.high = self._scaled(min(numbers)), self._scaled(max(numbers))
        self.marked = sorted(set(numbers)) if len(set(numbers)) <= _FEW else self._marks()

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else float(value)

    def position(self, value: Any) -> float:
        """From 0 to 1; categories are spread evenly, numbers that are missing lie below."""
        if self.categories:
            return (self.categories.index(category(value)) + 0.5) / len(self.categories)
        if not is_number(value):
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
            (tick_label(value) if isinstance(value, float) else str(value), self.position(value))
            for value in self.marked
        ]

    def _marks(self) -> list[float]:
        if self.log:
            return log_marks(10.0**self.low, 10.0**self.high)
        return [self.low + share * (self.high - self.low) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]


def is_number(value: Any) -> bool:
    """Whether a parameter is a number; truth values are choices."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_choice(value: Any) -> bool:
    return not (is_number(value) or value is None or value is MISSING)


def category(value: Any) -> str:
    """A choice as text."""
    return "(not set)" if value is MISSING else format_value(value)

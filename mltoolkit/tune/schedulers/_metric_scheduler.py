"""What schedulers that decide by a metric have in common."""

from __future__ import annotations

import difflib
import math
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mltoolkit.tune.error import MissingMetricError, TuneError
from mltoolkit.tune.result import AUTO_RESULT_KEYS, DEFAULT_METRIC
from mltoolkit.tune.schedulers.trial_scheduler import FIFOScheduler
from mltoolkit.tune.search._nested import lookup

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

__all__ = ["MetricScheduler", "more_trials_expected", "positive"]

_MISSING = object()


class MetricScheduler(FIFOScheduler):
    """Base class of schedulers that compare trials by a metric at equal times.

    Parameters
    ----------
    time_attr : str
        Key of results that tells how far a trial is; it must not decrease.
    metric : str, optional
        Key of results that trials are compared by, ``"a/b"`` for nested ones.
    mode : {'min', 'max'}, optional
        Whether less or more of the metric is better.
    """

    _UNSAVED: ClassVar[frozenset[str]] = frozenset()
    """Attributes that `save` leaves out: options, such as functions, that a restored scheduler was given anew."""

    def __init__(self, time_attr: str, metric: str | None, mode: str | None) -> None:
        _check_mode(mode)
        self._time_attr = time_attr
        self._metric = metric
        self._mode = mode

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode of the sweep; False if the scheduler has others already."""
        _check_mode(mode)
        if not super().set_search_properties(metric, mode, **spec):
            return False
        if self._metric is None and self._mode:
            self._metric = DEFAULT_METRIC
        return True

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """A trial was created.

        Raises
        ------
        ValueError
            If neither the scheduler nor the sweep has a metric and a mode.
        """
        if not self._metric or not self._mode:
            missing = " and ".join(f"`{name}`" for name in ("metric", "mode") if not getattr(self, f"_{name}"))
            raise ValueError(
                f"{type(self).__name__} has no {missing} to compare trials by (metric={self._metric!r}, "
                f"mode={self._mode!r}). Give both to the scheduler or to tune.TuneConfig(metric=..., mode='min' or 'max')."
            )

    def save(self, checkpoint_path: str | Path) -> None:
        """Write the state to a file."""
        state = {name: value for name, value in self.__dict__.items() if name not in self._UNSAVED}
        Path(checkpoint_path).write_bytes(pickle.dumps(state))

    def _time(self, trial: Trial, result: dict[str, Any]) -> float:
        """How far a trial was at a result."""
        return self._number(trial, result, self._time_attr, "time_attr")

    def _score(self, trial: Trial, result: dict[str, Any]) -> float:
        """The metric of a result, negated where less is better; NaN stays NaN."""
        value = self._number(trial, result, str(self._metric), "metric")
        return value if self._mode == "max" else -value

    def _has_time_and_metric(self, result: dict[str, Any]) -> bool:
        """Whether a last result, which may stem from a trial that never reported, can be judged."""
        return all(lookup(result, str(name), _MISSING) is not _MISSING for name in (self._time_attr, self._metric))

    def _number(self, trial: Trial, result: dict[str, Any], name: str, option: str) -> float:
        value = lookup(result, name, _MISSING)
        if value is _MISSING:
            raise MissingMetricError(self._missing_text(trial, result, name, option))
        if not isinstance(value, (int, float)):
            raise TuneError(
                f"{type(self).__name__} compares trials by numbers, but {name!r} (`{option}`) of trial {trial} is "
                f"{value!r}. Report a float."
            )
        if option == "time_attr" and math.isnan(value):
            raise TuneError(
                f"{name!r} (`time_attr`) of trial {trial} is NaN; {type(self).__name__} cannot place its result."
            )
        return value

    def _missing_text(self, trial: Trial, result: dict[str, Any], name: str, option: str) -> str:
        known = _names(result)
        reported = [key for key in known if key not in AUTO_RESULT_KEYS]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        times = "" if option == "metric" else " Tune itself adds 'training_iteration' and 'time_total_s'."
        return (
            f"Trial {trial} reported a result without {name!r}, the `{option}` of {type(self).__name__}. "
            f"It reported: {', '.join(reported) or 'nothing'}.{times}{hint}"
        )


def more_trials_expected(controller: Controller, num_added: int) -> bool:
    """Whether more trials will come than the ``num_added`` so far.

    Where their number is known from the start it alone decides, so that the answer is the same when events are
    replayed after a crash.
    """
    search = controller.search_alg
    if search is None:
        return False
    total = search.total_samples
    return not search.is_finished() if total is None else num_added < total


def positive(owner: str, name: str, value: Any, *, above: float = 0) -> None:
    """Raise unless an option is a finite number greater than ``above``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < math.inf:
        raise ValueError(f"`{name}` of {owner} must be a number > {above}, got {value!r}.")


def _check_mode(mode: str | None) -> None:
    if mode not in (None, "min", "max"):
        raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")


def _names(result: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in result.items():
        if isinstance(value, dict) and key != "config":
            names += _names(value, f"{prefix}{key}/")
        else:
            names.append(f"{prefix}{key}")
    return names

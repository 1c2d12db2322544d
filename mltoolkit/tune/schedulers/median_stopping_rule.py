"""The median stopping rule."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.schedulers._metric_scheduler import MetricScheduler, more_trials_expected

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

__all__ = ["MedianStoppingRule"]


class _Curve:
    """Running means of one trial's scores from the grace period on, one for each of its results."""

    __slots__ = ("best", "count", "last_pause", "means", "times")

    def __init__(self) -> None:
        self.times: list[float] = []
        self.means: list[float] = []
        self.count = 0
        self.best = -math.inf
        self.last_pause = -math.inf

    def add(self, time: float, score: float, grace_period: float) -> None:
        mean = self.means[-1] if self.means else math.nan
        if not math.isnan(score):
            self.best = max(self.best, score)
            if time >= grace_period:
                self.count += 1
                mean = score if self.count == 1 else mean + (score - mean) / self.count
        self.times.append(time)
        self.means.append(mean)

    def mean_at(self, time: float) -> float:
        """Mean of the scores from the grace period to `time`; NaN if there is none."""
        index = bisect_right(self.times, time)
        return self.means[index - 1] if index else math.nan


class MedianStoppingRule(MetricScheduler):
    """Stop a trial whose best score so far is worse than the median of the other trials' running means.

    The running means are those up to the time of the trial's result, over the trials that have got at least as far.

    Parameters
    ----------
    time_attr : str, default='time_total_s'
        Key of results that tells how far a trial is.
    metric : str, optional
        Key of results that trials are compared by, ``"a/b"`` for nested ones; default: that of the sweep.
    mode : {'min', 'max'}, optional
        Whether less or more of the metric is better; default: that of the sweep.
    grace_period : float, default=60.0
        No trial is stopped before this time, and results before it are left out of the means. In units of
        `time_attr`.
    min_samples_required : int, default=3
        Number of other trials that the median is taken over at least.
    min_time_slice : float, default=0
        A trial that cannot be judged yet, because too few others have got as far, makes room for trials that wait,
        but not more often than this, in units of `time_attr`.
    hard_stop : bool, default=True
        If False, trials are paused instead of stopped, and go on when no other trial is left to run.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    A result takes time that grows with the logarithm of the number of trials where times are integers, such as
    iterations. With times that are different for each result, such as seconds, it grows with the number of trials.
    NaN counts in no mean, and as no best score.

    References
    ----------
    Golovin et al., Google Vizier: A Service for Black-Box Optimization, KDD 2017, Sec. 3.2.2.
    """

    def __init__(
        self,
        time_attr: str = "time_total_s",
        metric: str | None = None,
        mode: str | None = None,
        grace_period: float = 60.0,
        min_samples_required: int = 3,
        min_time_slice: float = 0,
        hard_stop: bool = True,
    ) -> None:
        super().__init__(time_attr, metric, mode)
        for name, value in (("grace_period", grace_period), ("min_time_slice", min_time_slice)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise ValueError(f"`{name}` of MedianStoppingRule must be a number >= 0, got {value!r}.")
        if not isinstance(min_samples_required, int) or min_samples_required < 1:
            raise ValueError(
                f"`min_samples_required` of MedianStoppingRule must be an integer >= 1, got {min_samples_required!r}."
            )
        self._grace_period = grace_period
        self._min_samples_required = min_samples_required
        self._min_time_slice = min_time_slice
        self._hard_stop = hard_stop
        self._curves: dict[str, _Curve] = {}
        self._stopped: set[str] = set()  # under `hard_stop=False` they go on later, unjudged
        self._num_stopped = 0
        self._num_added = 0
        # Sorted means, at each integer time, of the trials that have got that far.
        self._means_at: dict[int, list[float]] = {}

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """A trial was created."""
        super().on_trial_add(controller, trial)
        self._num_added += 1

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial that falls behind the median.

        Raises
        ------
        MissingMetricError
            If the result lacks `time_attr` or the metric.
        TuneError
            If one of them is no number.
        """
        time, score = self._time(trial, result), self._score(trial, result)
        trial_id = trial.trial_id
        if trial_id in self._stopped:
            return self.CONTINUE
        curve = self._record(trial_id, time, score)
        if time < self._grace_period:
            return self.CONTINUE
        means = self._means_of_others(trial_id, curve, time)
        if len(means) < self._min_samples_required:
            return self._yield_to_others(controller, trial, curve, time)
        if curve.best >= _median(means):
            return self.CONTINUE
        self._stopped.add(trial_id)
        self._num_stopped += 1
        return self.STOP if self._hard_stop else self.PAUSE

    def _record(self, trial_id: str, time: float, score: float) -> _Curve:
        curve = self._curves.get(trial_id)
        if curve is None:
            curve = self._curves[trial_id] = _Curve()
        previous = curve.times[-1] if curve.times else -math.inf
        if time < previous:
            # Back from an earlier checkpoint: what was seen of those times stands.
            return curve
        before = curve.mean_at(time)
        curve.add(time, score, self._grace_period)
        if time == previous:
            self._replace_mean(int(time), before, curve.means[-1]) if time == int(time) else None
            return curve
        self._add_means(curve, previous, time)
        return curve

    def _add_means(self, curve: _Curve, previous: float, time: float) -> None:
        """Enter a trial's means at the integer times that it has just passed, and at which others have reported."""
        first = max(math.floor(previous) + 1 if previous > -math.inf else 0, 0)
        if time - first < len(self._means_at):
            passed = [t for t in range(first, math.floor(time) + 1) if t in self._means_at]
        else:
            passed = [t for t in self._means_at if previous < t <= time]
        for t in passed:
            if math.isfinite(mean := curve.mean_at(t)):
                insort(self._means_at[t], mean)

    def _replace_mean(self, time: int, old: float, new: float) -> None:
        means = self._means_at.get(time)
        if means is not None:
            if math.isfinite(old):
                del means[bisect_left(means, old)]
            if math.isfinite(new):
                insort(means, new)

    def _means_of_others(self, trial_id: str, curve: _Curve, time: float) -> list[float]:
        """Sorted finite running means, at `time`, of the other trials that have got as far."""
        if time != int(time):
            means = (c.mean_at(time) for i, c in self._curves.items() if i != trial_id and c.times[-1] >= time)
            return sorted(mean for mean in means if math.isfinite(mean))
        at = int(time)
        if at not in self._means_at:
            means = (c.mean_at(at) for c in self._curves.values() if c.times[-1] >= at)
            self._means_at[at] = sorted(mean for mean in means if math.isfinite(mean))
        everyone = self._means_at[at]
        own = curve.mean_at(at)
        if not math.isfinite(own) or curve.times[-1] < at:
            return everyone
        return _Without(everyone, bisect_left(everyone, own))  # type: ignore[return-value]

    def _yield_to_others(self, controller: Controller, trial: Trial, curve: _Curve, time: float) -> str:
        if time - curve.last_pause <= self._min_time_slice:
            return self.CONTINUE
        waiting = (t for t in controller.get_live_trials() if t is not trial and t.status in (t.PENDING, t.PAUSED))
        if next(waiting, None) is None:
            return self.CONTINUE
        curve.last_pause = time
        return self.PAUSE

    def on_trial_complete(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> None:
        """Take a trial's last result, unless it was shown before."""
        if self._has_time_and_metric(result):
            curve = self._curves.get(trial.trial_id)
            time = self._time(trial, result)
            if curve is None or time > curve.times[-1]:
                self._record(trial.trial_id, time, self._score(trial, result))
        self._stopped.discard(trial.trial_id)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """What a trial reported before it failed goes on to count."""
        self._stopped.discard(trial.trial_id)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """What a trial reported before it was ended goes on to count."""
        self._stopped.discard(trial.trial_id)

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """The first trial that waits; if there is none, the first that was paused to make room.

        Those that were paused instead of stopped go on when no new trial will come.
        """
        paused = None
        expected = not self._hard_stop and more_trials_expected(controller, self._num_added)
        for trial in controller.get_live_trials():
            if trial.status == trial.PENDING:
                return trial
            if paused is None and trial.status == trial.PAUSED and not (expected and trial.trial_id in self._stopped):
                paused = trial
        if paused is not None:
            controller.resume_trial(paused)
        return paused

    def on_stall(self, controller: Controller) -> None:
        """Let the first paused trial go on."""
        for trial in controller.get_live_trials():
            if trial.status == trial.PAUSED:
                controller.resume_trial(trial)
                return

    def debug_string(self) -> str:
        """Number of trials that were stopped."""
        return f"Using MedianStoppingRule: num_stopped={self._num_stopped}."


class _Without:
    """A sorted list without one of its items."""

    def __init__(self, items: list[float], index: int) -> None:
        self._items = items
        self._index = index

    def __len__(self) -> int:
        return len(self._items) - 1

    def __getitem__(self, index: int) -> float:
        return self._items[index + (index >= self._index)]


def _median(values: list[float]) -> float:
    """Median of a sorted sequence."""
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2

"""HyperBand: successive halving in brackets that trade the number of trials for their length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.schedulers._hyperband_bracket import Bracket
from mltoolkit.tune.schedulers._metric_scheduler import MetricScheduler, more_trials_expected, positive

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

__all__ = ["HyperBandScheduler"]


class HyperBandScheduler(MetricScheduler):
    """HyperBand, with brackets whose trials are halved together.

    A band has s_max + 1 brackets; in bracket s, ``ceil((s_max + 1) / (s + 1) * eta ** s)`` trials run for
    ``max_t * eta ** -s`` units of time, are paused there, and when all have arrived the best 1/eta go on for eta times
    as long, until `max_t`. New trials fill the brackets one after the other, from s = 0 on, and then those of a new
    band. Trials need checkpoints: one that has none starts over when it goes on.

    Parameters
    ----------
    time_attr : str, default='training_iteration'
        Key of results that tells how far a trial is.
    metric : str, optional
        Key of results that trials are compared by, ``"a/b"`` for nested ones; default: that of the sweep.
    mode : {'min', 'max'}, optional
        Whether less or more of the metric is better; default: that of the sweep.
    max_t : int, default=81
        R in the paper: trials are stopped at this time, in units of `time_attr`.
    reduction_factor : float, default=3
        Eta in the paper.
    stop_last_trials : bool, default=True
        Whether trials are stopped at `max_t`. If not, they go on until they end by themselves.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    A bracket that is not full waits for further trials as long as the search algorithm announces some, so brackets
    are what the paper says however few trials run at once. It is halved with those that it has when no more will
    come, or when all trials of the sweep wait. Trials that end early or fail are not waited for; a NaN counts as the
    worst score. `s_max` is ``round(log(max_t) / log(eta))``, as in Ray; brackets that would start with no time at
    all are left out.

    References
    ----------
    Li et al., Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR 18 (2018), Algorithm 1.

    Examples
    --------
    >>> HyperBandScheduler(metric="loss", mode="min", max_t=81, reduction_factor=3).brackets()
    [(5, 81), (8, 27), (15, 9), (34, 3), (81, 1)]
    """

    needs_checkpoints = True

    def __init__(
        self,
        time_attr: str = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        max_t: int = 81,
        reduction_factor: float = 3,
        stop_last_trials: bool = True,
    ) -> None:
        super().__init__(time_attr, metric, mode)
        positive(type(self).__name__, "max_t", max_t)
        positive(type(self).__name__, "reduction_factor", reduction_factor, above=1)
        if max_t < 1:
            raise ValueError(f"`max_t` of {type(self).__name__} must be >= 1, got {max_t!r}.")
        self._eta = reduction_factor
        self._max_t = max_t
        self._stop_last_trials = stop_last_trials
        self._s_max = round(math.log(max_t) / math.log(reduction_factor))
        self._bands: list[list[Bracket]] = []  # unfinished brackets of each band
        self._current: Bracket | None = None  # the one that new trials enter
        self._next_s: list[int] = []  # brackets of the newest band that are yet to be opened, the next one last
        self._bracket_of: dict[str, Bracket] = {}  # live trials only
        self._num_added = 0
        self._num_stopped = 0
        self._num_brackets = 0

    def brackets(self) -> list[tuple[int, int]]:
        """Number of trials and first milestone (n and r of the paper) of each bracket of a band, in order."""
        return [(self._bracket_size(s), self._bracket_milestone(s)) for s in self._bracket_order()]

    def _bracket_size(self, s: int) -> int:
        return math.ceil((self._s_max + 1) / (s + 1) * self._eta**s)

    def _bracket_milestone(self, s: int) -> int:
        if isinstance(self._eta, int) and isinstance(self._max_t, int):
            return self._max_t // self._eta**s  # in integers: 125 * 5 ** -3 and its like may fall short of 1
        return int(self._max_t * self._eta ** (-s))

    def _bracket_order(self) -> list[int]:
        """Values of s in the order in which a band's brackets are filled; those that would start with no time left out."""
        return [s for s in range(self._s_max + 1) if self._bracket_milestone(s) > 0]

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """Put a new trial into the bracket that is being filled, or a new one."""
        super().on_trial_add(controller, trial)
        self._num_added += 1
        bracket = self._current
        if bracket is None or not bracket.accepts_trials:
            bracket = self._current = self._open_bracket()
        bracket.add_trial(trial.trial_id)
        self._bracket_of[trial.trial_id] = bracket

    def _open_bracket(self) -> Bracket:
        if not self._next_s:
            self._next_s = self._bracket_order()[::-1]
            self._bands.append([])
        s = self._next_s.pop()
        bracket = Bracket(
            self._bracket_size(s), self._bracket_milestone(s), self._max_t, self._eta, s, self._stop_last_trials
        )
        self._bands[-1].append(bracket)
        self._num_brackets += 1
        return bracket

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Go on, pause at the milestone, or be halved with the bracket once all its trials have arrived.

        Raises
        ------
        MissingMetricError
            If the result lacks `time_attr` or the metric.
        TuneError
            If one of them is no number.
        """
        time, score = self._time(trial, result), self._score(trial, result)
        bracket = self._bracket_of.get(trial.trial_id)
        if bracket is None:
            return self.CONTINUE
        if bracket.waits(trial.trial_id):
            # It was woken in `on_stall`, of which a replay of events sees no more than this.
            self._process_bracket(controller, bracket)
            if trial.trial_id not in self._bracket_of:
                return self.STOP
        bracket.report(trial.trial_id, time, score)
        if bracket.goes_on(trial.trial_id):
            return self.CONTINUE
        if self._waits_for_others(controller, bracket):
            return self._pause(controller, bracket, trial.trial_id)
        return self._process_bracket(controller, bracket, trial.trial_id)

    def _waits_for_others(self, controller: Controller, bracket: Bracket) -> bool:
        """Whether a trial that has reached the milestone has to wait, for trials that run or are still to come."""
        if not bracket.all_arrived():
            return True
        filling = bracket is self._current and bracket.accepts_trials and bracket.can_halve()
        return filling and more_trials_expected(controller, self._num_added)

    def _pause(self, controller: Controller, bracket: Bracket, trial_id: str) -> str:
        bracket.pause(trial_id)
        self._on_pause(controller, trial_id)
        return self.PAUSE

    def _process_bracket(self, controller: Controller, bracket: Bracket, current: str | None = None) -> str:
        """Halve a bracket whose trials have all arrived, until one of them has something to do, or end it.

        Parameters
        ----------
        current : str, optional
            The trial whose result is at hand. All others wait.

        Returns
        -------
        str
            The decision on `current`.
        """
        outcome = self.PAUSE
        while bracket.live and bracket.all_arrived():
            if not bracket.can_halve():
                if not bracket.ends_trials:
                    return self.CONTINUE
                good: list[str] = []
                bad = list(bracket.live)
            else:
                good, bad = bracket.halve()
            self._stop_all(controller, bad, current)
            if current in bad:
                outcome = self.STOP
            for trial_id in good:
                # One whose last result lies beyond the new milestone too goes on waiting.
                if bracket.goes_on(trial_id):
                    if trial_id == current:
                        outcome = self.CONTINUE
                    else:
                        self._wake(controller, bracket, trial_id)
        if outcome == self.PAUSE and current is not None:
            return self._pause(controller, bracket, current)
        return outcome

    def _wake(self, controller: Controller, bracket: Bracket, trial_id: str) -> None:
        bracket.wake(trial_id)
        if (trial := controller.get_trial(trial_id)) is not None:
            self._on_unpause(controller, trial_id)
            controller.resume_trial(trial)

    def _stop_all(self, controller: Controller, trial_ids: list[str], current: str | None) -> None:
        # Forgotten first: what `stop_trial` reports back must find nothing to process.
        for trial_id in trial_ids:
            self._forget(trial_id)
        self._num_stopped += len(trial_ids)
        for trial_id in trial_ids:
            if trial_id != current and (trial := controller.get_trial(trial_id)) is not None:
                controller.stop_trial(trial)

    def _forget(self, trial_id: str) -> Bracket | None:
        bracket = self._bracket_of.pop(trial_id, None)
        if bracket is None:
            return None
        bracket.forget(trial_id)
        if not bracket.live and not (bracket is self._current and bracket.accepts_trials):
            for band in self._bands:
                if bracket in band:
                    band.remove(bracket)
            newest = self._bands[-1:]
            self._bands = [band for band in self._bands[:-1] if band] + newest
        return bracket

    def _on_pause(self, controller: Controller, trial_id: str) -> None:
        """A trial starts to wait for its bracket; for subclasses."""

    def _on_unpause(self, controller: Controller, trial_id: str) -> None:
        """A trial that waited goes on; for subclasses."""

    def on_trial_complete(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> None:
        """Wait no more for a trial that has ended."""
        self._leave(controller, trial.trial_id)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """Wait no more for a trial that failed."""
        if (bracket := self._bracket_of.get(trial.trial_id)) is not None:
            bracket.vacate()
        self._leave(controller, trial.trial_id)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """Wait no more for a trial that was ended."""
        bracket = self._bracket_of.get(trial.trial_id)
        if bracket is not None and bracket.waits(trial.trial_id):
            # As in `on_trial_result`: this may be the first that a replay sees of a bracket halved by necessity.
            self._process_bracket(controller, bracket, trial.trial_id)
        self._leave(controller, trial.trial_id)

    def _leave(self, controller: Controller, trial_id: str) -> None:
        bracket = self._forget(trial_id)
        if bracket is not None and bracket.live and not self._waits_for_others(controller, bracket):
            self._process_bracket(controller, bracket)

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """Choose a trial of the first band that has one to run, of its least complete bracket."""
        for band in self._bands:
            for bracket in sorted(band, key=Bracket.completion_percentage):
                for trial_id in bracket.runnable:
                    trial = controller.get_trial(trial_id)
                    if trial is None:
                        continue
                    if trial.status == trial.PAUSED:  # a crash came between the decision to wake it and its effect
                        controller.resume_trial(trial)
                    if trial.status == trial.PENDING:
                        return trial
        return None

    def on_stall(self, controller: Controller) -> None:
        """Halve the fullest bracket as it is: the trials that it waits for do not come."""
        waiting = [b for band in self._bands for b in band if b.live and b.all_arrived()]
        if waiting:
            self._process_bracket(controller, max(waiting, key=lambda bracket: len(bracket.live) / bracket.size))
            return
        for trial in list(controller.get_live_trials()):
            if trial.status == trial.PAUSED and trial.trial_id not in self._bracket_of:
                controller.stop_trial(trial)  # a crash came between the decision to stop it and its effect

    def state(self) -> dict[str, int]:
        """Number of brackets opened, and of trials stopped, so far."""
        return {"num_brackets": self._num_brackets, "num_stopped": self._num_stopped}

    def debug_string(self) -> str:
        """Number of stopped trials, and the unfinished brackets."""
        lines = [f"Using HyperBand: num_stopped={self._num_stopped} total_brackets={self._num_brackets}"]
        for number, band in enumerate(self._bands):
            lines.append(f"Round #{number}:")
            lines += [f"  {bracket}" for bracket in band]
        return "\n".join(lines)

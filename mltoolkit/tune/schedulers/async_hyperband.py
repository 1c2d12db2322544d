"""Asynchronous successive halving."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal

from mltoolkit.tune.schedulers._metric_scheduler import MetricScheduler, more_trials_expected, positive
from mltoolkit.tune.schedulers._rungs import PromotionBracket, StoppingBracket, rung_milestones

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

__all__ = ["ASHAScheduler", "AsyncHyperBandScheduler"]


class AsyncHyperBandScheduler(MetricScheduler):
    """Asynchronous successive halving (ASHA): give more time to the trials that are best at each milestone.

    Milestones lie at ``grace_period * reduction_factor ** k``. With ``variant="stop"`` a trial that reaches one is
    stopped unless it is among the best ``1 / reduction_factor`` of those that reached it before; no trial ever waits,
    and no checkpoint is needed. With ``variant="promote"`` it is paused there, and goes on once it is among the best
    ``1 / reduction_factor``: the algorithm of the paper, which judges early trials as strictly as late ones, at the
    price of checkpoints (a trainable without them starts over at each promotion).

    Parameters
    ----------
    time_attr : str, default='training_iteration'
        Key of results that tells how far a trial is.
    metric : str, optional
        Key of results that trials are compared by, ``"a/b"`` for nested ones; default: that of the sweep.
    mode : {'min', 'max'}, optional
        Whether less or more of the metric is better; default: that of the sweep.
    max_t : float, default=100
        R in the paper: trials are stopped at this time, in units of `time_attr`.
    grace_period : float, default=1
        r in the paper: no trial is stopped before this time.
    reduction_factor : float, default=4
        Eta in the paper.
    brackets : int, default=1
        Number of brackets. The first milestone of bracket s (the paper's stopping rate) is
        ``grace_period * reduction_factor ** s``. Each trial is put into one at random, with probabilities that are
        the softmax of their numbers of rungs.
    stop_last_trials : bool, default=True
        Whether trials are stopped at `max_t`. If not, they go on until they end by themselves.
    variant : {'stop', 'promote'}, default='stop'
        What happens at a milestone, see above.
    seed : int, optional
        Of the choice of brackets; by default that of the sweep, if it has one.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    A NaN counts as the worst score: the trial is stopped at a milestone that another trial reached before it, and is
    never promoted.

    Decisions with ``variant="stop"`` are those of Ray's scheduler, with three exceptions. Milestones are found without
    logarithms, so the one at `max_t` is there where Ray's rounding loses it (``max_t=243, reduction_factor=3``); that
    matters with ``stop_last_trials=False`` and in the choice of brackets. Trials whose score is NaN are stopped. And
    a result without the metric is an error, not a result to pass over.

    References
    ----------
    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, arXiv:1810.05934, Algorithm 2.

    Examples
    --------
    >>> scheduler = AsyncHyperBandScheduler(metric="loss", mode="min", max_t=81, reduction_factor=3)
    >>> scheduler.milestones()
    [[1, 3, 9, 27, 81]]
    """

    def __init__(
        self,
        time_attr: str = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        max_t: float = 100,
        grace_period: float = 1,
        reduction_factor: float = 4,
        brackets: int = 1,
        stop_last_trials: bool = True,
        *,
        variant: Literal["stop", "promote"] = "stop",
        seed: int | None = None,
    ) -> None:
        super().__init__(time_attr, metric, mode)
        owner = type(self).__name__
        positive(owner, "max_t", max_t)
        positive(owner, "grace_period", grace_period)
        positive(owner, "reduction_factor", reduction_factor, above=1)
        if grace_period > max_t:
            raise ValueError(f"`grace_period` must be <= `max_t`, got {grace_period!r} > {max_t!r}.")
        if isinstance(brackets, bool) or not isinstance(brackets, int) or brackets < 1:
            raise ValueError(f"`brackets` of {owner} must be an integer >= 1, got {brackets!r}.")
        if variant not in ("stop", "promote"):
            raise ValueError(f"`variant` must be 'stop' or 'promote', got {variant!r}.")
        self._max_t = max_t
        self._stop_last_trials = stop_last_trials
        self._variant = variant
        self.needs_checkpoints = variant == "promote"
        self._num_stopped = 0
        self._num_added = 0
        self._seed = seed
        self._random = random.Random(seed)
        self._bracket_of: dict[str, int] = {}  # live trials only

        self._milestones = [rung_milestones(grace_period, max_t, reduction_factor, s) for s in range(brackets)]
        self._stopping = [StoppingBracket(m, reduction_factor, stop_last_trials) for m in self._milestones]
        self._promotion = [PromotionBracket([t for t in m if t < max_t], reduction_factor) for m in self._milestones]
        most = max(map(len, self._milestones))
        self._weights = [math.exp(len(m) - most) for m in self._milestones]

        # Trials under `variant="promote"`, in the order in which they shall run. All others are paused in a rung.
        self._active: OrderedDict[str, None] = OrderedDict()  # have reported since they were started last
        self._promoted: OrderedDict[str, None] = OrderedDict()
        self._new: OrderedDict[str, None] = OrderedDict()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric, mode and seed of the sweep; False if the scheduler has another metric or mode already."""
        if self._seed is None and spec.get("seed") is not None:
            self._seed = int(spec["seed"])
            self._random = random.Random(self._seed)
        return super().set_search_properties(metric, mode, **spec)

    def milestones(self) -> list[list[float]]:
        """Times at which trials are compared, for each bracket."""
        return [list(milestones) for milestones in self._milestones]

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """Put a new trial into a bracket."""
        super().on_trial_add(controller, trial)
        self._num_added += 1
        self._bracket_of[trial.trial_id] = self._draw_bracket()
        if self._variant == "promote":
            self._new[trial.trial_id] = None

    def _draw_bracket(self) -> int:
        if len(self._weights) == 1:
            return 0
        return self._random.choices(range(len(self._weights)), self._weights)[0]

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Stop, pause or go on.

        Raises
        ------
        MissingMetricError
            If the result lacks `time_attr` or the metric.
        TuneError
            If one of them is no number.
        """
        time, score = self._time(trial, result), self._score(trial, result)
        trial_id = trial.trial_id
        if trial_id not in self._bracket_of:
            return self.CONTINUE
        if time >= self._max_t and self._stop_last_trials:
            decision = self.STOP
        elif self._variant == "stop":
            goes_on = self._stopping[self._bracket_of[trial_id]].report(trial_id, time, score)
            decision = self.CONTINUE if goes_on else self.STOP
        else:
            decision = self._promote(controller, trial_id, time, score)
        if decision == self.STOP:
            self._num_stopped += 1
            self._forget(trial_id)
            self._end_if_idle(controller)
        return decision

    def _promote(self, controller: Controller, trial_id: str, time: float, score: float) -> str:
        self._new.pop(trial_id, None)
        self._promoted.pop(trial_id, None)
        bracket = self._promotion[self._bracket_of[trial_id]]
        if bracket.report(trial_id, time, score):
            self._active[trial_id] = None
            return self.CONTINUE
        self._active.pop(trial_id, None)
        # The slot of this trial is free now. The trial to be promoted that its arrival may have brought about, in
        # this rung, is the one that `get_job` of the paper would find: promoting at once is promoting on demand.
        while (promoted := bracket.promote()) is not None:
            if promoted == trial_id:
                self._active[trial_id] = None
                continue
            self._promoted[promoted] = None
            if (other := controller.get_trial(promoted)) is not None:
                controller.resume_trial(other)
        if trial_id in self._active:
            return self.CONTINUE
        return self.STOP if self._is_idle(controller) else self.PAUSE

    def _is_idle(self, controller: Controller) -> bool:
        """Whether no trial runs or will run: none of those that wait for promotion can be promoted any more."""
        if self._variant == "stop" or self._active or self._promoted or self._new:
            return False
        return not more_trials_expected(controller, self._num_added)

    def _end_if_idle(self, controller: Controller) -> None:
        if not self._bracket_of or not self._is_idle(controller):
            return
        ended = [trial_id for bracket in self._promotion for trial_id in bracket.paused()]
        for trial_id in ended:
            self._forget(trial_id)
        self._num_stopped += len(ended)
        for trial_id in ended:
            if (trial := controller.get_trial(trial_id)) is not None:
                controller.stop_trial(trial)

    def _forget(self, trial_id: str) -> None:
        bracket = self._bracket_of.pop(trial_id, None)
        if bracket is None:
            return
        self._stopping[bracket].forget(trial_id)
        self._promotion[bracket].forget(trial_id)
        for queue in (self._active, self._promoted, self._new):
            queue.pop(trial_id, None)

    def on_trial_complete(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> None:
        """Count a trial's last result in its rung."""
        trial_id = trial.trial_id
        if trial_id in self._bracket_of and self._has_time_and_metric(result):
            time, score = self._time(trial, result), self._score(trial, result)
            bracket = self._bracket_of[trial_id]
            if self._variant == "stop":
                self._stopping[bracket].report(trial_id, time, score)
            else:
                self._promotion[bracket].report(trial_id, time, score, waits=False)
        self._leave(controller, trial_id)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """Forget a trial that failed; its scores stay."""
        self._leave(controller, trial.trial_id)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """Forget a trial that was ended while it waited; its scores stay."""
        self._leave(controller, trial.trial_id)

    def _leave(self, controller: Controller, trial_id: str) -> None:
        if trial_id in self._bracket_of:
            self._forget(trial_id)
            if self._variant == "promote":
                self._promote_waiting(controller)
                self._end_if_idle(controller)

    def _promote_waiting(self, controller: Controller) -> None:
        """Promote whom a trial that completed between two rungs has made one of the best 1/eta."""
        for bracket in self._promotion:
            while (promoted := bracket.promote()) is not None:
                self._promoted[promoted] = None
                if (trial := controller.get_trial(promoted)) is not None:
                    controller.resume_trial(trial)

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """Choose a trial that waits: one to be tried again first, then a promoted one, then a new one."""
        if self._variant == "stop":
            return super().choose_trial_to_run(controller)
        for queue in (self._active, self._promoted, self._new):
            for trial_id in queue:
                trial = controller.get_trial(trial_id)
                if trial is None:
                    continue
                if trial.status == trial.PAUSED:  # a crash came between the promotion and its effect
                    controller.resume_trial(trial)
                if trial.status == trial.PENDING:
                    return trial
        return None

    def on_stall(self, controller: Controller) -> None:
        """Stop the paused trial with the least prospect, so that a limit on unfinished trials lets in a new one.

        All of them if no new one will come.
        """
        # Nothing is noted here: what happens comes back as `on_trial_remove`, also when events are replayed.
        paused = [t for t in controller.get_live_trials() if t.status == t.PAUSED]
        search = controller.search_alg
        if paused and search is not None and not search.is_finished():
            prospect = {trial_id: rank for b in self._promotion for rank, trial_id in enumerate(b.paused())}
            paused = [min(paused, key=lambda trial: prospect.get(trial.trial_id, -1))]
        for trial in paused:
            controller.stop_trial(trial)

    def debug_string(self) -> str:
        """Number of trials that were stopped, and the rungs of each bracket."""
        brackets = self._stopping if self._variant == "stop" else self._promotion
        return "\n".join(
            [
                f"Using AsyncHyperBand: num_stopped={self._num_stopped}",
                *(bracket.debug_string() for bracket in brackets),
            ]
        )


ASHAScheduler = AsyncHyperBandScheduler
"""Another name for :class:`AsyncHyperBandScheduler`."""

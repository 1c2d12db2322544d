"""Population Based Training."""

from __future__ import annotations

import logging
import math
import random
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mltoolkit.tune.error import TuneError
from mltoolkit.tune.result import TRAINING_ITERATION
from mltoolkit.tune.schedulers._explore import check_mutations, explore, fill_missing, flat_names
from mltoolkit.tune.schedulers._metric_scheduler import MetricScheduler, positive
from mltoolkit.tune.schedulers._policy_log import PolicyLog
from mltoolkit.tune.schedulers.pbt_replay import PopulationBasedTrainingReplay, perturbed_tag

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

__all__ = ["PopulationBasedTraining", "PopulationBasedTrainingReplay"]

logger = logging.getLogger(__name__)


@dataclass
class _Member:
    """What is known of a live trial of the population."""

    order: int
    tag: str
    score: float | None = None  # None before the first perturbation interval is over
    train_time: float = 0
    turn: int = 0
    perturbation_time: float = 0


class PopulationBasedTraining(MetricScheduler):
    """Population Based Training: bad trials take over the weights of good ones, with configurations varied at random.

    Every `perturbation_interval`, a trial among the worst `quantile_fraction` of the population goes on from the
    checkpoint of a random one among the best, with a mutation of its configuration. All trials of the sweep are the
    population; where they outnumber the slots they take turns. Trials need checkpoints.

    Parameters
    ----------
    time_attr : str, default='time_total_s'
        Key of results that tells how far a trial is.
    metric : str, optional
        Key of results that trials are compared by, ``"a/b"`` for nested ones; default: that of the sweep.
    mode : {'min', 'max'}, optional
        Whether less or more of the metric is better; default: that of the sweep.
    perturbation_interval : float, default=60.0
        Time between two decisions on a trial, in units of `time_attr`.
    burn_in_period : float, default=0.0
        Time before the first one.
    hyperparam_mutations : dict
        How each parameter is varied. A list: to one of its neighbours in the list. A domain (``tune.uniform(0, 1)``)
        or a function without arguments: by one of `perturbation_factors`. Dicts nest. Parameters that a trial's
        configuration lacks are drawn at its start.
    quantile_fraction : float, default=0.25
        Share of the population that clones, and share that is cloned; from 0 (none) to 0.5.
    resample_probability : float, default=0.25
        Probability that a parameter is drawn anew instead.
    perturbation_factors : tuple of float, default=(1.2, 0.8)
    custom_explore_fn : callable, optional
        Takes the new configuration after the mutations, and returns it changed.
    log_config : bool, default=True
        Whether to write ``pbt_global.txt`` and ``pbt_policy_<trial>.txt`` into the experiment's folder; the latter can
        be replayed with :class:`PopulationBasedTrainingReplay`.
    require_attrs : bool, default=True
        Whether a result without `time_attr` or the metric is an error; if not it is passed over.
    synch : bool, default=False
        Whether all trials wait for each other at each interval before any of them clones.
    seed : int, optional
        Of everything random here; by default that of the sweep, if it has one, else a new one. Functions in
        `hyperparam_mutations` have generators of their own.

    Raises
    ------
    TuneError
        If there is neither `hyperparam_mutations` nor `custom_explore_fn`.
    ValueError, TypeError
        If an option is out of range.

    Notes
    -----
    A NaN counts as the worst score: such a trial clones, and is never cloned. With ``synch=True`` trials that end or
    fail are not waited for.

    References
    ----------
    Jaderberg et al., Population Based Training of Neural Networks, arXiv:1711.09846, Algorithm 1 and Sec. 4.
    """

    needs_checkpoints = True

    _UNSAVED: ClassVar[frozenset[str]] = frozenset({"_mutations", "_custom_explore_fn"})

    def __init__(
        self,
        time_attr: str = "time_total_s",
        metric: str | None = None,
        mode: str | None = None,
        perturbation_interval: float = 60.0,
        burn_in_period: float = 0.0,
        hyperparam_mutations: Mapping[str, Any] | None = None,
        quantile_fraction: float = 0.25,
        resample_probability: float = 0.25,
        perturbation_factors: Sequence[float] = (1.2, 0.8),
        custom_explore_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        log_config: bool = True,
        require_attrs: bool = True,
        synch: bool = False,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(time_attr, metric, mode)
        owner = type(self).__name__
        if not hyperparam_mutations and custom_explore_fn is None:
            raise TuneError(
                f"{owner} has nothing to vary. Give `hyperparam_mutations` such as {{'lr': tune.loguniform(1e-4, 1e-1)}}, "
                "or `custom_explore_fn`."
            )
        check_mutations(hyperparam_mutations or {})
        positive(owner, "perturbation_interval", perturbation_interval)
        for name, value, most in (
            ("quantile_fraction", quantile_fraction, 0.5),
            ("resample_probability", resample_probability, 1),
            ("burn_in_period", burn_in_period, math.inf),
        ):
            if not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise ValueError(f"`{name}` of {owner} must lie between 0 and {most}, got {value!r}.")
        if not perturbation_factors:
            raise ValueError(f"`perturbation_factors` of {owner} must have at least one factor, got none.")
        self._interval = perturbation_interval
        self._burn_in = burn_in_period
        self._mutations = dict(hyperparam_mutations or {})
        self._quantile_fraction = quantile_fraction
        self._resample_probability = resample_probability
        self._perturbation_factors = tuple(perturbation_factors)
        self._custom_explore_fn = custom_explore_fn
        self._log_config = log_config
        self._log = PolicyLog()
        self._require_attrs = require_attrs
        self._synch = synch
        self._next_sync = max(perturbation_interval, burn_in_period)
        self._seed_given = seed is not None
        self._seed = seed if seed is not None else random.Random().getrandbits(32)

        self._members: dict[str, _Member] = {}  # live trials only
        self._ids: dict[int, str] = {}  # by order
        self._ranking: list[tuple[float, int]] = []  # (score, order), worst first
        # (train time, turn, trial id) of all members. Of those that are equally far, the one that ran last comes last:
        # a bad trial that is set back to a better one again and again would starve it otherwise.
        self._queue: list[tuple[float, int, str]] = []
        self._turns = 0
        self._behind: set[str] = set()  # those that have still to reach the next synchronous perturbation
        self._fresh: OrderedDict[str, None] = OrderedDict()  # those that have not reported yet
        self._accepted = -1  # number of trials with which a population that cannot be completed goes on
        self._num_added = 0
        self._num_draws = 0
        self._warned = False
        self._num_checkpoints = 0
        self._num_perturbations = 0
        self._perturbations_before = 0

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric, mode and seed of the sweep; False if the scheduler has another metric or mode already."""
        if not self._seed_given and spec.get("seed") is not None:
            self._seed, self._seed_given = int(spec["seed"]), True
        return super().set_search_properties(metric, mode, **spec)

    def _generator(self, purpose: str, number: int) -> random.Random:
        # One for each draw: what one of them consumes shifts no other.
        return random.Random(f"{self._seed}/{purpose}/{number}")

    # Trials come and go.

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """Take a trial into the population, and draw the parameters that its configuration lacks.

        Raises
        ------
        ValueError
            If the sweep has a search algorithm that learns from results: it would be told of configurations that it
            did not suggest.
        """
        super().on_trial_add(controller, trial)
        _refuse_searchers(controller, type(self).__name__)
        order = self._num_added
        self._num_added += 1
        self._members[trial.trial_id] = _Member(order, trial.experiment_tag)
        self._ids[order] = trial.trial_id
        self._fresh[trial.trial_id] = None
        insort(self._queue, (0, 0, trial.trial_id))
        self._behind.add(trial.trial_id)
        before = flat_names(trial.config, self._mutations)
        config = self._initial_config(trial.config, self._generator("fill", order))
        drawn = {k: v for k, v in flat_names(config, self._mutations).items() if k not in before}
        if drawn:
            trial.evaluated_params.update(drawn)
            controller.reset_trial(trial, config)

    def _initial_config(self, config: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
        return fill_missing(config, self._mutations, rng)

    def on_trial_complete(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> None:
        """A trial leaves the population."""
        self._leave(controller, trial.trial_id)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """A trial leaves the population."""
        self._leave(controller, trial.trial_id)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """A trial leaves the population."""
        self._leave(controller, trial.trial_id)

    def _leave(self, controller: Controller, trial_id: str) -> None:
        member = self._members.pop(trial_id, None)
        if member is None:
            return
        del self._ids[member.order]
        self._fresh.pop(trial_id, None)
        _take_out(self._queue, (member.train_time, member.turn, trial_id))
        if member.score is not None:
            _take_out(self._ranking, (member.score, member.order))
        self._behind.discard(trial_id)
        if self._synch and self._members and not self._is_awaited(controller):
            self._perturb_all(controller)

    # Results.

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Go on, make room for trials that wait, or clone a better trial.

        Raises
        ------
        MissingMetricError
            If the result lacks `time_attr` or the metric, unless `require_attrs` is False.
        TuneError
            If one of them is no number.
        """
        if not self._require_attrs and not self._has_time_and_metric(result):
            return self.CONTINUE
        time, score = self._time(trial, result), self._score(trial, result)
        member = self._members.get(trial.trial_id)
        if member is None:
            return self.CONTINUE
        self._fresh.pop(trial.trial_id, None)
        if self._synch:
            return self._synchronise(controller, trial, member, time, score)
        if time < self._burn_in or time - member.perturbation_time < self._interval:
            return self.CONTINUE
        self._record(trial, member, time, score)
        member.perturbation_time = time
        clones = self._checkpoint_or_exploit(controller, trial, running=True)
        others_wait = self._is_incomplete(controller) or any(
            other is not trial and other.status in (other.PENDING, other.PAUSED)
            for other in controller.get_live_trials()
        )
        if clones and others_wait:
            controller.pause_trial(trial, should_checkpoint=False)
        return self.NOOP if clones else self.PAUSE if others_wait else self.CONTINUE

    def _record(self, trial: Trial, member: _Member, time: float, score: float) -> None:
        if member.score is not None:
            _take_out(self._ranking, (member.score, member.order))
        member.score = -math.inf if math.isnan(score) else score
        insort(self._ranking, (member.score, member.order))
        self._set_train_time(trial.trial_id, time)

    def _set_train_time(self, trial_id: str, time: float) -> None:
        member = self._members[trial_id]
        _take_out(self._queue, (member.train_time, member.turn, trial_id))
        self._turns += 1
        member.train_time, member.turn = time, self._turns
        insort(self._queue, (time, member.turn, trial_id))

    def _is_incomplete(self, controller: Controller) -> bool:
        """Whether trials of the population have yet to be created."""
        total = getattr(controller.search_alg, "total_samples", None)
        return total is not None and self._num_added < total

    # Synchronous mode.

    def _synchronise(self, controller: Controller, trial: Trial, member: _Member, time: float, score: float) -> str:
        if trial.trial_id not in self._behind:
            self._perturb_all(controller)  # it was woken in `on_stall`, of which a replay of events sees only this
        if time < self._next_sync:
            return self.CONTINUE
        self._record(trial, member, time, score)
        self._behind.discard(trial.trial_id)
        if self._is_awaited(controller):
            return self.PAUSE
        return self.NOOP if self._perturb_all(controller, trial) else self.CONTINUE

    def _is_awaited(self, controller: Controller) -> bool:
        """Whether a trial has still to reach the next perturbation."""
        return bool(self._behind) or self._is_incomplete(controller)

    def _perturb_all(self, controller: Controller, current: Trial | None = None) -> bool:
        """Let the worst clone the best, and all go on; whether `current` clones."""
        latest = max((member.train_time for member in self._members.values()), default=0)
        clones = False
        for trial_id in [self._ids[order] for _, order in reversed(self._ranking)]:  # the best are saved first
            trial = controller.get_trial(trial_id)
            if trial is None:
                continue
            self._members[trial_id].perturbation_time = latest
            exploits = self._checkpoint_or_exploit(controller, trial, running=trial is current)
            clones = clones or (exploits and trial is current)
        # Beyond the trial that has got farthest, or it could never reach it again.
        self._next_sync = max(self._next_sync, latest) + self._interval
        self._behind = set(self._members)
        for trial_id in self._members:
            trial = controller.get_trial(trial_id)
            if trial is not None and trial is not current and trial.status == trial.PAUSED:
                controller.resume_trial(trial)
        return clones

    # Exploit and explore.

    def _quantile_size(self) -> int:
        population = len(self._ranking)
        if population <= 1:
            return 0
        return min(math.ceil(population * self._quantile_fraction), population // 2)

    def _checkpoint_or_exploit(self, controller: Controller, trial: Trial, *, running: bool) -> bool:
        """Save a trial of the upper quantile, let one of the lower quantile clone; whether it does."""
        member = self._members[trial.trial_id]
        count = self._quantile_size()
        if not count or member.score is None:
            return False
        rank = bisect_left(self._ranking, (member.score, member.order))
        if rank >= len(self._ranking) - count:
            self._num_checkpoints += 1
            if running:
                controller.save_trial(trial)
            return False
        if rank >= count:
            return False
        self._num_draws += 1
        first = max(len(self._ranking) - count, bisect_left(self._ranking, (-math.inf, math.inf)))
        if first == len(self._ranking):
            return False  # the best have failed as well
        rng = self._generator("exploit", self._num_draws)
        cloned = controller.get_trial(self._ids[self._ranking[rng.randrange(first, len(self._ranking))][1]])
        if cloned is None or cloned.checkpoint is None:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "%s: %s is to go on from %s, which has no checkpoint. Without checkpoints the population learns nothing "
                    "from its best: give `checkpoint=` to `tune.report`, or define `save_checkpoint`.",
                    type(self).__name__,
                    trial,
                    cloned,
                )
            return False
        self._exploit(controller, trial, cloned, rng)
        return True

    def _exploit(self, controller: Controller, trial: Trial, cloned: Trial, rng: random.Random) -> None:
        member, other = self._members[trial.trial_id], self._members[cloned.trial_id]
        config, operations = self._new_config(trial, cloned, rng)
        if not isinstance(config, dict):
            raise TuneError(f"`custom_explore_fn` must return the new configuration as a dict, got {config!r}.")
        logger.info(
            "%s: %s (%s) clones %s (%s): %s", type(self).__name__, trial, member.score, cloned, other.score, operations
        )
        # Of the clone's checkpoint, which may be older than its last result: a replay changes the configuration there.
        saved = cloned.checkpoints[-1][1].get(TRAINING_ITERATION, cloned.last_result.get(TRAINING_ITERATION, 0))
        iterations = [trial.last_result.get(TRAINING_ITERATION, 0), saved]
        if self._log_config and trial.experiment_path != Path() and Path(trial.experiment_path).is_dir():
            entry = [member.tag, other.tag, *iterations, cloned.config, config]
            folder = Path(trial.experiment_path)
            self._log.write(folder, self._num_perturbations, trial.trial_id, cloned.trial_id, entry)
        self._num_perturbations += 1
        # It is now as far as the one that it has cloned.
        member.perturbation_time = other.perturbation_time
        self._set_train_time(trial.trial_id, other.train_time)
        tag = perturbed_tag(member.tag, flat_names(config, self._mutations))
        controller.reset_trial(trial, config, cloned.checkpoint, tag=tag)

    def _new_config(self, trial: Trial, cloned: Trial, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
        """The configuration that `trial` goes on with, and what was done to each parameter."""
        config, operations = explore(
            cloned.config, self._mutations, self._resample_probability, self._perturbation_factors, rng
        )
        if self._custom_explore_fn is not None:
            config = self._custom_explore_fn(config)
        return config, operations

    # Who runs next.

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """The trial that has got least far; none while trials of the population have yet to be created."""
        if self._is_incomplete(controller) and self._accepted != self._num_added:
            return next((t for t in map(controller.get_trial, self._fresh) if t and t.status == t.PENDING), None)
        for trial in self._candidates(controller):
            if trial.status == trial.PAUSED:
                controller.resume_trial(trial)
            if trial.status == trial.PENDING:
                return trial
        return None

    def _candidates(self, controller: Controller) -> Iterator[Trial]:
        for _, _, trial_id in self._queue:
            if self._synch and trial_id not in self._behind:
                continue
            if (trial := controller.get_trial(trial_id)) is not None:
                yield trial

    def on_stall(self, controller: Controller) -> None:
        """Go on with the population as it is."""
        self._accepted = self._num_added
        if self._synch and not self._behind:
            self._perturb_all(controller)
            return
        for trial in self._candidates(controller):
            if trial.status == trial.PAUSED:
                controller.resume_trial(trial)
                return

    def last_scores(self, trials: Sequence[Trial]) -> list[float]:
        """What live trials had scored at their latest perturbation interval; the metric, negated where less is better.

        Parameters
        ----------
        trials : list of Trial

        Returns
        -------
        list of float
            In the order of `trials`, without those that have ended or have no score yet.
        """
        members = (self._members.get(trial.trial_id) for trial in trials)
        return [member.score for member in members if member is not None and member.score is not None]

    def reset_stats(self) -> None:
        """Count checkpoints and perturbations in :meth:`debug_string` from zero."""
        self._perturbations_before = self._num_perturbations  # which number entries of the log
        self._num_checkpoints = 0

    def debug_string(self) -> str:
        """Number of checkpoints and of perturbations."""
        perturbations = self._num_perturbations - self._perturbations_before
        return f"{type(self).__name__}: {self._num_checkpoints} checkpoints, {perturbations} perturbs"


def _take_out(items: list[Any], item: tuple[Any, ...]) -> None:
    del items[bisect_left(items, item)]


def _refuse_searchers(controller: Controller, owner: str) -> None:
    from mltoolkit.tune.search import Searcher, SearchGenerator

    search = controller.search_alg
    if isinstance(search, (Searcher, SearchGenerator)):
        searcher = getattr(search, "searcher", search)
        raise ValueError(
            f"{owner} changes configurations while trials run, so {type(searcher).__name__} would learn from "
            "configurations that it did not suggest. Leave out `search_alg`; the first configurations are drawn from "
            "`param_space`."
        )
    limit = getattr(search, "max_concurrent", 0)
    if isinstance(limit, int) and limit > 0:
        raise ValueError(
            f"{owner} needs its whole population at once, which `max_concurrent={limit}` of {type(search).__name__} "
            "forbids. Limit the trials that run at the same time with `tune.TuneConfig(max_concurrent_trials=...)`: "
            "they then take turns."
        )

"""What a sweep is, apart from its search space."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mltoolkit.train._config import checked_keywords

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["ResumeConfig", "TuneConfig"]


@checked_keywords
@dataclass(repr=False)
class TuneConfig:
    """How the search space is searched.

    Parameters
    ----------
    metric : str or list of str, optional
        What is optimised, ``"a/b"`` for nested metrics; several for a multi-objective search.
    mode : {'min', 'max'} or list of these, optional
        Whether less or more of it is better.
    search_alg : Searcher, SearchAlgorithm or str, optional
        Where configurations come from; grid and random search by default.
    scheduler : TrialScheduler or str, optional
        Which trials go on; by default each runs to its end.
    num_samples : int, default=1
        Samples of the search space; the points of a grid are run for each. -1 goes on until something stops the sweep.
    max_concurrent_trials : int, optional
        Trials at a time; by default as many as the cluster has resources for.
    time_budget_s : float or datetime.timedelta, optional
        Seconds after which the sweep stops.
    reuse_actors : bool, optional
        Whether a process runs one trial after another. By default it does for functions, so that a trial starts in a
        millisecond, and not for classes, which then must define ``reset_config`` to be cheap. False gives each trial a
        process of its own.
    trial_name_creator, trial_dirname_creator : callable, optional
        From a trial to its name, and to the name of its folder.
    chdir_to_trial_dir : bool, optional
        Whether trials work in their own folders, which is the default; the environment variable
        ``RAY_CHDIR_TO_TRIAL_DIR=0`` turns it off as well.
    seed : int, optional
        Makes the sweep repeatable: it fixes what is drawn from the search space, whatever the concurrency, and gives
        each trial a seed of its own for ``random``, ``numpy`` and ``torch`` (``tune.get_context().seed``).

    Raises
    ------
    TypeError, ValueError
        If an option is not what it should be; all that is wrong is said.
    """

    metric: str | Sequence[str] | None = None
    mode: str | Sequence[str] | None = None
    search_alg: Any = None
    scheduler: Any = None
    num_samples: int = 1
    max_concurrent_trials: int | None = None
    time_budget_s: float | datetime.timedelta | None = None
    reuse_actors: bool | None = None
    trial_name_creator: Callable[[Trial], str] | None = None
    trial_dirname_creator: Callable[[Trial], str] | None = None
    chdir_to_trial_dir: bool | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        problems = []
        modes = [self.mode] if isinstance(self.mode, str) or self.mode is None else list(self.mode)
        metrics = [self.metric] if isinstance(self.metric, str) or self.metric is None else list(self.metric)
        if any(mode not in ("min", "max", None) for mode in modes):
            problems.append(f"`mode` must be 'min' or 'max', got {self.mode!r}")
        if any(not isinstance(metric, str) and metric is not None for metric in metrics):
            problems.append(f"`metric` must be a name or a list of names, got {self.metric!r}")
        if len(modes) != len(metrics):
            problems.append(f"`metric` and `mode` must be of one length, got {self.metric!r} and {self.mode!r}")
        if not _is_int(self.num_samples) or (self.num_samples < 1 and self.num_samples != -1):
            problems.append(f"`num_samples` must be a whole number >= 1, or -1 for no end, got {self.num_samples!r}")
        limit = self.max_concurrent_trials
        if limit is not None and (not _is_int(limit) or limit < 0):
            problems.append(f"`max_concurrent_trials` must be a whole number >= 0 (0: no limit), got {limit!r}")
        if isinstance(self.time_budget_s, datetime.timedelta):
            self.time_budget_s = self.time_budget_s.total_seconds()
        budget = self.time_budget_s
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, (int, float)) or not budget > 0):
            problems.append(f"`time_budget_s` must be a number of seconds > 0 or a timedelta, got {budget!r}")
        if self.seed is not None and (not _is_int(self.seed) or self.seed < 0):
            problems.append(f"`seed` must be a whole number >= 0, got {self.seed!r}")
        if problems:
            raise ValueError("; ".join(problems) + ".")


@dataclass
class ResumeConfig:
    """Which trials of a restored sweep run again.

    Parameters
    ----------
    finished, unfinished, errored : {'resume', 'restart', 'skip'}
        Go on from the latest checkpoint, begin anew, or leave as it is.
    """

    class ResumeType:
        """Names of the choices."""

        RESUME = "resume"
        RESTART = "restart"
        SKIP = "skip"

    finished: str = "skip"
    unfinished: str = "resume"
    errored: str = "skip"

    def __post_init__(self) -> None:
        for name in ("finished", "unfinished", "errored"):
            value = getattr(self, name)
            if value not in ("resume", "restart", "skip"):
                raise ValueError(f"`ResumeConfig.{name}` must be 'resume', 'restart' or 'skip', got {value!r}.")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

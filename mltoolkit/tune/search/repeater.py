"""Several trials of each configuration, to see past the noise."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

from mltoolkit.tune.search._nested import copy_containers, lookup
from mltoolkit.tune.search._wrapper import SearcherWrapper
from mltoolkit.tune.search.searcher import Searcher

__all__ = ["TRIAL_INDEX", "Repeater"]

logger = logging.getLogger(__name__)

#: Key of the configuration under which a trial finds its number among the repeats.
TRIAL_INDEX = "__trial_index__"


@dataclass
class _Group:
    """The trials of one configuration. The searcher knows the first of them only."""

    primary: str
    config: dict[str, Any]
    trials: list[str]
    results: dict[str, tuple[dict[str, Any] | None, bool]] = field(default_factory=dict)


class Repeater(SearcherWrapper):
    """Repeats each configuration of a searcher, which is told the mean of the repeats.

    ``num_samples`` of the sweep counts trials: 15 with ``repeat=5`` are three configurations. A group that is not
    complete when the sweep ends is not told to the searcher. Repeats that failed, or reported no number, are left out
    of the mean; where all did, the searcher is told that the trial failed. An early-stopping scheduler makes the
    repeats incomparable.

    Parameters
    ----------
    searcher : Searcher
    repeat : int, default=1
        Trials for each configuration, at least 1.
    set_index : bool, default=True
        Put the number of the repeat into the configuration, under ``"__trial_index__"``: use it as a seed.
    """

    def __init__(self, searcher: Searcher, repeat: int = 1, set_index: bool = True) -> None:
        if isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 1:
            raise ValueError(f"`repeat` must be an int of at least 1, got {repeat!r}.")
        super().__init__(searcher)
        self.repeat = repeat
        self._set_index = set_index
        self._groups: dict[str, _Group] = {}  # by the id of each trial that has not ended
        self._current: _Group | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of the current group, or the first of a new one."""
        group = self._current
        if group is None or len(group.trials) == self.repeat:
            suggestion = self.searcher.suggest(trial_id)
            if not isinstance(suggestion, dict):
                return suggestion
            group = self._current = _Group(trial_id, copy_containers(suggestion), [])
        config: dict[str, Any] = copy_containers(group.config)
        if self._set_index:
            config[TRIAL_INDEX] = len(group.trials)
        group.trials.append(trial_id)
        self._groups[trial_id] = group
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Not passed on: the searcher learns from complete groups only."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Keep how a trial ended; tell the searcher as soon as the whole group has."""
        group = self._groups.pop(trial_id, None)
        if group is None:
            logger.warning("Trial %s is not one of the repeats; its result is left out.", trial_id)
            return
        group.results[trial_id] = (result, error)
        if len(group.results) == self.repeat:
            mean = self._mean(group)
            self.searcher.on_trial_complete(group.primary, result=mean, error=mean is None)

    def _mean(self, group: _Group) -> dict[str, Any] | None:
        names = [self.metric] if isinstance(self.metric, str) else list(self.metric or [])
        if not names:
            raise ValueError("Repeater needs a `metric` to average: give it to the searcher or to TuneConfig.")
        ended = [result for result, error in (group.results[trial] for trial in group.trials) if result and not error]
        means: dict[str, Any] = {}
        for name in names:
            values = [value for result in ended if _is_number(value := lookup(result, name))]
            if not values:
                return None
            means[name] = sum(values) / len(values)
        return {**ended[-1], **means}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)

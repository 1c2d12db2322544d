"""Rungs of successive halving: the milestones of a bracket and what trials had scored when they reached them."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort

__all__ = ["PromotionBracket", "StoppingBracket", "rung_milestones"]


def rung_milestones(min_t: float, max_t: float, reduction_factor: float, s: int = 0) -> list[float]:
    """Times at which the trials of bracket ``s`` are compared, in ascending order.

    Those of ``min_t * reduction_factor ** (s + k)`` for k = 0, 1, ... that do not exceed ``max_t``, found by
    comparison: a quotient of logarithms loses the last one where it should be an integer, as 4.9999... for
    log(243) / log(3).

    Examples
    --------
    >>> rung_milestones(1, 243, 3)
    [1, 3, 9, 27, 81, 243]
    >>> rung_milestones(1, 100, 4, s=1)
    [4, 16, 64]
    """
    milestones = []
    milestone = min_t * reduction_factor**s
    while milestone <= max_t:
        milestones.append(milestone)
        milestone = min_t * reduction_factor ** (s + len(milestones))
    return milestones


class _StoppingRung:
    """Scores at one milestone, sorted; those of NaN are left out."""

    __slots__ = ("milestone", "scores", "trial_ids")

    def __init__(self, milestone: float) -> None:
        self.milestone = milestone
        self.scores: list[float] = []
        self.trial_ids: set[str] = set()  # of live trials; ended ones are forgotten

    def cutoff(self, reduction_factor: float) -> float | None:
        """The score that a trial must reach to go on: numpy's linear percentile of those before it, to the last bit."""
        scores = self.scores
        if not scores:
            return None
        # The detour by percent is numpy's, whose roundings decide ties.
        position = (len(scores) - 1) * ((1 - 1 / reduction_factor) * 100 / 100)
        low = math.floor(position)
        a, b, t = scores[low], scores[min(low + 1, len(scores) - 1)], position - low
        if a == b:
            return a
        return b - (b - a) * (1 - t) if t >= 0.5 else a + (b - a) * t


class StoppingBracket:
    """Successive halving that stops a trial where it falls behind those that reached the milestone before it.

    Parameters
    ----------
    milestones : list of float
        Ascending.
    reduction_factor : float
        1/reduction_factor of the trials shall go on at each milestone.
    stop_last_trials : bool
        If False, a trial that has passed its latest milestone is not held against earlier ones that it skipped.
    """

    def __init__(self, milestones: list[float], reduction_factor: float, stop_last_trials: bool) -> None:
        self._reduction_factor = reduction_factor
        self._stop_last_trials = stop_last_trials
        self.rungs = [_StoppingRung(milestone) for milestone in reversed(milestones)]

    def __len__(self) -> int:
        return len(self.rungs)

    def report(self, trial_id: str, time: float, score: float) -> bool:
        """Record a result; whether the trial may go on."""
        for rung in self.rungs:
            if time < rung.milestone:
                continue
            if trial_id in rung.trial_ids:
                if self._stop_last_trials:
                    continue
                return True
            cutoff = rung.cutoff(self._reduction_factor)
            rung.trial_ids.add(trial_id)
            if math.isnan(score):
                # No score is worse. It moves no cutoff either, or failing trials would make it easier for others.
                return cutoff is None
            insort(rung.scores, score)
            return cutoff is None or score >= cutoff
        return True

    def forget(self, trial_id: str) -> None:
        """A trial has ended; its scores stay."""
        for rung in self.rungs:
            rung.trial_ids.discard(trial_id)

    def debug_string(self) -> str:
        """Milestones and cutoffs."""
        cutoffs = ((rung.milestone, rung.cutoff(self._reduction_factor)) for rung in self.rungs)
        texts = (f"Iter {time:.3f}: {None if cutoff is None else format(cutoff, '.6g')}" for time, cutoff in cutoffs)
        return f"Bracket: {' | '.join(texts)}"


class _PromotionRung:
    """Scores of all trials that reached a milestone, and which of them wait there."""

    __slots__ = ("milestone", "paused", "queue", "ranking")

    def __init__(self, milestone: float) -> None:
        self.milestone = milestone
        self.ranking: list[tuple[float, int]] = []  # (-score, arrival), best first
        self.queue: list[tuple[float, int, str]] = []  # heap of those not promoted, best first; ended ones linger
        self.paused: dict[str, tuple[float, int]] = {}

    def record(self, trial_id: str, score: float, *, waits: bool) -> None:
        key = (math.inf if math.isnan(score) else -score, len(self.ranking))
        insort(self.ranking, key)
        if waits:
            self.paused[trial_id] = key
            if not math.isnan(score):
                heapq.heappush(self.queue, (*key, trial_id))

    def promote(self, reduction_factor: float) -> str | None:
        """Take the best trial that waits out of the rung, if it is among the best 1/reduction_factor of all."""
        while self.queue and self.queue[0][2] not in self.paused:
            heapq.heappop(self.queue)
        if not self.queue:
            return None
        *key, trial_id = self.queue[0]
        if bisect_left(self.ranking, tuple(key)) >= int(len(self.ranking) / reduction_factor):
            return None
        heapq.heappop(self.queue)
        del self.paused[trial_id]
        return trial_id

    def forget(self, trial_id: str) -> None:
        if self.paused.pop(trial_id, None) is not None and len(self.queue) > 2 * len(self.paused):
            self.queue = [entry for entry in self.queue if entry[2] in self.paused]
            heapq.heapify(self.queue)


class PromotionBracket:
    """Successive halving that pauses trials at each milestone and promotes the best (Algorithm 2 of the paper).

    Parameters
    ----------
    milestones : list of float
        Ascending, without the time at which trials end anyway.
    reduction_factor : float
        Eta: a trial is promoted once it is among the best 1/eta of those that reached its rung.
    """

    def __init__(self, milestones: list[float], reduction_factor: float) -> None:
        self._reduction_factor = reduction_factor
        self.rungs = [_PromotionRung(milestone) for milestone in milestones]
        self._level: dict[str, int] = {}  # index of the next rung of each live trial

    def report(self, trial_id: str, time: float, score: float, *, waits: bool = True) -> bool:
        """Record a result; whether the trial may go on because it has not reached its next rung.

        A trial that skips milestones enters the highest that it has reached.
        """
        next_rung = self._level.get(trial_id, 0)
        reached = next_rung
        while reached < len(self.rungs) and self.rungs[reached].milestone <= time:
            reached += 1
        if reached == next_rung:
            return True
        self._level[trial_id] = reached
        self.rungs[reached - 1].record(trial_id, score, waits=waits)
        return False

    def promote(self) -> str | None:
        """The next trial to promote, out of the highest rung that has one."""
        for rung in reversed(self.rungs):
            trial_id = rung.promote(self._reduction_factor)
            if trial_id is not None:
                return trial_id
        return None

    def paused(self) -> list[str]:
        """Trials that wait for promotion, those with the least prospect first."""
        return [
            trial_id
            for rung in self.rungs
            for trial_id in sorted(rung.paused, key=rung.paused.__getitem__, reverse=True)
        ]

    def forget(self, trial_id: str) -> None:
        """A trial has ended; its scores stay."""
        level = self._level.pop(trial_id, 0)
        if level:
            self.rungs[level - 1].forget(trial_id)

    def debug_string(self) -> str:
        """Milestones, and how many trials reached each of them and wait there."""
        rungs = (f"Iter {r.milestone:.3f}: {len(r.ranking)} ({len(r.paused)} paused)" for r in reversed(self.rungs))
        return f"Bracket: {' | '.join(rungs)}"

"""One bracket of HyperBand: trials that are halved together."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Bracket"]


@dataclass
class Member:
    """What is known of a live trial of a bracket."""

    time: float = 0
    score: float = -math.inf


class Bracket:
    """Up to `max_trials` trials that run `init_t` first; then the best 1/eta of them run eta times as long, and so on.

    Parameters
    ----------
    max_trials : int
        n of the paper.
    init_t : int
        r of the paper: the first milestone.
    max_t : int
        R of the paper: the last milestone.
    eta : float
    s : int
        How often the bracket is halved.
    stop_last_trials : bool
        Whether trials end at the last milestone.
    """

    def __init__(self, max_trials: int, init_t: int, max_t: float, eta: float, s: int, stop_last_trials: bool) -> None:
        self.s = s
        self.live: dict[str, Member] = {}
        self.runnable: dict[str, None] = {}  # those that do not wait
        self._behind: set[str] = set()  # those that have still to reach the milestone
        self.milestone = init_t
        self.size = max_trials
        self._max_t = max_t
        self._eta = eta
        self._halvings_left = s
        self._admitted = 0
        self._stop_last_trials = stop_last_trials
        self._progress = 0.0
        self._work = _total_work(max_trials, init_t, max_t, eta, s)

    @property
    def accepts_trials(self) -> bool:
        """Whether there is room: a bracket that was halved takes no newcomers."""
        return self._halvings_left == self.s and self._admitted < self.size

    @property
    def ends_trials(self) -> bool:
        """Whether trials that reach the milestone have finished."""
        return self._halvings_left == 0 and self._stop_last_trials

    def add_trial(self, trial_id: str) -> None:
        """Take in a new trial."""
        self._admitted += 1
        self.live[trial_id] = Member()
        self.runnable[trial_id] = None
        self._behind.add(trial_id)

    def forget(self, trial_id: str) -> None:
        """Let go a trial that has ended."""
        self.live.pop(trial_id, None)
        self.runnable.pop(trial_id, None)
        self._behind.discard(trial_id)

    def vacate(self) -> None:
        """Let another trial take the place of one that failed."""
        self._admitted -= 1

    def report(self, trial_id: str, time: float, score: float) -> None:
        """Record the latest result of a trial, which runs."""
        member = self.live[trial_id]
        self._progress += time - member.time
        member.time, member.score = time, -math.inf if math.isnan(score) else score
        self.wake(trial_id)
        if time < self.milestone:
            self._behind.add(trial_id)
        else:
            self._behind.discard(trial_id)

    def pause(self, trial_id: str) -> None:
        """Let a trial wait for the others."""
        self.runnable.pop(trial_id, None)

    def wake(self, trial_id: str) -> None:
        """Let a trial run."""
        self.runnable.setdefault(trial_id)

    def waits(self, trial_id: str) -> bool:
        """Whether a trial waits for the others."""
        return trial_id not in self.runnable

    def goes_on(self, trial_id: str) -> bool:
        """Whether a trial has still to reach the milestone, or there is none any more."""
        if self._halvings_left == 0 and not self._stop_last_trials:
            return True
        return self.live[trial_id].time < self.milestone

    def all_arrived(self) -> bool:
        """Whether no live trial has still to reach the milestone."""
        return not self._behind

    def halve(self) -> tuple[list[str], list[str]]:
        """Raise the milestone, and divide the live trials into those that are kept and those that are not."""
        self._halvings_left -= 1
        self.size = math.ceil(self.size / self._eta)
        self.milestone = int(min(self.milestone * self._eta, self._max_t))
        self._behind = {trial_id for trial_id, member in self.live.items() if member.time < self.milestone}
        ranking = sorted(
            self.live, key=lambda trial_id: self.live[trial_id].score
        )  # stable: the later of equals is kept
        return ranking[-self.size :], ranking[: -self.size]

    def can_halve(self) -> bool:
        """Whether there is a further round."""
        return self._halvings_left > 0

    def completion_percentage(self) -> float:
        """Share of the bracket's work that is done, from 0 to 1; trials that ended early count as not done."""
        if self.ends_trials and self.all_arrived():
            return 1.0
        return min(self._progress / self._work, 1.0)

    def __str__(self) -> str:
        waiting = len(self.live) - len(self.runnable)
        return (
            f"Bracket(Max Size (n)={self.size}, Milestone (r)={self.milestone}, "
            f"completed={self.completion_percentage():.1%}): {{PAUSED: {waiting}, other: {len(self.runnable)}}}"
        )


def _total_work(n: int, r: float, max_t: float, eta: float, s: int) -> float:
    """Time units of a full bracket; only a yardstick for what is done of it."""
    work, first = 0, r
    for _ in range(s + 1):
        work += int(n) * int(r)
        n = math.ceil(n / eta)
        r = int(min(r * eta, max_t - first))
    return max(work, 1)

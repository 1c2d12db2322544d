"""A limit to how many of a searcher's trials run at a time."""

from __future__ import annotations

from typing import Any

from mltoolkit.tune.search._wrapper import SearcherWrapper
from mltoolkit.tune.search.searcher import Searcher

__all__ = ["ConcurrencyLimiter"]


class ConcurrencyLimiter(SearcherWrapper):
    """Limits how many trials of a searcher run at a time.

    A searcher that learns from results suggests better the more of them it has seen. One that limits itself is told
    the number and left to it.

    Parameters
    ----------
    searcher : Searcher
    max_concurrent : int
        At least 1.
    batch : bool, default=False
        Suggest ``max_concurrent`` configurations, wait until all of these trials ended, and let the searcher learn
        from them at once.

    Examples
    --------
    >>> from mltoolkit.tune.search.searcher import Searcher
    >>> class Constant(Searcher):
    ...     def suggest(self, trial_id):
    ...         return {"lr": 0.1}
    ...     def on_trial_complete(self, trial_id, result=None, error=False):
    ...         pass
    >>> limited = ConcurrencyLimiter(Constant(), max_concurrent=1)
    >>> limited.suggest("a"), limited.suggest("b")
    ({'lr': 0.1}, None)
    >>> limited.on_trial_complete("a")
    >>> limited.suggest("b")
    {'lr': 0.1}
    """

    def __init__(self, searcher: Searcher, max_concurrent: int, batch: bool = False) -> None:
        if isinstance(max_concurrent, bool) or not isinstance(max_concurrent, int) or max_concurrent < 1:
            raise ValueError(f"`max_concurrent` must be an int of at least 1, got {max_concurrent!r}.")
        super().__init__(searcher)
        self.max_concurrent = max_concurrent
        self.batch = batch
        self.live_trials: dict[str, None] = {}  # in the order of their suggestion
        self.cached_results: dict[str, tuple[dict[str, Any] | None, bool]] = {}
        self._limit_concurrency = not searcher.set_max_concurrency(max_concurrent)

    def get_state(self) -> dict[str, Any]:
        """Which trials run, and what the searcher has not been told yet. The limit is the constructor's."""
        return {"live_trials": self.live_trials, "cached_results": self.cached_results}

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take the limit of another limiter around this one, in place of its own."""
        self.max_concurrent = max_concurrent
        self._limit_concurrency = not self.searcher.set_max_concurrency(max_concurrent)
        return True

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Pass metric, mode and search space on to the searcher."""
        taken = super().set_search_properties(metric, mode, config, **spec)
        self._limit_concurrency = not self.searcher.set_max_concurrency(self.max_concurrent)
        return taken

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What the searcher suggests; None while ``max_concurrent`` trials run."""
        if not self._limit_concurrency:
            return self.searcher.suggest(trial_id)
        if trial_id in self.live_trials:
            raise ValueError(f"Trial {trial_id!r} was given a configuration before and has not ended.")
        if len(self.live_trials) >= self.max_concurrent:
            return None
        suggestion = self.searcher.suggest(trial_id)
        if isinstance(suggestion, dict):
            self.live_trials[trial_id] = None
        return suggestion

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the searcher how a trial ended; with ``batch``, as soon as all of its batch have."""
        if not self._limit_concurrency:
            self.searcher.on_trial_complete(trial_id, result=result, error=error)
            return
        if trial_id not in self.live_trials:
            return
        self.cached_results[trial_id] = (result, error)
        if self.batch and len(self.cached_results) < len(self.live_trials):
            return
        for ended, (last, failed) in self.cached_results.items():
            self.searcher.on_trial_complete(ended, result=last, error=failed)
            del self.live_trials[ended]
        self.cached_results = {}

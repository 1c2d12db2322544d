"""A searcher as the search algorithm of a sweep."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

from mltoolkit.tune.search._global_random import draw_seed, mix, seeded_globals
from mltoolkit.tune.search._nested import assign_value, copy_containers, flatten, get_value, merge
from mltoolkit.tune.search._wrapper import pass_search_properties, state_from_bytes, state_to_bytes
from mltoolkit.tune.search.repeater import Repeater
from mltoolkit.tune.search.sample import Domain
from mltoolkit.tune.search.search_algorithm import SearchAlgorithm, Suggestion
from mltoolkit.tune.search.searcher import Searcher, check_metric_and_mode, check_num_samples, write_atomically
from mltoolkit.tune.search.variant_generator import (
    flatten_resolved_vars,
    format_path,
    resolve_functions,
    unresolved_values,
)

__all__ = ["SearchGenerator"]

logger = logging.getLogger(__name__)


class SearchGenerator(SearchAlgorithm):
    """Lets a sweep ask a :class:`Searcher` for ``num_samples`` configurations.

    The searcher is given ``param_space``; what it suggests is put over the constants in there. ``sample_from`` values
    are not the searcher's business: they are computed afterwards, from what it suggested.

    Parameters
    ----------
    searcher : Searcher
    """

    def __init__(self, searcher: Searcher) -> None:
        if not isinstance(searcher, Searcher):
            raise TypeError(f"`search_alg` must be a Searcher or a SearchAlgorithm, got {searcher!r}.")
        self.searcher = searcher
        self._space: dict[str, Any] | None = None
        self._functions: list[tuple[tuple[Any, ...], Domain]] = []
        self._num_samples: int | None = None
        self._seed: int | None = None
        self._made = 0
        self._finished = False

    @property
    def metric(self) -> Any:
        """What the searcher optimises."""
        return self.searcher.metric

    @property
    def mode(self) -> Any:
        """In which direction."""
        return self.searcher.mode

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any] | None, **spec: Any) -> bool:
        """Give metric, mode and search space to the searcher; False if it keeps a space of its own.

        Raises
        ------
        TypeError
            If the search space is no dict.
        ValueError
            If the searcher has a space of its own and ``config`` holds values to search as well, or if the searcher
            cannot take the space.
        """
        check_metric_and_mode(metric, mode)
        config = {} if config is None else config
        if not isinstance(config, dict):
            raise TypeError(f"`param_space` must be a dict, got {type(config).__name__}: {config!r}.")
        space = copy_containers(config)
        found = unresolved_values(space)
        functions = [(path, domain) for path, domain in found if domain.is_function()]
        searched = [(path, domain) for path, domain in found if not domain.is_function()]
        taken = pass_search_properties(self.searcher, metric, mode, _without(space, functions), **spec)
        if not taken and searched:
            raise ValueError(
                f"{_name(self.searcher)} has a search space of its own, or takes none, but `param_space` holds a value "
                f"to search at {format_path(searched[0][0])!r}. Define the search space in one of the two places."
            )
        self._space = space
        self._functions = functions
        return taken

    def prepare(self, num_samples: int, *, seed: int | None = None) -> None:
        """Learn the number of samples (-1: without end) and the sweep's seed.

        After :meth:`restore`, or once the first configuration is out, the number may still be raised, and the seed
        stays what it was.
        """
        check_num_samples(num_samples)
        if isinstance(self.searcher, Repeater) and num_samples % self.searcher.repeat and num_samples != -1:
            logger.warning(
                "`num_samples` counts trials, repeats included: %d is no multiple of repeat=%d, so the searcher does "
                "not learn from the last ones.",
                num_samples,
                self.searcher.repeat,
            )
        self._num_samples = num_samples
        if self._seed is None:
            self._seed = draw_seed() if seed is None else seed
            if not self.searcher.set_seed(self._seed) and seed is not None:
                logger.info("%s takes no seed from the sweep; give it one of its own.", _name(self.searcher))

    @property
    def total_samples(self) -> int | None:
        """How many configurations there will be, unless the searcher finishes before; None for a sweep without end."""
        return None if self._num_samples == -1 else self._num_samples

    def next_suggestion(self, trial_id: str) -> Suggestion | None:
        """The searcher's next configuration, the constants of the search space filled in."""
        if self._space is None or self._num_samples is None or self._seed is None:
            raise RuntimeError("Call `set_search_properties` and `prepare` first.")
        if self.is_finished():
            return None
        suggested = self.searcher.suggest(trial_id)
        if suggested is None:
            return None
        if isinstance(suggested, str) and suggested == Searcher.FINISHED:
            self._finished = True
            return None
        if not isinstance(suggested, dict):
            raise TypeError(
                f"{_name(self.searcher)}.suggest must return a dict, Searcher.FINISHED or None, got {suggested!r}."
            )
        config = merge(self._space, suggested)
        self._check_resolved(config)
        evaluated = flatten(suggested)
        if self._functions:
            for path, function in self._functions:
                assign_value(config, path, function)  # searchers may return whole lists, with a gap in this place
            with seeded_globals(mix(self._seed, self._made)):
                computed = resolve_functions({"config": config}, [(("config", *p), f) for p, f in self._functions])
            self._check_resolved(config)
            evaluated.update(flatten_resolved_vars(computed))
        self._made += 1
        return Suggestion(config, evaluated)

    def is_finished(self) -> bool:
        """Whether ``num_samples`` configurations are out, or the searcher has no more."""
        return self._finished or (
            self._num_samples is not None and self._num_samples != -1 and self._made >= self._num_samples
        )

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the searcher."""
        self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the searcher."""
        self.searcher.on_trial_complete(trial_id, result=result, error=error)

    def save(self, checkpoint_path: str | Path) -> None:
        """Write the state, that of the searcher and its wrappers included, to a file."""
        state = {"seed": self._seed, "made": self._made, "finished": self._finished}
        write_atomically(checkpoint_path, pickle.dumps((state, state_to_bytes(self.searcher))))

    def restore(self, checkpoint_path: str | Path) -> None:
        """Take the state from a file that :meth:`save` wrote."""
        state, within = pickle.loads(Path(checkpoint_path).read_bytes())
        self._seed = state["seed"]
        self._made = state["made"]
        self._finished = state["finished"]
        state_from_bytes(self.searcher, within)
        if within is None and self._seed is not None:
            self.searcher.set_seed(self._seed)

    def _check_resolved(self, config: dict[str, Any]) -> None:
        functions = {path for path, _ in self._functions}
        for path, domain in unresolved_values(config):
            if path not in functions or not domain.is_function():
                raise ValueError(
                    f"{_name(self.searcher)} suggested no value for {format_path(path)!r}, which is {domain!r}."
                )


def _without(space: dict[str, Any], functions: list[tuple[tuple[Any, ...], Domain]]) -> dict[str, Any]:
    """A copy of the space without its functions: keys of dicts are gone, elements of lists are None."""
    rest: dict[str, Any] = copy_containers(space)
    for path, _ in functions:
        parent = get_value(rest, path[:-1])
        if isinstance(parent, dict):
            del parent[path[-1]]
        else:
            assign_value(rest, path, None)
    return rest


def _name(searcher: Any) -> str:
    while isinstance(within := getattr(searcher, "searcher", None), Searcher):
        searcher = within
    return type(searcher).__name__

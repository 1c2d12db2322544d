"""Grid and random search."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from mltoolkit.tune.search._global_random import draw_seed, mix, seeded_globals
from mltoolkit.tune.search._nested import copy_containers
from mltoolkit.tune.search._samplers import RandomSource
from mltoolkit.tune.search.sample import Categorical, Domain
from mltoolkit.tune.search.search_algorithm import SearchAlgorithm, Suggestion
from mltoolkit.tune.search.searcher import check_metric_and_mode, check_num_samples, write_atomically
from mltoolkit.tune.search.variant_generator import (
    count_variants,
    flatten_resolved_vars,
    generate_variants,
    overlay,
    parse_spec_vars,
)

if TYPE_CHECKING:
    from mltoolkit.tune.search._samplers import RandomState

__all__ = ["BasicVariantGenerator"]


class BasicVariantGenerator(SearchAlgorithm):
    """Grid search and random search, combined: the default of a sweep.

    Each of the ``num_samples`` samples walks once through the whole grid, and draws the distributions anew for each of
    its points. Configurations are made when they are asked for, always in the same order.

    Parameters
    ----------
    points_to_evaluate : list of dict, optional
        Configurations to try first, nested or under flat names (``"model/lr"``). Each takes the place of one sample;
        what it leaves out is drawn, or walked through, as usual.
    max_concurrent : int, default=0
        How many trials may run at a time; 0 for as many as the resources allow.
    constant_grid_search : bool, default=False
        Draw the distributions once for each sample, and keep their values over the grid.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        Where randomness comes from. None takes the sweep's seed, and where there is none, one drawn from numpy's
        global generator. Python's and numpy's global generators are seeded from it while functions given to
        ``sample_from`` are called, and put back afterwards.

    Examples
    --------
    >>> from mltoolkit.tune.search.sample import randint
    >>> search = BasicVariantGenerator(points_to_evaluate=[{"a": 2, "b": 9}], random_state=0)
    >>> search.set_search_properties("loss", "min", {"a": {"grid_search": [1, 2]}, "b": randint(0, 3)})
    True
    >>> search.prepare(num_samples=2)
    >>> [search.next_suggestion(f"t{i}").config for i in range(search.total_samples)]
    [{'a': 2, 'b': 9}, {'a': 1, 'b': 2}, {'a': 2, 'b': 1}]
    """

    def __init__(
        self,
        points_to_evaluate: list[dict[str, Any]] | None = None,
        max_concurrent: int = 0,
        constant_grid_search: bool = False,
        random_state: RandomState = None,
    ) -> None:
        if isinstance(max_concurrent, bool) or not isinstance(max_concurrent, int) or max_concurrent < 0:
            raise ValueError(f"`max_concurrent` must be an int of at least 0 (no limit), got {max_concurrent!r}.")
        if not isinstance(points_to_evaluate, (list, tuple, type(None))):
            raise TypeError(f"`points_to_evaluate` must be a list of dicts, got {points_to_evaluate!r}.")
        self.max_concurrent = max_concurrent
        self._points = copy_containers(list(points_to_evaluate or []))
        self._constant = constant_grid_search
        self._random_state = _checked(random_state)
        self._spec: dict[str, Any] | None = None
        self._calls_functions = False
        self._num_samples: int | None = None
        self._total: int | None = None
        self._seed: int | None = None
        self._source: RandomSource | None = None
        self._live: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        """Where the walk stands. The variants of a sample follow from the generator's state at its start."""
        self._samples_started = 0
        self._variants: Iterator[Any] | None = None
        self._variants_made = 0
        self._made = 0
        self._state_at_start: dict[str, Any] | None = None
        self._exhausted = False

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any] | None, **spec: Any) -> bool:
        """Take the search space of the sweep and start from its beginning. Metric and mode do not matter here.

        Raises
        ------
        TypeError
            If the search space is no dict.
        ValueError
            If a point to evaluate or the search space is invalid.
        """
        check_metric_and_mode(metric, mode)
        config = {} if config is None else config
        if not isinstance(config, dict):
            raise TypeError(f"`param_space` must be a dict, got {type(config).__name__}: {config!r}.")
        own = {"config": copy_containers(config)}
        parse_spec_vars(own)
        for point in self._points:
            overlay(own, point, warn=True)
        self._calls_functions = _may_call([own, self._points])
        self._spec = own
        self._num_samples = self._total = self._seed = self._source = None
        self._live = set()
        self._begin()
        return True

    def prepare(self, num_samples: int, *, seed: int | None = None) -> None:
        """Learn the number of samples (-1: without end) and the sweep's seed.

        After :meth:`restore`, or once the first configuration is out, the number may still be raised, and the seed
        stays what it was.
        """
        check_num_samples(num_samples)
        spec = self._require_space()
        self._num_samples = num_samples
        self._total = None if num_samples == -1 else count_variants({**spec, "num_samples": num_samples}, self._points)
        self._exhausted = False
        if self._seed is None:
            own = self._random_state
            if own is None:
                self._seed = draw_seed() if seed is None else seed
            else:
                self._seed = own if isinstance(own, int) else crc32(repr(RandomSource(own).get_state()).encode())

    @property
    def total_samples(self) -> int | None:
        """How many configurations there will be: all samples times the grid, points to evaluate included.

        None for a sweep without end, or where chance decides between values of which some hold grids.
        """
        return self._total

    def next_suggestion(self, trial_id: str) -> Suggestion | None:
        """The next configuration; None if there are no more, or ``max_concurrent`` trials run."""
        if self.max_concurrent and len(self._live) >= self.max_concurrent:
            return None
        variant = self._advance()
        if variant is None:
            return None
        self._live.add(trial_id)
        resolved, spec = variant
        return Suggestion(spec["config"], flatten_resolved_vars(resolved))

    def is_finished(self) -> bool:
        """Whether all configurations were given out."""
        return self._exhausted or (self._total is not None and self._made >= self._total)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn that a trial ended, which makes room for another one."""
        self._live.discard(trial_id)

    def get_state(self) -> dict[str, Any]:
        """Where the walk stands: small, however many configurations were given out."""
        return {
            "seed": self._seed,
            "samples_started": self._samples_started,
            "variants_made": self._variants_made,
            "made": self._made,
            "in_sample": self._variants is not None,
            "generator": self._state_at_start,
            "live": sorted(self._live),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`get_state` was called. The search space must be set, and be the same."""
        self._require_space()
        self._seed = state["seed"]
        self._live = set(state["live"])
        self._state_at_start = state["generator"]
        self._source = None if self._state_at_start is None else RandomSource.from_state(self._state_at_start)
        self._variants = None
        self._samples_started = state["samples_started"]
        self._variants_made = 0
        self._made = state["made"]
        self._exhausted = False
        if state["in_sample"]:
            self._samples_started -= 1
            self._made -= state["variants_made"]
            self._start_sample()
            for _ in range(state["variants_made"]):
                self._next_of_sample()

    def save(self, checkpoint_path: str | Path) -> None:
        """Write the state to a file."""
        write_atomically(checkpoint_path, pickle.dumps(self.get_state()))

    def restore(self, checkpoint_path: str | Path) -> None:
        """Take the state from a file that :meth:`save` wrote."""
        self.set_state(pickle.loads(Path(checkpoint_path).read_bytes()))

    def _require_space(self) -> dict[str, Any]:
        if self._spec is None:
            raise RuntimeError("Call `set_search_properties` first: there is no search space yet.")
        return self._spec

    def _advance(self) -> Any:
        """The next variant, or None if there are no more."""
        if self._num_samples is None:
            raise RuntimeError("Call `prepare` first: the number of samples is not known yet.")
        while True:
            if self._variants is not None:
                variant = self._next_of_sample()
                if variant is not None:
                    return variant
                self._variants = None
            wanted = max(self._num_samples, len(self._points))
            if self._num_samples != -1 and self._samples_started >= wanted:
                self._exhausted = True
                return None
            self._start_sample()

    def _start_sample(self) -> None:
        if self._source is None:
            own = self._random_state
            self._source = RandomSource(self._seed if own is None else own)
        self._state_at_start = self._source.get_state()
        spec = self._require_space()
        if self._samples_started < len(self._points):
            spec = overlay(spec, self._points[self._samples_started])
        self._variants = generate_variants(spec, self._constant, self._source)
        self._variants_made = 0
        self._samples_started += 1

    def _next_of_sample(self) -> Any:
        """The next variant of this sample, or None if it has no more."""
        if self._variants is None or self._seed is None:
            return None
        with seeded_globals(mix(self._seed, self._made)) if self._calls_functions else contextlib.nullcontext():
            variant = next(self._variants, None)
        if variant is not None:
            self._made += 1
            self._variants_made += 1
        return variant


def _checked(random_state: Any) -> Any:
    """An int as a plain one; a generator, or None, as it is."""
    if random_state is None:
        return None
    if hasattr(random_state, "__index__") and not isinstance(random_state, bool):
        return int(random_state)
    return RandomSource(random_state).rng


def _may_call(value: Any) -> bool:
    """Whether resolving a value may call a function of the user."""
    if isinstance(value, Categorical):
        return any(map(_may_call, value.categories))
    if isinstance(value, Domain):
        return value.is_function()
    if isinstance(value, dict):
        return any(map(_may_call, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_may_call, value))

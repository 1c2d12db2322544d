"""Search with the package bayesian-optimization: a Gaussian process and an acquisition function."""

from __future__ import annotations

import difflib
import logging
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from mltoolkit.tune.search._library import LibrarySearcher, Range, describe, domains_of, load, one_thread, unsupported
from mltoolkit.tune.search._nested import flatten, lookup

__all__ = ["BayesOptSearch"]

logger = logging.getLogger(__name__)

_UTILITY_DEFAULTS = {"kind": "ucb", "kappa": 2.576, "xi": 0.0, "kappa_decay": 1.0, "kappa_decay_delay": 0}
_KINDS = ("ucb", "ei", "poi")


class BayesOptSearch(LibrarySearcher):
    """Suggest with the package bayesian-optimization, for spaces of floats.

    Parameters
    ----------
    space : dict, optional
        A search space of Tune, or ``{"name": (lower, upper)}``. None takes ``param_space``.
    metric : str, optional
    mode : {'min', 'max'}, optional
    points_to_evaluate : list of dict, optional
        Configurations to suggest first.
    utility_kwargs : dict, optional
        The acquisition function: ``kind`` (``"ucb"``, ``"ei"`` or ``"poi"``), ``kappa``, ``xi``, ``kappa_decay`` and
        ``kappa_decay_delay``; by default ``ucb`` with ``kappa=2.576``.
    random_state : int, default=42
        Seed. None takes the sweep's.
    random_search_steps : int, default=10
        Trials at random, `points_to_evaluate` included, before the Gaussian process is asked; it waits for all of them.
    verbose : int, default=0
        Passed to the package.
    patience : int, default=5
        The search is over once one configuration was suggested more often than this.
    skip_duplicate : bool, default=True
        Whether a configuration that was suggested before is passed over, as long as there is patience.
    analysis : ExperimentAnalysis, optional
        An earlier sweep to learn from.
    repeat_float_precision : int, default=5
        Decimal places in which configurations must agree to count as the same.

    Notes
    -----
    Log-uniform parameters are searched by their logarithm. Quantised ones are searched as if they were not and rounded
    afterwards. While trials run, a suggestion that repeats one is held back until a result comes in, which the Gaussian
    process needs to say something new.

    References
    ----------
    Snoek, Larochelle, Adams, Practical Bayesian Optimization of Machine Learning Algorithms, arXiv:1206.2944.
    """

    def __init__(
        self,
        space: dict[str, Any] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: list[dict[str, Any]] | None = None,
        utility_kwargs: dict[str, Any] | None = None,
        random_state: int | None = 42,
        random_search_steps: int = 10,
        verbose: int = 0,
        patience: int = 5,
        skip_duplicate: bool = True,
        analysis: Any = None,
        repeat_float_precision: int = 5,
    ) -> None:
        _load()
        if isinstance(repeat_float_precision, bool) or not isinstance(repeat_float_precision, int):
            raise TypeError(f"`repeat_float_precision` must be an int, got {repeat_float_precision!r}.")
        if repeat_float_precision < 0:
            raise ValueError(f"`repeat_float_precision` must be >= 0, got {repeat_float_precision!r}.")
        if patience < 1:
            raise ValueError(f"`patience` must be >= 1, got {patience!r}.")
        if random_search_steps < 0:
            raise ValueError(f"`random_search_steps` must be >= 0, got {random_search_steps!r}.")
        self._utility_kwargs = _checked_utility(utility_kwargs or {})
        self._random_search_steps = random_search_steps
        self._verbose = verbose
        self._patience = patience
        self._skip_duplicate = skip_duplicate
        self._precision = repeat_float_precision
        self._evaluated: list[tuple[dict[str, Any], float]] = []
        self._counts: dict[tuple[float, ...], int] = {}
        self._n_random = 0
        self._n_random_ended = 0
        self._n_told = 0
        self._held_back: tuple[int, int] | None = None
        self._is_over = False
        self._rng: Any = None
        self._optimizer: Any = None
        self._utility: Any = None
        self._random_trials: set[str] = set()
        super().__init__(space, metric, mode, points_to_evaluate, random_state)
        if analysis is not None:
            if self._metric is None:
                raise ValueError("`analysis` needs `metric` too: the name under which its trials reported the value.")
            self.add_evaluated_trials(analysis, self._metric)

    @staticmethod
    def convert_search_space(spec: dict[str, Any], join: bool = False) -> dict[str, Any]:
        """Convert a search space of Tune into ``{"flat/name": (lower, upper)}``.

        Parameters
        ----------
        spec : dict
        join : bool, default=False
            Whether constants are kept beside the bounds.

        Raises
        ------
        ValueError
            For anything but floats with bounds.
        """
        bounds: dict[str, Any] = {}
        for name, domain in domains_of(BayesOptSearch, spec).items():
            described = describe(domain)
            if not isinstance(described, Range) or described.integer:
                raise unsupported(
                    BayesOptSearch,
                    name,
                    domain,
                    "Use a float with bounds (tune.uniform; tune.quniform(1, 8, 1) for whole numbers), or OptunaSearch.",
                )
            bounds[name] = (described.low, described.high)
        return {**flatten(spec), **bounds} if join else bounds

    def _take_space(self, space: Any, argument: str) -> None:
        if not isinstance(space, dict):
            raise TypeError(f"`{argument}` must be a dict, got {type(space).__name__}.")
        super()._take_space(space, argument)
        for name, bounds in self._space.items():
            if not (isinstance(bounds, (tuple, list)) and len(bounds) == 2 and bounds[0] < bounds[1]):
                raise ValueError(f"`{argument}` must hold (lower, upper) with lower < upper, got {name}={bounds!r}.")

    def _names(self) -> Iterable[str]:
        return self._space

    def _warp(self, name: str, value: float) -> float:
        """From the value of a parameter to the number that is searched."""
        described = self._domains.get(name)
        return math.log(value) if isinstance(described, Range) and described.log else float(value)

    def _unwarp(self, point: Mapping[str, float]) -> dict[str, float]:
        flat = {}
        for name, value in point.items():
            described = self._domains.get(name)
            if isinstance(described, Range):
                flat[name] = described.snap(math.exp(value) if described.log else value)
            else:
                flat[name] = float(value)
        return flat

    def _setup(self, seed: int) -> None:
        import numpy as np

        bayes_opt = _load()
        self._rng = np.random.RandomState(seed % 2**32)
        bounds = {
            name: (self._warp(name, lower), self._warp(name, upper)) for name, (lower, upper) in self._space.items()
        }
        options: dict[str, Any] = {}
        self._utility = _make_utility(bayes_opt, self._utility_kwargs)
        if not hasattr(self._utility, "utility"):  # the package's second generation
            options["acquisition_function"] = self._utility
        self._optimizer = bayes_opt.BayesianOptimization(
            f=None,
            pbounds=bounds,
            random_state=self._rng,
            verbose=self._verbose,
            allow_duplicate_points=True,
            **options,
        )
        self._bounds = bounds
        for parameters, value in self._evaluated:
            self._tell({name: lookup(parameters, name) for name in self._space}, value)
        self._evaluated = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next point; None while the random trials run or nothing new can be said; ``FINISHED`` without patience."""
        self._prepare()
        if trial_id in self._live:
            return self._nested(self._live[trial_id])
        if self._is_over:
            return self.FINISHED
        is_random = self._n_random < self._random_search_steps
        if self._points:
            flat = self._filled(self._points.pop(0), self._draw_seed())
            is_random = True
        elif is_random:
            flat = self._unwarp({name: float(self._rng.uniform(*bounds)) for name, bounds in self._bounds.items()})
        elif self._n_random_ended < self._n_random:
            return None
        else:
            found = self._model_point()
            if found is None:
                return self.FINISHED if self._is_over else None
            flat = found
        if is_random:
            self._n_random += 1
            self._random_trials.add(trial_id)
        self._count(flat)
        self._live[trial_id] = flat
        return self._nested(flat)

    def _draw_seed(self) -> int:
        return int(self._rng.randint(2**31 - 1))

    def _model_point(self) -> dict[str, float] | None:
        """A point of the acquisition function's that is new enough, or None."""
        situation = (self._n_told, len(self._live))
        if self._held_back == situation:
            return None
        before = self._rng.get_state(), dict(self._utility.__dict__)
        while True:
            flat = self._unwarp(self._ask())
            if not self._skip_duplicate or self._key(flat) not in self._counts:
                if self._counts.get(self._key(flat), 0) < self._patience:
                    return flat
            elif self._live:
                # Nothing was suggested: the state is as if nothing had been asked.
                self._rng.set_state(before[0])
                self._utility.__dict__.update(before[1])
                self._held_back = situation
                return None
            self._count(flat)
            if self._counts[self._key(flat)] > self._patience:
                logger.warning(
                    "BayesOptSearch has suggested one configuration more than %d times and ends the search. To go on, "
                    "widen the search space, raise `patience`, or set skip_duplicate=False with more patience.",
                    self._patience,
                )
                self._is_over = True
                return None

    def _ask(self) -> dict[str, float]:
        with one_thread():
            if hasattr(self._utility, "utility"):
                self._utility.update_params()
                return dict(self._optimizer.suggest(self._utility))
            return dict(self._optimizer.suggest())

    def _key(self, flat: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(round(float(flat[name]), self._precision) for name in sorted(flat))

    def _count(self, flat: Mapping[str, float]) -> None:
        key = self._key(flat)
        self._counts[key] = self._counts.get(key, 0) + 1

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Let the Gaussian process learn a result; a trial without a finite one is left out."""
        flat = self._live.pop(trial_id, None)
        if flat is None:
            return
        if trial_id in self._random_trials:
            self._random_trials.discard(trial_id)
            self._n_random_ended += 1
        self._n_told += 1
        loss = None if error else self._loss(trial_id, result)
        if loss is not None:
            self._tell(flat, -loss)

    def _tell(self, flat: Mapping[str, float], target: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._optimizer.register({name: self._warp(name, value) for name, value in flat.items()}, target)

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Let the Gaussian process learn a point that was evaluated elsewhere; failed ones are left out."""
        if error or pruned or not math.isfinite(value):
            return
        if self._is_set_up:
            target = -value if self._mode == "min" else value
            self._tell({name: lookup(parameters, name) for name in self._space}, target)
        else:
            self._evaluated.append((parameters, value))

    def register_analysis(self, analysis: Any) -> None:
        """Learn from the trials of another sweep, which reported the same metric."""
        self.add_evaluated_trials(analysis, self._metric)


def _load() -> Any:
    return load("bayes_opt", "BayesOptSearch", "bayesopt")


def _checked_utility(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in _UTILITY_DEFAULTS:
            near = difflib.get_close_matches(name, _UTILITY_DEFAULTS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"`utility_kwargs` may hold {sorted(_UTILITY_DEFAULTS)}, got {name!r}.{hint}")
    utility = {**_UTILITY_DEFAULTS, **given}
    if utility["kind"] not in _KINDS:
        raise ValueError(f"`utility_kwargs['kind']` must be one of {_KINDS}, got {utility['kind']!r}.")
    return utility


def _make_utility(bayes_opt: Any, utility: Mapping[str, Any]) -> Any:
    """The acquisition function, in the form of the package's first or second generation."""
    if hasattr(bayes_opt, "UtilityFunction") and not hasattr(bayes_opt, "acquisition"):
        return bayes_opt.UtilityFunction(**utility)
    acquisition = bayes_opt.acquisition
    if utility["kind"] == "ucb":
        decay = utility["kappa_decay"]
        return acquisition.UpperConfidenceBound(
            kappa=utility["kappa"],
            exploration_decay=decay if decay < 1 else None,
            exploration_decay_delay=utility["kappa_decay_delay"] or None,
        )
    if utility["kind"] == "ei":
        return acquisition.ExpectedImprovement(xi=utility["xi"])
    return acquisition.ProbabilityOfImprovement(xi=utility["xi"])

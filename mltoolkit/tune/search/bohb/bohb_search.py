"""The suggestions of BOHB, for use with HyperBandForBOHB."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import Any

from mltoolkit._optional import require
from mltoolkit.tune.search._library import (
    Choice,
    Gaussian,
    LibrarySearcher,
    Range,
    describe,
    domains_of,
    unsupported,
)
from mltoolkit.tune.search._nested import lookup
from mltoolkit.tune.search.bohb._kde import DensityRatio, KernelSettings, min_points

__all__ = ["TuneBOHB"]

_EDGE = 1e-12


class TuneBOHB(LibrarySearcher):
    """Suggest as BOHB does: by the ratio of two kernel density estimates, of good and of bad configurations.

    Meant for :class:`~mltoolkit.tune.schedulers.HyperBandForBOHB`, which tells at each milestone how good a trial is
    there. The model is made of the results at the largest budget that has enough of them. With another scheduler it is
    made of the last results of finished trials, with the number of iterations as their budget.

    Parameters
    ----------
    space : dict, optional
        A search space of Tune. None takes ``param_space``.
    bohb_config : dict, optional
        ``min_points_in_model`` (default: number of parameters plus one), ``top_n_percent`` (15), ``num_samples`` (64),
        ``random_fraction`` (1/3), ``bandwidth_factor`` (3) and ``min_bandwidth`` (0.001).
    metric : str, optional
    mode : {'min', 'max'}, optional
    points_to_evaluate : list of dict, optional
        Configurations to suggest first.
    seed : int, optional
        None takes the sweep's.
    max_concurrent : int, default=0
        How many trials may run at once, paused ones not counted; 0 or less sets no limit. A ``ConcurrencyLimiter``
        around the searcher sets it too.

    Notes
    -----
    Parameters are searched on the unit interval: by their logarithm if that is what is uniform, normal ones by their
    quantile, integers as the middles of equal parts. Categorical ones have no order.

    References
    ----------
    Falkner, Klein, Hutter, BOHB: Robust and Efficient Hyperparameter Optimization at Scale, ICML 2018, Sec. 3.2.

    Examples
    --------
    >>> from mltoolkit.tune.search.sample import choice, uniform
    >>> search = TuneBOHB({"x": uniform(0, 1), "kind": choice(["a", "b"])}, metric="loss", mode="min", seed=1)
    >>> sorted(search.suggest("t0"))
    ['kind', 'x']
    """

    def __init__(
        self,
        space: dict[str, Any] | None = None,
        bohb_config: dict[str, Any] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: list[dict[str, Any]] | None = None,
        seed: int | None = None,
        max_concurrent: int = 0,
    ) -> None:
        require("numpy", purpose="TuneBOHB", extra="tune")
        self._settings = KernelSettings(**_checked_config(bohb_config or {}))
        self._max_concurrent = max_concurrent
        self._running: set[str] = set()
        self._paused: set[str] = set()
        self._points_of: dict[str, list[float]] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        # Losses at each budget by trial: told twice, as by a replay, they are known once.
        self._losses: dict[float, dict[str, float]] = {}
        self._observed: set[str] = set()
        self._model: tuple[float, int, DensityRatio] | None = None
        self._rng: Any = None
        super().__init__(space, metric, mode, points_to_evaluate, seed)

    @staticmethod
    def convert_search_space(spec: dict[str, Any]) -> dict[str, Any]:
        """Convert a search space of Tune into descriptions of its parameters, under flat names.

        Raises
        ------
        ValueError
            For distributions within a ``tune.choice``.
        """
        space: dict[str, Any] = {}
        for name, domain in domains_of(TuneBOHB, spec).items():
            described = describe(domain)
            if described is None or (isinstance(described, Choice) and described.is_nested):
                raise unsupported(TuneBOHB, name, domain, "Use a flat tune.choice of constants, or HyperOptSearch.")
            space[name] = described
        return space

    def _take_space(self, space: Any, argument: str) -> None:
        super()._take_space(space, argument)
        if not isinstance(self._space, dict) or not self._raw_domains:
            raise TypeError(
                f"`{argument}` of TuneBOHB must be a search space of Tune, such as {{'lr': tune.loguniform(1e-4, 1e-1)}},"
                f" got {space!r}."
            )

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take the limit of a ``ConcurrencyLimiter``: paused trials do not count here."""
        self._max_concurrent = max_concurrent
        return True

    def _setup(self, seed: int) -> None:
        import numpy as np

        self._rng = np.random.default_rng(seed)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A configuration of the model's, or at random; None while as many trials run as may."""
        self._prepare()
        if trial_id in self._live:
            return self._nested(self._live[trial_id])
        if 0 < self._max_concurrent <= len(self._running):
            return None
        if self._points:
            flat = self._filled(self._points.pop(0), int(self._rng.integers(2**31)))
        else:
            flat = self._decode(self._next_point())
        self._live[trial_id] = flat
        self._points_of[trial_id] = self._encode(flat)
        self._running.add(trial_id)
        return self._nested(flat)

    def _next_point(self) -> list[float]:
        model = self._fitted()
        if self._rng.random() < self._settings.random_fraction or model is None:
            return [
                float(self._rng.integers(len(described.categories)))
                if isinstance(described, Choice)
                else float(self._rng.random())
                for described in self._space.values()
            ]
        return [float(value) for value in model.suggest(self._rng)]

    def _fitted(self) -> DensityRatio | None:
        """The model of the largest budget with at least N_min + 2 results."""
        enough = min_points(self._settings, len(self._space)) + 2
        budgets = [budget for budget, losses in self._losses.items() if len(losses) >= enough]
        if not budgets:
            return None
        budget = max(budgets)
        losses = self._losses[budget]
        if self._model is None or self._model[:2] != (budget, len(losses)):
            import numpy as np

            points = np.array([self._points_of[trial_id] for trial_id in losses])
            sizes = [len(each.categories) if isinstance(each, Choice) else 0 for each in self._space.values()]
            model = DensityRatio(points, np.array(list(losses.values())), sizes, self._settings)
            self._model = (budget, len(losses), model)
        return self._model[2]

    def _encode(self, flat: Mapping[str, Any]) -> list[float]:
        return [_to_unit(described, flat[name]) for name, described in self._space.items()]

    def _decode(self, point: Iterable[float]) -> dict[str, Any]:
        return {
            name: _from_unit(described, value)
            for (name, described), value in zip(self._space.items(), point, strict=True)
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learn what a trial reached at a milestone, if the result tells one under ``hyperband_info/budget``."""
        if trial_id in self._live and trial_id not in self._paused:
            self._running.add(trial_id)
        budget = lookup(result, "hyperband_info/budget")
        if budget is not None:
            self._learn(trial_id, result, float(budget))

    def _learn(self, trial_id: str, result: Mapping[str, Any], budget: float) -> None:
        loss = self._loss(trial_id, result)
        if loss is not None and trial_id in self._points_of:
            self._losses.setdefault(budget, {}).setdefault(trial_id, loss)
            self._observed.add(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take note that a trial has ended; learn its result if no milestone was told."""
        self._running.discard(trial_id)
        self._paused.discard(trial_id)
        if self._live.pop(trial_id, None) is None:
            return
        if result and not error and trial_id not in self._observed:
            self._learn(trial_id, result, float(result.get("training_iteration") or 1))

    def on_pause(self, trial_id: str) -> None:
        """A trial waits at a milestone: another one may run instead."""
        if trial_id in self._live:
            self._paused.add(trial_id)
            self._running.discard(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """A trial that waited goes on."""
        if trial_id in self._live:
            self._paused.discard(trial_id)
            self._running.add(trial_id)


def _checked_config(given: Mapping[str, Any]) -> dict[str, Any]:
    allowed = [field.name for field in dataclasses.fields(KernelSettings)]
    for name in given:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"`bohb_config` may hold {', '.join(allowed)}; got {name!r}.{hint}")
    return dict(given)


def _edges(described: Range) -> tuple[float, float]:
    """Ends of the interval that the unit interval stands for: integers and multiples get equal parts of it."""
    step = described.q if described.q is not None else (1 if described.integer else 0)
    low, high = described.low - step / 2, described.high + step / 2
    if not described.log:
        return low, high
    return math.log(low if low > 0 else described.low), math.log(high)


def _to_unit(described: Range | Gaussian | Choice, value: Any) -> float:
    match described:
        case Choice():
            return float(described.index(value))
        case Gaussian(mean, sd):
            return min(max(NormalDist(mean, sd).cdf(value), _EDGE), 1 - _EDGE)
        case _:
            low, high = _edges(described)
            number = math.log(value) if described.log else float(value)
            return 0.5 if high == low else min(max((number - low) / (high - low), 0.0), 1.0)


def _from_unit(described: Range | Gaussian | Choice, value: float) -> Any:
    match described:
        case Choice(categories):
            return categories[int(value)]
        case Gaussian(mean, sd):
            return described.snap(NormalDist(mean, sd).inv_cdf(min(max(value, _EDGE), 1 - _EDGE)))
        case _:
            low, high = _edges(described)
            number = low + value * (high - low)
            return described.snap(math.exp(number) if described.log else number)

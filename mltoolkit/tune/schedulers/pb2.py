"""Population Based Bandits."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mltoolkit._optional import require
from mltoolkit.tune.error import TuneError
from mltoolkit.tune.schedulers._explore import flat_names
from mltoolkit.tune.schedulers._pb2_gp import select_point
from mltoolkit.tune.schedulers.pbt import PopulationBasedTraining, _Member

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial
    from mltoolkit.tune.schedulers.trial_scheduler import Controller

__all__ = ["PB2"]

_REMEMBERED = 1000


class PB2(PopulationBasedTraining):
    """Population Based Bandits: Population Based Training whose new configurations a Gaussian process chooses.

    A trial that clones a better one goes on with the parameters that promise the greatest improvement over the next
    interval: the highest upper confidence bound of a Gaussian process that varies in time, fitted to what all trials
    gained in their intervals so far. A handful of trials is enough.

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
    hyperparam_bounds : dict
        ``[low, high]`` of each parameter. Dicts nest. Parameters that a trial's configuration lacks are drawn uniformly
        at its start. A parameter whose value is an integer stays one.
    quantile_fraction : float, default=0.25
        Share of the population that clones, and share that is cloned; from 0 (none) to 0.5.
    log_config : bool, default=True
        Whether to write ``pbt_global.txt`` and ``pbt_policy_<trial>.txt`` into the experiment's folder.
    require_attrs : bool, default=True
        Whether a result without `time_attr` or the metric is an error; if not it is passed over.
    synch : bool, default=False
        Whether all trials wait for each other at each interval before any of them clones.
    custom_explore_fn : callable, optional
        Takes the new configuration and returns it changed.
    seed : int, optional
        Of everything random here; by default that of the sweep, if it has one, else a new one.

    Raises
    ------
    ImportError
        If scipy is not installed; the text says how to install it.
    TuneError
        If there are no `hyperparam_bounds`.
    ValueError
        If an option is out of range.

    Notes
    -----
    The process remembers the last 1000 intervals and is fitted to the last 300. Before any interval is over, parameters
    are drawn uniformly.

    References
    ----------
    Parker-Holder et al., Provably Efficient Online Hyperparameter Optimization with Population-Based Bandits,
    NeurIPS 2020, arXiv:2002.02518, Algorithms 1 and 2.
    """

    _UNSAVED: ClassVar[frozenset[str]] = PopulationBasedTraining._UNSAVED | {"_bounds"}

    def __init__(
        self,
        time_attr: str = "time_total_s",
        metric: str | None = None,
        mode: str | None = None,
        perturbation_interval: float = 60.0,
        hyperparam_bounds: Mapping[str, Any] | None = None,
        quantile_fraction: float = 0.25,
        log_config: bool = True,
        require_attrs: bool = True,
        synch: bool = False,
        custom_explore_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        require("scipy.optimize", purpose="PB2", extra="sklearn")
        if not hyperparam_bounds:
            raise TuneError("PB2 has nothing to vary. Give `hyperparam_bounds` such as {'lr': [1e-4, 1e-1]}.")
        self._bounds = list(_leaves(hyperparam_bounds))
        super().__init__(
            time_attr=time_attr,
            metric=metric,
            mode=mode,
            perturbation_interval=perturbation_interval,
            hyperparam_mutations=hyperparam_bounds,
            quantile_fraction=quantile_fraction,
            resample_probability=0,
            custom_explore_fn=custom_explore_fn,
            log_config=log_config,
            require_attrs=require_attrs,
            synch=synch,
            seed=seed,
        )
        # An interval is (time, score before, *parameters); beside each the change of the score per unit of time.
        self._intervals: deque[tuple[float, ...]] = deque(maxlen=_REMEMBERED)
        self._changes: deque[float] = deque(maxlen=_REMEMBERED)
        self._under_way: dict[str, tuple[float, ...]] = {}

    def _initial_config(self, config: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
        return _filled(config, self._mutations, rng)

    def _record(self, trial: Trial, member: _Member, time: float, score: float) -> None:
        super()._record(trial, member, time, score)
        before = self._under_way.get(trial.trial_id)
        parameters = self._parameters(trial.config)
        finite = score - score == 0
        if before is not None and before[2:] == parameters and time > before[0] and finite:
            self._intervals.append(before)
            self._changes.append((score - before[1]) / (time - before[0]))
        if finite:
            self._under_way[trial.trial_id] = (time, score, *parameters)
        else:
            self._under_way.pop(trial.trial_id, None)

    def _parameters(self, config: Mapping[str, Any]) -> tuple[float, ...]:
        values = flat_names(config, self._mutations)
        return tuple(float(values[name]) for name, _ in self._bounds)

    def _leave(self, controller: Controller, trial_id: str) -> None:
        self._under_way.pop(trial_id, None)
        super()._leave(controller, trial_id)

    def _new_config(self, trial: Trial, cloned: Trial, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
        begin = self._under_way.get(cloned.trial_id)
        bounds = [bound for _, bound in self._bounds]
        if self._intervals and begin is not None:
            pending = [point for trial_id, point in self._under_way.items() if trial_id != trial.trial_id]
            values = select_point(
                list(self._intervals),
                list(self._changes),
                (begin[0], begin[1]),
                pending,
                bounds,
                self._interval,
                rng.getrandbits(64),
            )
        else:
            values = [rng.uniform(low, high) for low, high in bounds]
        names = [name for name, _ in self._bounds]
        config = _replaced(cloned.config, self._mutations, dict(zip(names, values, strict=True)))
        if begin is not None:
            self._under_way[trial.trial_id] = (*begin[:2], *self._parameters(config))
        else:
            self._under_way.pop(trial.trial_id, None)
        if self._custom_explore_fn is not None:
            config = self._custom_explore_fn(config)
        return config, flat_names(config, self._mutations)


def _leaves(bounds: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[float, float]]]:
    """Flat names and bounds; raises where bounds are no pair."""
    for key, value in bounds.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}/")
            continue
        is_pair = isinstance(value, (list, tuple)) and len(value) == 2
        if not is_pair or not all(isinstance(bound, (int, float)) for bound in value) or not value[0] <= value[1]:
            raise ValueError(
                f"`hyperparam_bounds[{name!r}]` must be a pair [low, high] of numbers with low <= high, got {value!r}."
            )
        yield name, (value[0], value[1])


def _filled(config: Mapping[str, Any], bounds: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    filled = dict(config)
    for key, bound in bounds.items():
        if isinstance(bound, Mapping):
            filled[key] = _filled(filled.get(key) or {}, bound, rng)
        elif key not in filled:
            filled[key] = rng.uniform(*bound)
    return filled


def _replaced(
    config: Mapping[str, Any], bounds: Mapping[str, Any], values: Mapping[str, float], prefix: str = ""
) -> dict[str, Any]:
    """A copy of `config` with other values, of the types that the old ones had."""
    new = dict(config)
    for key, bound in bounds.items():
        if isinstance(bound, Mapping):
            new[key] = _replaced(config[key], bound, values, f"{prefix}{key}/")
        else:
            value = values[f"{prefix}{key}"]
            new[key] = round(value) if isinstance(config[key], int) else value
    return new

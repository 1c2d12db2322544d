"""Search with HyperOpt's tree of Parzen estimators."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from mltoolkit.tune.search._library import (
    Choice,
    Gaussian,
    LibrarySearcher,
    Range,
    describe,
    domains_of,
    holds_domain,
    load,
    unsupported,
)
from mltoolkit.tune.search._nested import unflatten
from mltoolkit.tune.search.sample import Categorical, Domain

__all__ = ["HyperOptSearch"]


class HyperOptSearch(LibrarySearcher):
    """Suggest with HyperOpt: tree-structured Parzen estimators over conditional spaces.

    Parameters
    ----------
    space : dict, optional
        A search space of Tune, in which ``tune.choice`` may hold dicts with distributions of their own, or nested dicts
        of ``hyperopt.hp`` expressions. None takes ``param_space``.
    metric : str, optional
    mode : {'min', 'max'}, optional
    points_to_evaluate : list of dict, optional
        Configurations to suggest first. With a space of HyperOpt's they are keyed by its labels. Categories are given
        as they are, not by position.
    n_initial_points : int, default=20
        Random suggestions before the estimators are used.
    random_state_seed : int, optional
        None takes the sweep's seed.
    gamma : float in (0, 1], default=0.25
        Share of trials that count as good, γ in the paper.

    References
    ----------
    Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011, Sec. 4.
    """

    def __init__(
        self,
        space: dict[str, Any] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: list[dict[str, Any]] | None = None,
        n_initial_points: int = 20,
        random_state_seed: int | None = None,
        gamma: float = 0.25,
    ) -> None:
        _load()
        if n_initial_points is not None and n_initial_points < 1:
            raise ValueError(f"`n_initial_points` must be >= 1, got {n_initial_points!r}.")
        if gamma is not None and not 0 < gamma <= 1:
            raise ValueError(f"`gamma` must be in (0, 1], got {gamma!r}.")
        self._options: dict[str, Any] = {"verbose": False}
        if n_initial_points is not None:
            self._options["n_startup_jobs"] = n_initial_points
        if gamma is not None:
            self._options["gamma"] = gamma
        self._switches: dict[str, list[Any]] = {}
        self._labels: list[str] = []
        self._domain: Any = None
        self._trials: Any = None
        self._rng: Any = None
        self._n_suggested = 0
        super().__init__(space, metric, mode, points_to_evaluate, random_state_seed)

    @staticmethod
    def convert_search_space(spec: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        """Convert a search space of Tune into nested dicts of ``hyperopt.hp`` expressions.

        Parameters
        ----------
        spec : dict
        prefix : str, default=''
            Put before the names that serve as HyperOpt's labels.

        Raises
        ------
        ValueError
            For what HyperOpt cannot express.
        """
        return unflatten(
            {
                name: _expression(f"{prefix}/{name}" if prefix else name, domain)
                for name, domain in domains_of(HyperOptSearch, spec).items()
            }
        )

    def _take_space(self, space: Any, argument: str) -> None:
        if not isinstance(space, dict):
            raise TypeError(f"`{argument}` must be a dict, got {type(space).__name__}.")
        super()._take_space(space, argument)

    def _names(self) -> Iterable[str]:
        if not self._labels:
            self._inspect()
        return self._labels

    def _inspect(self) -> None:
        """Find the labels of the space, and the options behind those of choices."""
        hyperopt = _load()
        for node in hyperopt.pyll.dfs(hyperopt.pyll.as_apply(self._space)):
            if node.name == "hyperopt_param":
                self._labels.append(node.pos_args[0].obj)
            if node.name == "switch" and node.pos_args[0].name == "hyperopt_param":
                self._switches[node.pos_args[0].pos_args[0].obj] = node.pos_args[1:]

    def _flat_point(self, point: dict[str, Any]) -> dict[str, Any]:
        flat = super()._flat_point(point)
        return {name: self._position(name, value) if name in self._switches else value for name, value in flat.items()}

    def _position(self, label: str, value: Any) -> int:
        """Position of a category, as HyperOpt stores it."""
        hyperopt = _load()
        options: list[Any] = []
        for option in self._switches[label]:
            is_constant = all(node.name != "hyperopt_param" for node in hyperopt.pyll.dfs(option))
            options.append(_constant(option) if is_constant else _NESTED)
        try:
            return Choice(options).index(value)
        except ValueError:
            raise ValueError(
                f"`points_to_evaluate` has {label}={value!r}, which is none of the constants that are searched: "
                f"{[option for option in options if option is not _NESTED]!r}."
            ) from None

    def _filled(self, point: dict[str, Any], seed: int) -> dict[str, Any]:
        filled = super()._filled(point, seed)
        return {
            name: self._position(name, value) if name in self._switches and name not in point else value
            for name, value in filled.items()
        }

    def _setup(self, seed: int) -> None:
        import numpy as np

        self._rng = np.random.default_rng(seed)
        self._trials = _load().Trials()
        self._make_domain()

    def _make_domain(self) -> None:
        self._domain = _load().Domain(_identity, self._space)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ask the estimators for a configuration; the same one again for a trial that is live."""
        self._prepare()
        if trial_id in self._live:
            return self._configuration(self._live[trial_id])
        tid = self._n_suggested
        seed = int(self._rng.integers(2**31 - 1))
        document = self._next_point(tid, seed) if self._points else self._ask(tid, seed)
        self._n_suggested += 1
        self._trials.insert_trial_doc(document)
        self._trials.refresh()
        # The record that counts is the one that the store keeps.
        self._live[trial_id] = self._trials.trials[-1]
        return self._configuration(self._live[trial_id])

    def _ask(self, tid: int, seed: int) -> Any:
        hyperopt = _load()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return hyperopt.tpe.suggest([tid], self._domain, self._trials, seed, **self._options)[0]

    def _next_point(self, tid: int, seed: int) -> Any:
        hyperopt = _load()
        values = self._filled(self._points.pop(0), seed)
        misc = {
            "tid": tid,
            "cmd": self._domain.cmd,
            "workdir": self._domain.workdir,
            "idxs": {label: [tid] if label in values else [] for label in self._labels},
            "vals": {label: [values[label]] if label in values else [] for label in self._labels},
        }
        return self._trials.new_trial_docs([tid], [None], [{"status": hyperopt.STATUS_NEW}], [misc])[0]

    def _configuration(self, document: Mapping[str, Any]) -> dict[str, Any]:
        hyperopt = _load()
        values = {label: value[0] for label, value in document["misc"]["vals"].items() if value}
        config = hyperopt.space_eval(self._space, values)
        return self._snapped(_as_plain(config))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell HyperOpt how a trial ended; one without a finite value counts as failed."""
        document = self._live.pop(trial_id, None)
        if document is None:
            return
        hyperopt = _load()
        loss = None if error else self._loss(trial_id, result)
        if loss is None:
            document["state"] = hyperopt.JOB_STATE_ERROR
            document["result"] = {"status": hyperopt.STATUS_FAIL}
            document["misc"]["error"] = ("TuneError", "the trial failed or reported no finite value")
        else:
            document["state"] = hyperopt.JOB_STATE_DONE
            document["result"] = {"loss": loss, "status": hyperopt.STATUS_OK}
        self._trials.refresh()

    def get_state(self) -> dict[str, Any]:
        """All but what is made of the search space again."""
        state = self.__dict__.copy()
        state["_domain"] = None
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`get_state` returned."""
        super().set_state(state)
        if self._is_set_up:
            self._make_domain()


class _Nested:
    """Stands for an option that holds parameters itself."""


_NESTED = _Nested()


def _load() -> Any:
    return load("hyperopt", "HyperOptSearch", "hyperopt")


def _identity(config: Any) -> Any:
    return config


def _constant(option: Any) -> Any:
    return _as_plain(_load().pyll.rec_eval(option))


def _as_plain(value: Any) -> Any:
    """Numpy's scalars as Python's, at any depth of dicts."""
    if isinstance(value, dict):
        return {key: _as_plain(item) for key, item in value.items()}
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0 else value


def _expression(label: str, domain: Domain) -> Any:
    """The `hp` expression of a domain."""
    hyperopt = _load()
    hp, to_int = hyperopt.hp, hyperopt.pyll.scope.int
    match describe(domain):
        case Range(low, high, False, None, integer=True):
            return hp.uniformint(label, low, high)
        case Range(low, high, False, float() | int() as q, integer=True):
            return to_int(hp.quniform(label, low - 0.5 * q, high + 0.5 * q, q))  # the ends as likely as the rest
        case Range(low, high, True, q, integer=True):
            return to_int(hp.qloguniform(label, math.log(low), math.log(high), q or 1))
        case Range(low, high, False, None):
            return hp.uniform(label, low, high)
        case Range(low, high, False, q):
            return hp.quniform(label, low, high, q)
        case Range(low, high, True, None):
            return hp.loguniform(label, math.log(low), math.log(high))
        case Range(low, high, True, q):
            return hp.qloguniform(label, math.log(low), math.log(high), q)
        case Gaussian(mean, sd, None):
            return hp.normal(label, mean, sd)
        case Gaussian(mean, sd, q):
            return hp.qnormal(label, mean, sd, q)
        case Choice(categories):
            return hp.choice(label, [_option(f"{label}/{i}", category) for i, category in enumerate(categories)])
    raise unsupported(HyperOptSearch, label, domain, "Use tune.uniform, tune.loguniform, tune.randint or tune.choice.")


def _option(label: str, category: Any) -> Any:
    """A category, with the distributions that it holds; what holds none stays as it is."""
    if not holds_domain(category):
        return _load().pyll.Literal(category)
    if isinstance(category, Domain):
        if isinstance(category, Categorical) or describe(category) is not None:
            return _expression(label, category)
        raise unsupported(HyperOptSearch, label, category, "Use a distribution with bounds, or tune.choice.")
    if isinstance(category, dict):
        return {key: _option(f"{label}/{key}", item) for key, item in category.items()}
    return [_option(f"{label}/{i}", item) for i, item in enumerate(category)]

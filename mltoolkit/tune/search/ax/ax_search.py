"""Search with Ax: Bayesian optimization with BoTorch, with constraints."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mltoolkit.tune.search._library import (
    Choice,
    LibrarySearcher,
    Range,
    describe,
    domains_of,
    load,
    one_thread,
    unsupported,
)

__all__ = ["AxSearch"]

_CLIENT_OPTIONS = ("random_seed", "storage_config")
_STRATEGY_OPTIONS = (
    "method",
    "initialization_budget",
    "initialization_random_seed",
    "initialize_with_center",
    "use_existing_trials_for_initialization",
    "min_observed_initialization_trials",
    "allow_exceeding_initialization_budget",
    "torch_device",
    "simplify_parameter_changes",
)


class AxSearch(LibrarySearcher):
    """Suggest with Ax.

    Parameters
    ----------
    space : list of dict or dict, optional
        A search space of Tune, or Ax's parameters as dicts: ``{"name": "x", "type": "range", "bounds": [0, 1],
        "value_type": "float", "log_scale": True}``, ``{"name": ..., "type": "choice", "values": [...]}`` or ``{"name":
        ..., "type": "fixed", "value": ...}``. None takes ``param_space``.
    metric : str, optional
    mode : {'min', 'max'}, optional
    points_to_evaluate : list of dict, optional
        Configurations to suggest first.
    parameter_constraints : list of str, optional
        Linear ones, such as ``"x3 >= x4"`` or ``"x3 + x4 <= 2"``.
    outcome_constraints : list of str, optional
        On metrics that are reported too: ``"memory <= 3.5"``.
    ax_client : ax.api.client.Client, optional
        One whose experiment and optimization are configured; space, metric, mode and constraints are then its own.
    **ax_kwargs
        For making the client (``random_seed``, ``storage_config``) and for its ``configure_generation_strategy``
        (``method``, ``initialization_budget``, ...).

    Notes
    -----
    Quantised parameters are searched as if they were not, and rounded afterwards. Ax limits how many trials may run
    before it has seen results; until then there is no suggestion.

    References
    ----------
    Balandat et al., BoTorch: A Framework for Efficient Monte-Carlo Bayesian Optimization, arXiv:1910.06403.
    """

    def __init__(
        self,
        space: list[dict[str, Any]] | dict[str, Any] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: list[dict[str, Any]] | None = None,
        parameter_constraints: list[str] | None = None,
        outcome_constraints: list[str] | None = None,
        ax_client: Any = None,
        **ax_kwargs: Any,
    ) -> None:
        client_class = _load().Client
        allowed = (*_CLIENT_OPTIONS, *_STRATEGY_OPTIONS)
        for name in ax_kwargs:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"AxSearch has no option {name!r}; for Ax there are {', '.join(allowed)}.{hint}")
        if ax_client is not None and not isinstance(ax_client, client_class):
            raise TypeError(
                f"`ax_client` must be an ax.api.client.Client, got {type(ax_client).__name__}. Configure one with "
                "`configure_experiment` and `configure_optimization`."
            )
        self._client_options = {name: value for name, value in ax_kwargs.items() if name in _CLIENT_OPTIONS}
        self._strategy_options = {name: value for name, value in ax_kwargs.items() if name in _STRATEGY_OPTIONS}
        self._parameter_constraints = list(parameter_constraints or [])
        self._outcome_constraints = list(outcome_constraints or [])
        self._client: Any = ax_client
        self._fixed: dict[str, Any] = {}
        self._categories: dict[str, Choice] = {}
        self._ax_names: list[str] = []
        super().__init__(space, metric, mode, points_to_evaluate, self._client_options.pop("random_seed", None))
        if ax_client is not None:
            given = {
                "space": space,
                "metric": metric,
                "mode": mode,
                "parameter_constraints": parameter_constraints,
                "outcome_constraints": outcome_constraints,
                **ax_kwargs,
            }
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"`{name}` and `ax_client` cannot both be given: configure it on the client.")
            self._take_client(ax_client)

    @staticmethod
    def convert_search_space(spec: dict[str, Any]) -> list[dict[str, Any]]:
        """Convert a search space of Tune into Ax's parameters, as dicts.

        Categories of mixed types, or of other types than bool, int, float and str, are searched by their position, as
        ``"0"``, ``"1"``, ...

        Raises
        ------
        ValueError
            For a distribution that Ax has not.
        """
        space: list[dict[str, Any]] = []
        for name, domain in domains_of(AxSearch, spec).items():
            match describe(domain):
                case Range(low, high) as described if low == high:
                    space.append({"name": name, "type": "fixed", "value": described.snap(low)})
                case Range(low, high, log) as described:
                    space.append(
                        {
                            "name": name,
                            "type": "range",
                            "bounds": [low, high],
                            "value_type": "int" if described.integer else "float",
                            "log_scale": log,
                        }
                    )
                case Choice(categories) as choice if not choice.is_nested:
                    if len(categories) == 1:
                        space.append({"name": name, "type": "fixed", "value": categories[0]})
                    else:
                        values = list(categories) if _is_native(choice) else [str(i) for i in range(len(categories))]
                        space.append({"name": name, "type": "choice", "values": values})
                case _:
                    raise unsupported(
                        AxSearch, name, domain, "Use a distribution with bounds, or a flat tune.choice of constants."
                    )
        return space

    def _take_space(self, space: Any, argument: str) -> None:
        super()._take_space(space, argument)
        if not isinstance(self._space, list) or not all(isinstance(each, dict) for each in self._space):
            raise TypeError(
                f"`{argument}` must be a search space of Tune or a list of dicts with Ax's parameters, got {space!r}."
            )
        for parameter in self._space:
            if parameter.get("type") == "fixed":
                self._fixed[parameter["name"]] = parameter["value"]
        for name, described in self._domains.items():
            if isinstance(described, Choice) and not _is_native(described):
                self._categories[name] = described

    def _take_client(self, client: Any) -> None:
        experiment = client._experiment  # the client has no public way to read its configuration
        if experiment.optimization_config is None:
            raise ValueError("`ax_client` has no objective: call its `configure_optimization` first.")
        objective = experiment.optimization_config.objective
        if len(objective.metric_names) != 1:
            raise ValueError(f"AxSearch takes one objective, `ax_client` has {objective.expression!r}.")
        self._metric = objective.metric_names[0]
        self._mode = "min" if objective.metric_weights[0][1] < 0 else "max"
        self._ax_names = list(experiment.parameters)
        self._space = self._ax_names
        self._points = [self._flat_point(point) for point in self._points]

    def _names(self) -> Iterable[str]:
        if self._ax_names:
            return self._ax_names
        return [parameter["name"] for parameter in self._space or () if parameter.get("type") != "fixed"]

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Take metric, mode and search space of the sweep, where the searcher has none of its own."""
        if self._ax_names and metric not in (None, self._metric):
            raise ValueError(f"`ax_client` optimises {self._metric!r}, but the sweep's metric is {metric!r}.")
        return super().set_search_properties(metric, mode, config, **spec)

    def set_seed(self, seed: int) -> bool:
        """Take the sweep's seed, unless the client was made by the user."""
        return not self._ax_names and super().set_seed(seed)

    def _setup(self, seed: int) -> None:
        if self._client is not None:
            return
        api = _load()
        client = api.Client(random_seed=seed, **self._client_options)
        parameters = [_parameter(each) for each in self._space if each.get("type") != "fixed"]
        with _quiet():
            client.configure_experiment(
                parameters=parameters, parameter_constraints=self._parameter_constraints or None
            )
            client.configure_optimization(
                objective=self._metric if self._mode == "max" else f"-{self._metric}",
                outcome_constraints=self._outcome_constraints or None,
            )
            client.configure_generation_strategy(**{"initialization_random_seed": seed, **self._strategy_options})
        self._client = client

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ask Ax for a configuration; None as long as it waits for results."""
        self._prepare()
        if trial_id not in self._live:
            with _quiet():
                if self._points:
                    point = self._encoded(self._filled(self._points.pop(0), (self._seed or 0) + len(self._points)))
                    self._live[trial_id] = (self._client.attach_trial(point), point)
                else:
                    trials = self._client.get_next_trials(max_trials=1)
                    if not trials:
                        return None
                    self._live[trial_id] = next(iter(trials.items()))
        return self._nested(self._decoded(self._live[trial_id][1]))

    def _encoded(self, point: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: str(self._categories[name].index(value)) if name in self._categories else value
            for name, value in point.items()
        }

    def _decoded(self, point: Mapping[str, Any]) -> dict[str, Any]:
        decoded = {
            name: self._categories[name].categories[int(value)] if name in self._categories else value
            for name, value in point.items()
        }
        return {**self._fixed, **decoded}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Ax a result; a trial that failed, or lacks a finite value that Ax needs, is marked as such."""
        if trial_id not in self._live:
            return
        index, _ = self._live.pop(trial_id)
        with _quiet():
            if error:
                self._client.mark_trial_failed(trial_index=index)
                return
            config = self._client._experiment.optimization_config
            wanted = {self._metric: None} | {
                name: None for constraint in config.outcome_constraints for name in constraint.metric_names
            }
            data = {name: self._value(trial_id, result, name) for name in wanted}
            if any(value is None for value in data.values()):
                self._client.mark_trial_abandoned(trial_index=index)
            else:
                self._client.complete_trial(trial_index=index, raw_data=data)


def _load() -> Any:
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))  # it announces its storage when it is imported
    try:
        return load("ax.api.client", "AxSearch", "ax")
    finally:
        logging.disable(before)


def _is_native(choice: Choice) -> bool:
    """Whether Ax can hold the categories themselves."""
    kinds = {type(category) for category in choice.categories}
    return len(kinds) == 1 and next(iter(kinds)) in (bool, int, float, str)


def _parameter(given: Mapping[str, Any]) -> Any:
    """Ax's configuration of a parameter that is described by a dict."""
    configs = load("ax.api.configs", "AxSearch", "ax")
    name, kind = given.get("name"), given.get("type")
    if name is None or kind not in ("range", "choice"):
        raise ValueError(
            f"A parameter of Ax needs `name` and a `type` that is 'range', 'choice' or 'fixed', got {dict(given)!r}."
        )
    if kind == "range":
        low, high = given["bounds"]
        is_integer = isinstance(low, int) and isinstance(high, int)
        return configs.RangeParameterConfig(
            name=name,
            bounds=(low, high),
            parameter_type=given.get("value_type") or ("int" if is_integer else "float"),
            scaling="log" if given.get("log_scale") else "linear",
        )
    values = list(given["values"])
    return configs.ChoiceParameterConfig(
        name=name,
        values=values,
        parameter_type=given.get("value_type") or type(values[0]).__name__,
        is_ordered=given.get("is_ordered"),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Ax's line for each trial, and the warnings of its fits."""
    handlers = logging.getLogger("ax").handlers
    before = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.ERROR)
    try:
        with one_thread():
            yield
    finally:
        for handler, level in zip(handlers, before, strict=True):
            handler.setLevel(level)

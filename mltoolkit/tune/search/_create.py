"""Search algorithms by name."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from mltoolkit.tune.search.search_algorithm import SearchAlgorithm
from mltoolkit.tune.search.searcher import Searcher, check_metric_and_mode

__all__ = ["create_searcher"]

_BASIC = ("basic_variant", "BasicVariantGenerator")
_SEARCHERS = {
    "variant_generator": _BASIC,
    "random": _BASIC,
    "ax": ("ax.ax_search", "AxSearch"),
    "bayesopt": ("bayesopt.bayesopt_search", "BayesOptSearch"),
    "bohb": ("bohb.bohb_search", "TuneBOHB"),
    "hyperopt": ("hyperopt.hyperopt_search", "HyperOptSearch"),
    "nevergrad": ("nevergrad.nevergrad_search", "NevergradSearch"),
    "optuna": ("optuna.optuna_search", "OptunaSearch"),
}


def create_searcher(search_alg: str, **kwargs: Any) -> Searcher | SearchAlgorithm:
    """Create a search algorithm by its name, so that a program can take it as an option.

    Parameters
    ----------
    search_alg : {'variant_generator', 'random', 'ax', 'bayesopt', 'bohb', 'hyperopt', 'nevergrad', 'optuna'}
        Upper and lower case are the same.
    **kwargs
        Arguments of its class. ``metric`` and ``mode`` are taken for every name; grid and random search, which do
        without them, only check them.

    Returns
    -------
    Searcher or BasicVariantGenerator

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If the class does not take an argument.
    ImportError
        If a package that it needs is not installed.

    Examples
    --------
    >>> create_searcher("random", max_concurrent=2).max_concurrent
    2
    """
    if not isinstance(search_alg, str):
        raise TypeError(f"`search_alg` must be the name of a search algorithm, got {search_alg!r}.")
    entry = _SEARCHERS.get(search_alg.lower())
    if entry is None:
        raise ValueError(f"Unknown search algorithm {search_alg!r}. Known are {', '.join(map(repr, _SEARCHERS))}.")
    if entry is _BASIC:
        check_metric_and_mode(kwargs.pop("metric", None), kwargs.pop("mode", None))
    module, name = entry
    cls = getattr(import_module(f"mltoolkit.tune.search.{module}"), name)
    _check_keywords(cls, kwargs)
    created: Searcher | SearchAlgorithm = cls(**kwargs)
    return created


def _check_keywords(cls: type, given: dict[str, Any]) -> None:
    parameters = inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in given:
        if name not in parameters:
            near = get_close_matches(name, parameters, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It takes {', '.join(map(repr, parameters))}."
            raise TypeError(f"{cls.__name__} takes no argument {name!r}. {hint}")

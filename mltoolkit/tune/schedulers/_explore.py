"""How Population Based Training varies configurations."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any

from mltoolkit.tune.search.sample import Domain, Function

__all__ = ["check_mutations", "explore", "fill_missing", "flat_names"]


def check_mutations(mutations: Mapping[str, Any], path: str = "") -> None:
    """Raise unless each value says how a parameter is drawn: a list, a domain, a function, or a dict of such."""
    for key, value in mutations.items():
        name = f"{path}{key}"
        if isinstance(value, Function):
            raise ValueError(
                f"`hyperparam_mutations[{name!r}]` is a `tune.sample_from`, which cannot be mutated. Use tune.uniform, "
                "tune.loguniform, tune.choice and the like, or a function without arguments."
            )
        if isinstance(value, Mapping):
            check_mutations(value, f"{name}/")
        elif isinstance(value, (list, tuple)):
            if not value:
                raise ValueError(f"`hyperparam_mutations[{name!r}]` is an empty list: there is nothing to choose from.")
        elif not isinstance(value, Domain) and not callable(value):
            raise TypeError(
                f"`hyperparam_mutations[{name!r}]` must be a list of values, a domain such as tune.uniform(0, 1), a "
                f"function without arguments or a dict of these, got {value!r}."
            )


def fill_missing(config: Mapping[str, Any], mutations: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy of `config` with a value drawn for each parameter that it lacks."""
    filled = dict(config)
    for key, distribution in mutations.items():
        if isinstance(distribution, Mapping):
            filled[key] = fill_missing(filled.get(key) or {}, distribution, rng)
        elif key not in filled:
            filled[key] = _draw(distribution, rng)
    return filled


def explore(
    config: Mapping[str, Any],
    mutations: Mapping[str, Any],
    resample_probability: float,
    perturbation_factors: Sequence[float],
    rng: random.Random,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Perturb or resample each parameter of `mutations` (Jaderberg et al. 2017, Sec. 4, "explore").

    Returns
    -------
    config : dict
        A copy.
    operations : dict
        What was done to each parameter: ``"resample"``, ``"* 0.8"``, ``"shift left"`` or ``"shift right"``, with
        ``" (noop)"`` at the ends of a list.
    """
    new = copy.deepcopy(dict(config))
    operations: dict[str, Any] = {}
    for key, distribution in mutations.items():
        if isinstance(distribution, Mapping):
            new[key], operations[key] = explore(
                config[key], distribution, resample_probability, perturbation_factors, rng
            )
            continue
        resample = rng.random() < resample_probability
        if isinstance(distribution, (list, tuple)):
            if resample or config[key] not in distribution:
                new[key], operations[key] = _draw(distribution, rng), "resample"
            else:
                new[key], operations[key] = _shift(config[key], distribution, rng.choice((-1, 1)))
            continue
        if resample:
            new[key], operations[key] = _draw(distribution, rng), "resample"
        else:
            factor = rng.choice(perturbation_factors)
            new[key], operations[key] = config[key] * factor, f"* {factor}"
        if isinstance(config[key], bool):
            new[key] = bool(new[key])
        elif isinstance(config[key], int):
            new[key] = round(new[key])
    return new, operations


def flat_names(config: Mapping[str, Any], mutations: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of the parameters of `mutations` in `config`, under flat names."""
    flat: dict[str, Any] = {}
    for key, distribution in mutations.items():
        if key not in config:
            continue
        if isinstance(distribution, Mapping):
            flat.update(flat_names(config[key], distribution, f"{prefix}{key}/"))
        else:
            flat[f"{prefix}{key}"] = config[key]
    return flat


def _draw(distribution: Any, rng: random.Random) -> Any:
    if isinstance(distribution, Domain):
        return distribution.sample(random_state=rng.getrandbits(32))
    if isinstance(distribution, (list, tuple)):
        return rng.choice(distribution)
    return distribution()


def _shift(value: Any, values: Sequence[Any], step: int) -> tuple[Any, str]:
    old = values.index(value)
    new = min(max(old + step, 0), len(values) - 1)
    return values[new], f"shift {'left' if step < 0 else 'right'}{' (noop)' if new == old else ''}"

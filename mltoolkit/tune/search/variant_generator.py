"""Variants of a search space: grids walked through, distributions drawn from, functions called."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.search._names import flatten_resolved_vars, format_path, format_vars, path_key
from mltoolkit.tune.search._nested import assign_value, copy_containers, flatten, get_value, unflatten
from mltoolkit.tune.search._samplers import RandomSource
from mltoolkit.tune.search._spec_view import RecursiveDependencyError, SpecView, plain
from mltoolkit.tune.search.sample import Categorical, Domain, as_list

if TYPE_CHECKING:
    from mltoolkit.tune.search._samplers import RandomState

__all__ = [
    "RecursiveDependencyError",
    "assign_value",
    "count_variants",
    "flatten",
    "flatten_resolved_vars",
    "format_path",
    "format_vars",
    "generate_variants",
    "get_preset_variants",
    "grid_search",
    "has_unresolved_values",
    "is_grid",
    "is_unresolved",
    "parse_spec_vars",
    "resolve_functions",
    "unflatten",
    "unresolved_values",
]

logger = logging.getLogger(__name__)

Path = tuple[Any, ...]
Vars = dict[Path, Any]
Found = list[tuple[Path, Domain]]


def grid_search(values: Iterable[Any]) -> dict[str, list[Any]]:
    """Try each of the values; several grids are combined, each value of one with each value of the others.

    ``num_samples`` says how often the whole grid is repeated.

    Parameters
    ----------
    values : iterable
        At least one value of any kind.

    Returns
    -------
    dict
        ``{"grid_search": values}``, which may as well be written by hand.

    Examples
    --------
    >>> grid_search(range(3))
    {'grid_search': [0, 1, 2]}
    """
    return {"grid_search": as_list("grid_search", values)}


def generate_variants(
    unresolved_spec: dict[str, Any],
    constant_grid_search: bool = False,
    random_state: RandomState | RandomSource = None,
) -> Iterator[tuple[Vars, dict[str, Any]]]:
    """Resolve a specification: one variant for each point of its grids, distributions drawn for each.

    Parameters
    ----------
    unresolved_spec : dict
        Nested dicts and lists with grids, distributions and functions in any place. Its dicts and lists are copied
        for each variant; everything else is passed on as it is.
    constant_grid_search : bool, default=False
        Draw the distributions once and keep their values over the grid.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        Where randomness comes from; None stands for numpy's global generator.

    Yields
    ------
    resolved_vars : dict of tuple to value
        The values that were chosen, by their path.
    spec : dict
        The variant.

    Examples
    --------
    >>> for chosen, spec in generate_variants({"config": {"a": grid_search([1, 2]), "b": 3}}):
    ...     print(chosen, spec)
    {('config', 'a'): 1} {'config': {'a': 1, 'b': 3}}
    {('config', 'a'): 2} {'config': {'a': 2, 'b': 3}}
    """
    spec = copy_containers(unresolved_spec)
    return _variants(spec, _find(spec), constant_grid_search, _LazySource(random_state))


def get_preset_variants(
    spec: dict[str, Any],
    config: dict[str, Any],
    constant_grid_search: bool = False,
    random_state: RandomState | RandomSource = None,
) -> Iterator[tuple[Vars, dict[str, Any]]]:
    """Resolve a specification of which some values are given.

    Parameters
    ----------
    spec : dict
        The search space is its item ``config``.
    config : dict
        Given values, nested as in the search space or under flat names (``"model/lr"``). One that lies outside of its
        domain is used all the same, with a warning in the log.
    constant_grid_search, random_state
        As for :func:`generate_variants`.

    Raises
    ------
    ValueError
        If a name is not in the search space.
    """
    return generate_variants(overlay(spec, config, warn=True), constant_grid_search, random_state)


def overlay(spec: dict[str, Any], config: dict[str, Any], *, warn: bool = False) -> dict[str, Any]:
    """The specification with given values in place of those of its search space; see :func:`get_preset_variants`."""
    if not isinstance(config, dict):
        raise TypeError(f"Each of the points to evaluate must be a dict, got {config!r}.")
    spec = copy_containers(spec)
    _overlay(spec["config"], config, (), warn)
    return spec


def count_variants(spec: dict[str, Any], presets: list[dict[str, Any]] | None = None) -> int | None:
    """How many variants a specification with ``num_samples`` and given points has.

    Parameters
    ----------
    spec : dict
        With the items ``config`` and ``num_samples`` (1 if it is missing).
    presets : list of dict, optional
        Points to evaluate first; each takes the place of one sample.

    Returns
    -------
    int or None
        None if chance decides: a choice between values of which some hold grids.
    """
    points = presets or []
    counts = [grid_size(overlay(spec, point)) for point in points]
    samples = spec.get("num_samples", 1) - len(points)
    if samples > 0:
        size = grid_size(spec)
        counts.append(None if size is None else samples * size)
    return None if None in counts else sum(count for count in counts if count is not None)


def grid_size(value: Any) -> int | None:
    """How many variants one sample of a space has; None if chance decides."""
    value = _as_domain(value)
    if isinstance(value, Categorical):
        sizes = [grid_size(category) for category in value.categories]
        if None in sizes or (not value.is_grid() and len(set(sizes)) > 1):
            return None
        return sum(size or 0 for size in sizes) if value.is_grid() else sizes[0]
    if isinstance(value, (dict, list, tuple)):
        children = [grid_size(child) for child in (value.values() if isinstance(value, dict) else value)]
        return None if None in children else math.prod(size or 0 for size in children)
    return 1


def parse_spec_vars(spec: dict[str, Any]) -> tuple[list[tuple[Path, Any]], Found, Found]:
    """Split the values of a nested specification.

    Returns
    -------
    resolved, domains, grids : list of (path, value)
        Constants; what is drawn or computed; what is walked through, ordered by path.
    """
    found = _find(spec)
    unresolved = {path for path, _ in found}
    resolved = [(path, value) for path, value in _leaves(spec, ()) if path not in unresolved]
    grids = sorted(((path, value) for path, value in found if value.is_grid()), key=lambda item: path_key(item[0]))
    return resolved, [(path, value) for path, value in found if not value.is_grid()], grids


def unresolved_values(spec: Any) -> Found:
    """What is to be resolved in a nested specification: path and domain of each, in order."""
    return _find(spec)


def is_unresolved(value: Any) -> bool:
    """Whether a value is a grid, a distribution or a function to be resolved (not whether it holds one)."""
    return isinstance(value, Domain) or is_grid(value)


def is_grid(value: Any) -> bool:
    """Whether a value is a grid: ``{"grid_search": [...]}`` or ``Categorical(...).grid()``."""
    if isinstance(value, Domain):
        return value.is_grid()
    return isinstance(value, dict) and len(value) == 1 and "grid_search" in value


def has_unresolved_values(spec: dict[str, Any]) -> bool:
    """Whether a nested specification holds anything to resolve.

    Examples
    --------
    >>> has_unresolved_values({"a": {"b": [grid_search([1, 2])]}})
    True
    """
    return bool(_find(spec))


def resolve_functions(spec: dict[str, Any], functions: Found, *, partial: bool = False) -> Vars:
    """Call the functions of a specification whose other values are known, and put their values in place.

    Parameters
    ----------
    spec : dict
        Changed in place. Functions see its item ``config``.
    functions : list of (path, Function)
    partial : bool, default=False
        Leave functions that need values which are not known yet.

    Returns
    -------
    dict of tuple to value
        What was computed.

    Raises
    ------
    RecursiveDependencyError
        If functions need each other's values.
    ValueError
        If a function raises.
    """
    resolved: Vars = {}
    waiting = list(functions)
    while waiting:
        left = []
        reasons: list[RecursiveDependencyError] = []
        for path, function in waiting:
            view = SpecView(spec.get("config", spec), is_unresolved)
            try:
                value = plain(function.sample(view))
            except RecursiveDependencyError as error:
                left.append((path, function))
                reasons.append(error)
                continue
            except Exception as error:
                raise ValueError(
                    f"The function given to `sample_from` at {format_path(path)!r} raised {type(error).__name__}: {error}"
                ) from error
            assign_value(spec, path, value)
            resolved[path] = value
        if len(left) == len(waiting):
            if partial:
                break
            names = ", ".join(repr(format_path(path)) for path, _ in left)
            raise RecursiveDependencyError(
                f"The functions given to `sample_from` at {names} need values that only they can give: {reasons[0]} "
                "Let one of them do without the other."
            )
        waiting = left
    return resolved


class _LazySource:
    """Makes the source of randomness when it is first needed: grids alone do without numpy."""

    def __init__(self, random_state: Any) -> None:
        self._random_state = random_state

    def get(self) -> RandomSource:
        self._random_state = RandomSource.of(self._random_state)
        return self._random_state


def _variants(
    spec: dict[str, Any], found: Found, constant: bool, source: _LazySource
) -> Iterator[tuple[Vars, dict[str, Any]]]:
    """Variants of a specification in which ``found`` is to be resolved; ``spec`` belongs to the callee."""
    functions = [item for item in found if item[1].is_function()]
    others = [item for item in found if not item[1].is_function()]
    if not others:
        yield from _with_functions(spec, functions, constant, source)
        return
    grids = sorted((item for item in others if item[1].is_grid()), key=lambda item: path_key(item[0]))
    domains = [item for item in others if not item[1].is_grid()]
    kept: Vars = {}
    if constant and grids:
        kept = _draw(spec, domains, source)
        kept |= resolve_functions(spec, functions, partial=True)
        functions = [item for item in functions if item[0] not in kept]
        domains = []
    # The first grid varies fastest.
    for values in itertools.product(*(grid.categories for _, grid in reversed(grids) if isinstance(grid, Categorical))):
        variant = copy_containers(spec) if grids else spec
        chosen = dict(kept)
        for (path, _), value in zip(grids, reversed(values), strict=True):
            chosen[path] = copy_containers(value)
            assign_value(variant, path, chosen[path])
        chosen |= _draw(variant, domains, source)
        nested = [item for path, _ in found if path in chosen for item in _find(chosen[path], path)]
        if not nested and not functions:
            yield chosen, variant
            continue
        for resolved, final in _variants(variant, nested + functions, constant, source):
            yield {**{path: get_value(final, path) for path in chosen}, **resolved}, final


def _with_functions(
    spec: dict[str, Any], functions: Found, constant: bool, source: _LazySource
) -> Iterator[tuple[Vars, dict[str, Any]]]:
    """Variants of a specification of which only functions are left; there are several if one returns a grid."""
    chosen = resolve_functions(spec, functions)
    nested = [item for path, value in chosen.items() for item in _find(value, path)]
    if not nested:
        yield chosen, spec
        return
    for resolved, final in _variants(spec, nested, constant, source):
        yield {**{path: get_value(final, path) for path in chosen}, **resolved}, final


def _draw(spec: dict[str, Any], domains: Found, source: _LazySource) -> Vars:
    """Draw from distributions and put the values in place."""
    drawn: Vars = {}
    for path, domain in domains:
        try:
            value = copy_containers(domain.sample(random_state=source.get()))
        except ImportError:
            raise
        except Exception as error:
            raise ValueError(f"Cannot draw {format_path(path)!r} from {domain!r}: {error}") from error
        assign_value(spec, path, value)
        drawn[path] = value
    return drawn


def _find(value: Any, path: Path = ()) -> Found:
    """The unresolved values at any depth, in order."""
    found: Found = []
    _collect(value, path, found)
    return found


def _collect(value: Any, path: Path, found: Found) -> None:
    kind = type(value)
    if kind is float or kind is int or kind is str:
        return
    value = _as_domain(value, path)
    if isinstance(value, Domain):
        found.append((path, value))
    elif isinstance(value, dict):
        for key, child in value.items():
            _collect(child, (*path, key), found)
    elif isinstance(value, (list, tuple)):
        for i, child in enumerate(value):
            _collect(child, (*path, i), found)


def _as_domain(value: Any, path: Path = ()) -> Any:
    """Grids written as dicts as domains; anything else as it is."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    if "grid_search" in value:
        try:
            return Categorical(value["grid_search"]).grid()
        except (TypeError, ValueError) as error:
            raise type(error)(f"At {format_path(path)!r}: {str(error).replace('`choice`', '`grid_search`')}") from None
    if isinstance(value.get("eval"), str):
        raise ValueError(
            f"{value!r} at {format_path(path)!r}: text is not evaluated as code. Use "
            f"`tune.sample_from(lambda spec: {value['eval']})`."
        )
    return value


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if not is_unresolved(value):
        if isinstance(value, dict):
            for key, child in value.items():
                yield from _leaves(child, (*path, key))
            return
        if isinstance(value, (list, tuple)):
            for i, child in enumerate(value):
                yield from _leaves(child, (*path, i))
            return
    yield path, value


def _overlay(space: Any, given: dict[Any, Any], path: Path, warn: bool) -> None:
    for key, value in given.items():
        here = (*path, key)
        if key not in space:
            if isinstance(key, str) and "/" in key and key.partition("/")[0] in space:
                _overlay(space, unflatten({key: value}), path, warn)
                continue
            near = get_close_matches(str(key), [str(name) for name in space], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" It has {', '.join(map(repr, space))}."
            raise ValueError(f"A point to evaluate sets {format_path(here)!r}, which is not in the search space.{hint}")
        current = _as_domain(space[key], here)
        if isinstance(current, dict) and isinstance(value, dict):
            _overlay(current, value, here, warn)
            continue
        if warn:
            _warn_of_given(value, current, here)
        space[key] = copy_containers(value)


def _warn_of_given(value: Any, current: Any, path: Path) -> None:
    if isinstance(current, Domain):
        if not is_unresolved(value) and not current.is_valid(value):
            logger.warning("The given value %r of %r is not one of its values: %r", value, format_path(path), current)
        return
    if isinstance(current, (dict, list, tuple)):
        return
    try:
        differs = bool(current != value)
    except (TypeError, ValueError):  # arrays
        differs = current is not value
    if differs:
        logger.warning("The given value %r of %r replaces the constant %r.", value, format_path(path), current)

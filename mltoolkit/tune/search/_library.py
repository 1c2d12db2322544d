"""What the searchers have in common that stand on a library or on a model of their own."""

from __future__ import annotations

import difflib
import logging
import math
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from mltoolkit._optional import require
from mltoolkit.tune.result import DEFAULT_METRIC
from mltoolkit.tune.search._nested import lookup, unflatten
from mltoolkit.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform, Normal, Quantized, Uniform
from mltoolkit.tune.search.searcher import Searcher, check_search_space

__all__ = [
    "Choice",
    "Gaussian",
    "LibrarySearcher",
    "Range",
    "describe",
    "domains_of",
    "holds_domain",
    "is_tune_space",
    "load",
    "one_thread",
    "unsupported",
]

logger = logging.getLogger(__name__)

_MISSING = object()


@dataclass(frozen=True)
class Range:
    """An interval of numbers.

    Attributes
    ----------
    low, high : float or int
        Both included; multiples of `q` where there is one.
    log : bool
        Whether the logarithm is distributed uniformly.
    q : float, int or None
        Step of quantisation.
    integer : bool
    """

    low: float
    high: float
    log: bool
    q: float | None
    integer: bool

    def snap(self, value: float) -> float:
        """The value of the interval that is nearest: a multiple of `q`, an int, within the bounds."""
        if self.q is not None:
            value = _multiple(value, self.q)
        elif self.integer:
            value = round(value)
        value = min(max(value, self.low), self.high)
        return int(value) if self.integer else float(value)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution, without bounds; `q` as in :class:`Range`."""

    mean: float
    sd: float
    q: float | None

    def snap(self, value: float) -> float:
        """The nearest multiple of `q`."""
        return float(value) if self.q is None else _multiple(value, self.q)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and math.isfinite(value)


@dataclass(frozen=True)
class Choice:
    """A list of values of any kind."""

    categories: Sequence[Any]

    @property
    def is_nested(self) -> bool:
        """Whether categories hold distributions themselves."""
        return any(holds_domain(category) for category in self.categories)

    def index(self, value: Any) -> int:
        """Position of a value; values of other types that compare equal (``1`` and ``True``) are told apart."""
        for position, category in enumerate(self.categories):
            if type(category) is type(value) and _equal(category, value):
                return position
        for position, category in enumerate(self.categories):
            if _equal(category, value):
                return position
        raise ValueError(f"{value!r} is none of the categories {list(self.categories)!r}.")

    def snap(self, value: Any) -> Any:
        """The value itself."""
        return value

    def __contains__(self, value: object) -> bool:
        return any(_equal(category, value) for category in self.categories)


def _multiple(value: float, q: float) -> float:
    """The nearest multiple, without the last digit's rounding error: 0.3, not 0.30000000000000004."""
    return float(f"{round(value / q) * q:.15g}")


def _equal(left: Any, right: Any) -> bool:
    try:
        return left is right or bool(left == right)
    except (TypeError, ValueError):  # arrays compare item by item
        return False


def holds_domain(value: Any) -> bool:
    """Whether a value is a distribution, or holds one at any depth."""
    if isinstance(value, Mapping):
        return any(holds_domain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(holds_domain(item) for item in value)
    return isinstance(value, Domain)


def describe(domain: Domain) -> Range | Gaussian | Choice | None:
    """What a domain of Tune stands for; None for a combination that is none of these."""
    sampler = domain.get_sampler()
    q = None
    if isinstance(sampler, Quantized):
        q, sampler = sampler.q, sampler.sampler
    if isinstance(domain, Categorical) and isinstance(sampler, Uniform):
        return Choice(domain.categories)
    if isinstance(domain, Float) and isinstance(sampler, Normal):
        return Gaussian(sampler.mean, sampler.sd, q)
    if not isinstance(sampler, (Uniform, LogUniform)):
        return None
    log = isinstance(sampler, LogUniform)
    if isinstance(domain, Integer):
        if q is None or q == 1:  # the upper bound is not included
            return Range(domain.lower, domain.upper - 1, log, None, integer=True)
        step = int(q)
        return Range(-(-domain.lower // step) * step, domain.upper // step * step, log, step, integer=True)
    if isinstance(domain, Float) and math.isfinite(domain.lower) and math.isfinite(domain.upper):
        return Range(domain.lower, domain.upper, log, q, integer=False)
    return None


def load(module: str, searcher: str, extra: str) -> ModuleType:
    """Import a searcher's library, without the warnings that its import raises in libraries of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return require(module, purpose=searcher, extra=extra)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: models this small gain nothing from more, and lose much where trials use the CPUs."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that did not converge
        yield


def domains_of(searcher: type[Searcher], spec: dict[str, Any]) -> dict[str, Domain]:
    """The values to search in a space of Tune, under flat names.

    Raises
    ------
    ValueError
        If the space holds ``grid_search`` or ``sample_from``, or a key holds the delimiter of flat names.
    """
    found: dict[str, Domain] = {}
    for path, domain in check_search_space(searcher.__new__(searcher), spec, required=False):
        for key in path:
            if isinstance(key, str) and "/" in key:
                raise ValueError(
                    f"{searcher.__name__} cannot search under the key {key!r}: `/` separates the levels of nested "
                    "parameters. Rename the key, or nest dicts."
                )
        found["/".join(map(str, path))] = domain
    return found


def is_tune_space(space: object) -> bool:
    """Whether a search space is written with the distributions of Tune, not in a library's own form."""
    return isinstance(space, dict) and (holds_domain(space) or _holds_grid(space))


def _holds_grid(space: Any) -> bool:
    if isinstance(space, dict):
        return "grid_search" in space or any(_holds_grid(item) for item in space.values())
    return isinstance(space, (list, tuple)) and any(_holds_grid(item) for item in space)


def unsupported(searcher: type[Searcher], name: str, domain: Domain, instead: str) -> ValueError:
    """The error for a distribution that a library cannot express."""
    what = type(domain).__name__ + (f" with {type(domain.get_sampler()).__name__}" if domain.sampler else "")
    quantized = domain.get_sampler()
    if isinstance(quantized, Quantized):
        what = f"{type(domain).__name__} with {type(quantized.sampler).__name__} quantised by {quantized.q}"
    return ValueError(
        f"{searcher.__name__} cannot search {name!r}, whose distribution is {what} {domain.domain_str}. {instead}"
    )


class LibrarySearcher(Searcher):
    """Base of searchers that take their suggestions from an optimisation library.

    A subclass gives ``convert_search_space`` and :meth:`_setup`, asks :meth:`_prepare` before it suggests, and keeps
    all state in attributes that can be pickled. The library's optimizer is made at the first suggestion: until then
    metric, mode, space and seed may still come from the sweep.

    Parameters
    ----------
    space : object, optional
        A space of Tune, or one in the library's form; None takes ``param_space``.
    metric, mode : str or list of str, optional
    points_to_evaluate : list of dict, optional
        Configurations to suggest first, nested as the search space is.
    seed : int, optional
        None takes the sweep's.
    """

    _multi_objective: ClassVar[bool] = False

    def __init__(
        self,
        space: Any = None,
        metric: Any = None,
        mode: Any = None,
        points_to_evaluate: list[dict[str, Any]] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._check_objectives()
        if seed is not None and (isinstance(seed, bool) or not hasattr(seed, "__index__")):
            raise TypeError(f"The seed of {type(self).__name__} must be an int or None, got {seed!r}.")
        self._seed = None if seed is None else int(seed)
        self._domains: dict[str, Range | Gaussian | Choice] = {}
        self._raw_domains: dict[str, Domain] = {}
        self._points = self._checked_points(points_to_evaluate)
        self._space: Any = None
        self._is_set_up = False
        self._live: dict[str, Any] = {}
        self._has_warned_of_metric = False
        if space is not None and not (isinstance(space, (dict, list, tuple)) and not space):
            self._take_space(space, "space")

    @staticmethod
    def convert_search_space(spec: dict[str, Any]) -> Any:
        """Convert a search space of Tune into the library's form."""
        raise NotImplementedError

    def _setup(self, seed: int) -> None:
        """Make the library's optimizer. Metric, mode and space are known."""
        raise NotImplementedError

    def _names(self) -> Iterable[str]:
        """Names of the parameters, if the library's space has them."""
        return self._raw_domains

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Take metric, mode and search space of the sweep, where the searcher has none of its own."""
        self.set_metric_and_mode(metric, mode)
        self._check_objectives()
        if self._space is not None:
            return False
        check_search_space(self, config)
        self._take_space(config, "param_space")
        return True

    def set_seed(self, seed: int) -> bool:
        """Take the sweep's seed, unless the searcher has one or has begun."""
        if self._seed is None and not self._is_set_up:
            self._seed = int(seed)
        return self._seed is not None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Suggest a configuration; the same one again for a trial that is live."""
        raise NotImplementedError

    def _check_objectives(self) -> None:
        if not self._multi_objective and (
            isinstance(self._metric, (list, tuple)) or isinstance(self._mode, (list, tuple))
        ):
            raise ValueError(
                f"{type(self).__name__} optimises one metric, got metric={self._metric!r}, mode={self._mode!r}. "
                "OptunaSearch takes several."
            )

    def _checked_points(self, points: Any) -> list[dict[str, Any]]:
        if points is None:
            return []
        if not isinstance(points, (list, tuple)) or not all(isinstance(point, dict) for point in points):
            raise TypeError(f"`points_to_evaluate` must be a list of dicts, got {points!r}.")
        return list(points)

    def _take_space(self, space: Any, argument: str) -> None:
        if is_tune_space(space):
            check_search_space(self, space, argument=argument)
            self._raw_domains = domains_of(type(self), space)
            self._domains = {
                name: described
                for name, domain in self._raw_domains.items()
                if (described := describe(domain)) is not None
            }
            space = self.convert_search_space(space)
        self._space = space
        self._points = [self._flat_point(point) for point in self._points]

    def _flat_point(self, point: dict[str, Any]) -> dict[str, Any]:
        """A point under the flat names of the parameters; values are checked against the space."""
        names = list(self._names())
        if not names:
            return point
        flat = {name: value for name in names if (value := lookup(point, name, _MISSING)) is not _MISSING}
        for key in point:
            if not any(name == key or name.startswith(f"{key}/") for name in names) and key not in flat:
                near = difflib.get_close_matches(str(key), names, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"`points_to_evaluate` has {key!r}, which is not searched. Searched are {sorted(names)}.{hint}"
                )
        for name, value in flat.items():
            if name in self._domains and value not in self._domains[name]:
                raise ValueError(
                    f"`points_to_evaluate` has {name}={value!r}, which is not in {self._raw_domains[name].domain_str}."
                )
        return flat

    def _filled(self, point: dict[str, Any], seed: int) -> dict[str, Any]:
        """A flat point with the parameters that it lacks drawn from their distributions."""
        lacking = [name for name in self._names() if name not in point]
        if not lacking:
            return point
        unknown = [name for name in lacking if name not in self._raw_domains]
        if unknown:
            raise ValueError(f"`points_to_evaluate` lacks values for {unknown}: {point!r}.")
        import numpy as np

        rng = np.random.default_rng(seed)
        return {**point, **{name: self._raw_domains[name].sample(random_state=rng) for name in lacking}}

    def _prepare(self) -> None:
        """Make sure that there is an optimizer to ask.

        Raises
        ------
        RuntimeError
            If search space, metric or mode are not known yet.
        """
        if self._is_set_up:
            return
        name = type(self).__name__
        if self._space is None:
            raise RuntimeError(
                f"{name} has no search space. Pass `space` to {name}, or `param_space` to the Tuner with distributions "
                "such as `tune.uniform(0, 1)`."
            )
        if self._mode is None:
            raise RuntimeError(
                f"{name} does not know what to optimise: metric={self._metric!r}, mode={self._mode!r}. Pass `metric` "
                f"and `mode` to {name} or to TuneConfig."
            )
        if self._metric is None:
            self._metric = DEFAULT_METRIC
        if self._seed is None:
            self._seed = secrets.randbits(31)
        self._setup(self._seed)
        self._is_set_up = True

    def _nested(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """A suggestion as the trainable sees it: nested, quantised, in the types of the search space."""
        values = {
            name: self._domains[name].snap(_plain(value)) if name in self._domains else _plain(value)
            for name, value in flat.items()
        }
        return unflatten(values)

    def _snapped(self, config: dict[str, Any]) -> dict[str, Any]:
        """A nested configuration with quantised values, in the types of the search space; changed in place."""
        for name, described in self._domains.items():
            if not isinstance(described, Choice):
                *parents, last = name.split("/")
                node = config
                for key in parents:
                    node = node[key]
                node[last] = described.snap(node[last])
        return config

    def _value(self, trial_id: str, result: Mapping[str, Any] | None, metric: str | None = None) -> float | None:
        """The metric of a result as a finite number, or None."""
        if not result:
            return None
        wanted = metric or self._metric
        value = lookup(result, wanted, _MISSING)
        if value is _MISSING:
            if not self._has_warned_of_metric:
                self._has_warned_of_metric = True
                logger.warning(
                    "%s did not find the metric %r in the result of trial %s, and cannot learn from it. Reported were: %s.",
                    type(self).__name__,
                    wanted,
                    trial_id,
                    sorted(result),
                )
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
        return number if math.isfinite(number) else None

    def _loss(self, trial_id: str, result: Mapping[str, Any] | None) -> float | None:
        """The metric with the sign for minimising, or None."""
        value = self._value(trial_id, result)
        return None if value is None else (-value if self._mode == "max" else value)


def _plain(value: Any) -> Any:
    """Numpy's scalars as Python's."""
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0 else value

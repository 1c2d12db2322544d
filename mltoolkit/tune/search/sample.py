"""Search spaces: domains of values, and the functions that declare them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from copy import copy
from typing import TYPE_CHECKING, Any, Self

from mltoolkit.tune.search._samplers import (
    BaseSampler,
    Grid,
    LogUniform,
    Normal,
    Quantized,
    RandomSource,
    Sampler,
    Uniform,
)

if TYPE_CHECKING:
    from mltoolkit.tune.search._samplers import RandomState

__all__ = [
    "BaseSampler",
    "Categorical",
    "Domain",
    "Float",
    "Function",
    "Grid",
    "Integer",
    "LogUniform",
    "Normal",
    "Quantized",
    "Sampler",
    "Uniform",
    "choice",
    "lograndint",
    "loguniform",
    "qlograndint",
    "qloguniform",
    "qrandint",
    "qrandn",
    "quniform",
    "randint",
    "randn",
    "sample_from",
    "uniform",
]


class Domain:
    """Base class of domains: a type, the values that are valid, and how they are drawn.

    Attributes
    ----------
    sampler : Sampler or None
        How values are drawn; None stands for ``default_sampler_cls()``.
    """

    sampler: Sampler | None = None
    default_sampler_cls: type[Sampler] = Uniform

    def cast(self, value: Any) -> Any:
        """Convert a value to the type of the domain."""
        return value

    def set_sampler(self, sampler: Sampler, allow_override: bool = False) -> None:
        """Choose how values are drawn, in place.

        Raises
        ------
        ValueError
            If that was chosen before and ``allow_override`` is False.
        """
        if self.sampler is not None and not allow_override:
            raise ValueError(f"{self!r} has a sampler already ({self.sampler}); {sampler} cannot be added to it.")
        self.sampler = sampler

    def get_sampler(self) -> Sampler:
        """How values are drawn."""
        return self.sampler if self.sampler is not None else self.default_sampler_cls()

    def sample(
        self, config: Any = None, size: int = 1, random_state: RandomState | RandomSource = None, *, spec: Any = None
    ) -> Any:
        """Draw values.

        Parameters
        ----------
        config : dict, optional
            The configuration so far, for ``sample_from``. ``spec`` is another name for it.
        size : int, default=1
            How many.
        random_state : int, numpy.random.Generator, numpy.random.RandomState or None
            Where randomness comes from; None stands for numpy's global generator.

        Returns
        -------
        value, or sequence of values
            A single value if ``size`` is 1.
        """
        config = spec if config is None else config
        return self.get_sampler().sample(self, config=config, size=size, random_state=random_state)

    def is_grid(self) -> bool:
        """Whether every value is tried."""
        return isinstance(self.sampler, Grid)

    def is_function(self) -> bool:
        """Whether a function computes the values."""
        return False

    def is_valid(self, value: Any) -> bool:
        """Whether ``value`` belongs to the domain."""
        raise NotImplementedError

    @property
    def domain_str(self) -> str:
        """The valid values, to show."""
        return "(unknown)"

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.domain_str}.{self.get_sampler()}"

    def _with_sampler(self, sampler: Sampler, allow_override: bool = False) -> Self:
        new = copy(self)
        new.set_sampler(sampler, allow_override)
        return new

    def draw_uniform(self, rng: RandomSource, size: int) -> Any:
        """Draw ``size`` values, each as likely as any other."""
        raise TypeError(f"{type(self).__name__} cannot be drawn from uniformly.")

    def draw_loguniform(self, rng: RandomSource, size: int) -> Any:
        """Draw ``size`` values whose logarithm is distributed uniformly."""
        raise TypeError(f"{type(self).__name__} cannot be drawn from log-uniformly.")

    def draw_normal(self, rng: RandomSource, size: int, mean: float, sd: float) -> Any:
        """Draw ``size`` normally distributed values."""
        raise TypeError(f"{type(self).__name__} cannot be drawn from normally.")

    def draw_quantized(self, rng: RandomSource, size: int, sampler: Sampler, q: float) -> Any:
        """Draw values with a sampler and round them to multiples of ``q``: one value if ``size`` is 1."""
        raise TypeError(f"{type(self).__name__} cannot be quantised.")


class _Numeric(Domain):
    """What floats and integers have in common: bounds."""

    lower: Any
    upper: Any

    def is_valid(self, value: Any) -> bool:
        """Whether ``value`` lies within the bounds, both included."""
        try:
            return bool(self.lower <= value <= self.upper)
        except TypeError:
            return False

    @property
    def domain_str(self) -> str:
        """The bounds."""
        return f"({self.lower}, {self.upper})"

    def uniform(self) -> Self:
        """The same domain, drawn from uniformly."""
        self._needs_bounds("uniform")
        return self._with_sampler(Uniform())

    def loguniform(self, base: float = 10) -> Self:
        """The same domain, the logarithm drawn uniformly; ``base`` makes no difference to the distribution."""
        self._needs_bounds("loguniform")
        if not self.lower > 0:
            raise ValueError(
                f"A log-uniform distribution needs a lower bound greater than 0, got {self.lower!r}. Give the bounds "
                "themselves (1e-4), not their logarithms (-4)."
            )
        return self._with_sampler(LogUniform(base))

    def _needs_bounds(self, distribution: str) -> None:
        if math.isinf(self.lower) or math.isinf(self.upper):
            raise ValueError(f"`{distribution}` needs a lower and an upper bound, got {self.domain_str}.")


class Float(_Numeric):
    """Floating-point numbers.

    Parameters
    ----------
    lower, upper : float or None
        Bounds; None for none.

    Examples
    --------
    >>> Float(0, 1).uniform().quantized(0.25).sample(random_state=0)
    0.75
    """

    def __init__(self, lower: float | None, upper: float | None) -> None:
        self.lower = -math.inf if lower is None else _number("lower", lower)
        self.upper = math.inf if upper is None else _number("upper", upper)
        if self.lower > self.upper:
            raise ValueError(
                f"The lower bound must not be greater than the upper one, got lower={lower!r}, upper={upper!r}."
            )

    def cast(self, value: Any) -> float:
        """Convert to float."""
        return float(value)

    def normal(self, mean: float = 0.0, sd: float = 1.0) -> Float:
        """The same domain, drawn from normally. Only a domain without bounds can be."""
        self._needs_no_bounds()
        return self._with_sampler(Normal(mean, sd))

    def quantized(self, q: float) -> Float:
        """The same distribution, rounded to multiples of ``q``. Both bounds must be such multiples; they are included.

        Raises
        ------
        ValueError
            If ``q`` is not greater than 0, or a bound is no multiple of it.
        """
        sampler = Quantized(self.get_sampler(), _number("q", q))
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            if math.isfinite(bound) and not math.isclose(bound / q, round(bound / q)):
                raise ValueError(
                    f"The {name} bound {bound!r} is no multiple of the quantisation step {q!r}. Choose the nearest "
                    f"ones: {_tidy(math.floor(bound / q) * q)} or {_tidy(math.ceil(bound / q) * q)}."
                )
        return self._with_sampler(sampler, allow_override=True)

    def draw_uniform(self, rng: RandomSource, size: int) -> Any:
        """Draw ``size`` values from [lower, upper)."""
        self._needs_bounds("uniform")
        return rng.uniform(self.lower, self.upper, size=size)

    def draw_loguniform(self, rng: RandomSource, size: int) -> Any:
        """Draw ``size`` values whose logarithm is distributed uniformly."""
        import numpy as np

        self._needs_bounds("loguniform")
        values = np.exp(rng.uniform(np.log(self.lower), np.log(self.upper), size=size))
        return np.clip(values, self.lower, self.upper)  # exp(log(x)) may miss x by a rounding error

    def draw_normal(self, rng: RandomSource, size: int, mean: float, sd: float) -> Any:
        """Draw ``size`` normally distributed values."""
        self._needs_no_bounds()
        return rng.normal(mean, sd, size=size)

    def draw_quantized(self, rng: RandomSource, size: int, sampler: Sampler, q: float) -> Any:
        """Draw values with a sampler and round them to multiples of ``q``: one value if ``size`` is 1."""
        import numpy as np

        within = copy(self)
        within.lower = _grid_index(self.lower, q, math.ceil) * q
        within.upper = _grid_index(self.upper, q, math.floor) * q
        return np.round(np.divide(sampler.sample(within, size=size, random_state=rng), q)) * q

    def _needs_no_bounds(self) -> None:
        if math.isfinite(self.lower) or math.isfinite(self.upper):
            raise ValueError(
                f"A normal distribution has no bounds, got {self.domain_str}. Use `tune.randn(mean, sd)`, or "
                "`tune.uniform(lower, upper)` for bounds."
            )


class Integer(_Numeric):
    """Integers.

    Parameters
    ----------
    lower : int
        Included.
    upper : int
        Not included.
    """

    def __init__(self, lower: int, upper: int) -> None:
        self.lower = _integer("lower", lower)
        self.upper = _integer("upper", upper)
        if self.lower >= self.upper:
            raise ValueError(
                "The lower bound must be less than the upper one, which is not included, "
                f"got lower={lower!r}, upper={upper!r}."
            )

    def cast(self, value: Any) -> int:
        """Convert to int."""
        return int(value)

    def quantized(self, q: int) -> Integer:
        """The multiples of ``q`` between the bounds; the upper bound is included unless ``q`` is 1.

        Raises
        ------
        ValueError
            If ``q`` is less than 1, or there is no multiple of it between the bounds.
        """
        step = _integer("q", q)
        new = self._with_sampler(Quantized(self.get_sampler(), step), allow_override=True)
        self._multiples(step)
        return new

    def draw_uniform(self, rng: RandomSource, size: int) -> Any:
        """Draw ``size`` integers from [lower, upper)."""
        return rng.integers(self.lower, self.upper, size=size)

    def draw_loguniform(self, rng: RandomSource, size: int) -> Any:
        """Draw ``size`` integers from [lower, upper), their logarithm distributed uniformly."""
        import numpy as np

        values = np.floor(np.exp(rng.uniform(np.log(self.lower), np.log(self.upper), size=size)))
        return np.clip(values.astype(np.int64), self.lower, self.upper - 1)

    def draw_quantized(self, rng: RandomSource, size: int, sampler: Sampler, q: float) -> Any:
        """Draw multiples of ``q``, each with the probability that the sampler gives it: one value if ``size`` is 1."""
        import numpy as np

        multiples = copy(self)
        multiples.lower, multiples.upper = self._multiples(int(q))
        return np.multiply(sampler.sample(multiples, size=size, random_state=rng), int(q))

    def _multiples(self, q: int) -> tuple[int, int]:
        lower = -(-self.lower // q)
        upper = self.upper // q + (0 if q == 1 else 1)
        if lower >= upper:
            raise ValueError(f"There is no multiple of q={q} between {self.lower} and {self.upper}.")
        return lower, upper


class Categorical(Domain):
    """A list of values of any kind.

    Parameters
    ----------
    categories : iterable
        The values. They may themselves be domains, or dicts and lists that hold some.
    """

    def __init__(self, categories: Iterable[Any]) -> None:
        self.categories = as_list("choice", categories)

    def uniform(self) -> Categorical:
        """The same values, each as likely as any other."""
        return self._with_sampler(Uniform())

    def grid(self) -> Categorical:
        """The same values, each tried."""
        return self._with_sampler(Grid())

    def __len__(self) -> int:
        return len(self.categories)

    def __getitem__(self, item: Any) -> Any:
        return self.categories[item]

    def is_valid(self, value: Any) -> bool:
        """Whether ``value`` is one of the categories."""
        return any(_equal(value, category) for category in self.categories)

    @property
    def domain_str(self) -> str:
        """The values."""
        return f"{self.categories}"

    def draw_uniform(self, rng: RandomSource, size: int) -> Any:
        """Draw ``size`` of the values."""
        return [self.categories[index] for index in rng.integers(0, len(self.categories), size=size)]

    def draw_quantized(self, rng: RandomSource, size: int, sampler: Sampler, q: float) -> Any:
        """Not possible."""
        raise TypeError("A choice cannot be quantised: list the values that are wanted.")


class _CallSampler(BaseSampler):
    """Calls the function of a domain."""

    def sample(self, domain: Domain, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        """Call the function ``size`` times; with a list of configurations, once for each."""
        if not isinstance(domain, Function):
            raise TypeError(f"Only a function can be called, got {domain!r}.")
        configs = config if isinstance(config, list) else [config] * size
        items = [domain.func(configs[i]) if domain.pass_config else domain.func() for i in range(size)]
        return items if size > 1 else items[0]


class Function(Domain):
    """Values that a function computes.

    Parameters
    ----------
    func : callable
        Takes the configuration, or nothing.

    Attributes
    ----------
    pass_config : bool
        Whether it takes the configuration.
    """

    default_sampler_cls = _CallSampler

    def __init__(self, func: Callable[..., Any]) -> None:
        if not callable(func):
            raise TypeError(f"`sample_from` needs a function, got {func!r}.")
        self.func = func
        self.pass_config = _takes_config(func)

    def is_function(self) -> bool:
        """Whether a function computes the values: yes."""
        return True

    def is_valid(self, value: Any) -> bool:
        """Whether ``value`` belongs to the domain: nothing is known of a function's values, so yes."""
        return True

    @property
    def domain_str(self) -> str:
        """The function."""
        return f"({getattr(self.func, '__name__', self.func)})"


def uniform(lower: float, upper: float) -> Float:
    """Floats drawn uniformly from [lower, upper).

    Examples
    --------
    >>> 1 <= uniform(1, 10).sample() < 10
    True
    """
    return Float(lower, upper).uniform()


def quniform(lower: float, upper: float, q: float) -> Float:
    """Floats drawn uniformly and rounded to multiples of ``q``; both bounds are included and must be such multiples."""
    return Float(lower, upper).uniform().quantized(q)


def loguniform(lower: float, upper: float, base: float = 10) -> Float:
    """Floats from [lower, upper) whose logarithm is distributed uniformly.

    Parameters
    ----------
    lower, upper : float
        The bounds themselves, greater than 0: ``loguniform(1e-4, 1e-1)``.
    base : float, default=10
        Of the logarithm. The distribution is the same for every base.
    """
    return Float(lower, upper).loguniform(base)


def qloguniform(lower: float, upper: float, q: float, base: float = 10) -> Float:
    """Like :func:`loguniform`, rounded to multiples of ``q``; both bounds are included and must be such multiples."""
    return Float(lower, upper).loguniform(base).quantized(q)


def randn(mean: float = 0.0, sd: float = 1.0) -> Float:
    """Floats drawn from a normal distribution with a mean and a standard deviation."""
    return Float(None, None).normal(mean, sd)


def qrandn(mean: float, sd: float, q: float) -> Float:
    """Floats drawn from a normal distribution and rounded to multiples of ``q``."""
    return Float(None, None).normal(mean, sd).quantized(q)


def randint(lower: int, upper: int) -> Integer:
    """Integers drawn uniformly, ``lower`` included, ``upper`` not.

    Examples
    --------
    >>> set(randint(1, 4).sample(size=100)) == {1, 2, 3}
    True
    """
    return Integer(lower, upper).uniform()


def qrandint(lower: int, upper: int, q: int = 1) -> Integer:
    """Multiples of ``q`` drawn uniformly, both bounds included (the upper one not if ``q`` is 1).

    Examples
    --------
    >>> sorted({int(i) for i in qrandint(2, 8, 2).sample(size=100)})
    [2, 4, 6, 8]
    """
    return Integer(lower, upper).uniform().quantized(q)


def lograndint(lower: int, upper: int, base: float = 10) -> Integer:
    """Integers, ``lower`` included, ``upper`` not, whose logarithm is distributed uniformly.

    Parameters
    ----------
    lower, upper : int
        At least 1.
    base : float, default=10
        Of the logarithm. The distribution is the same for every base.
    """
    return Integer(lower, upper).loguniform(base)


def qlograndint(lower: int, upper: int, q: int, base: float = 10) -> Integer:
    """Like :func:`lograndint`, but only multiples of ``q``; the upper bound is included unless ``q`` is 1."""
    return Integer(lower, upper).loguniform(base).quantized(q)


def choice(categories: Iterable[Any]) -> Categorical:
    """One of the given values, each as likely as any other.

    Parameters
    ----------
    categories : iterable
        The values, of any kind. They may be domains, or dicts and lists that hold some: these are drawn in turn.
    """
    return Categorical(categories).uniform()


def sample_from(func: Callable[..., Any]) -> Function:
    """Compute a value from those that were drawn.

    Parameters
    ----------
    func : callable
        Called with the configuration, ``lambda config: config["width"] * 2``; the older form
        ``lambda spec: spec.config.width * 2`` and functions without arguments work too. It is called after all other
        values were drawn; where it needs what another such function computes, after that one.

    Examples
    --------
    >>> from mltoolkit.tune.search.variant_generator import generate_variants
    >>> space = {"config": {"a": 3, "b": sample_from(lambda config: config["a"] * 2)}}
    >>> [spec["config"] for _, spec in generate_variants(space)]
    [{'a': 3, 'b': 6}]
    """
    return Function(func)


def as_list(what: str, values: Any) -> list[Any]:
    """A list of the values of a choice or grid: at least one, in an order that does not depend on chance."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"`{what}` needs a list of values, got {values!r}. For a single value: `[{values!r}]`.")
    if isinstance(values, (set, frozenset)):
        listed = sorted(values, key=repr)  # the order of a set of strings differs between processes
    elif callable(to_list := getattr(values, "tolist", None)):
        listed = to_list()  # arrays and series: plain numbers can be written as JSON
    else:
        listed = list(values)
    if not listed:
        raise ValueError(f"`{what}` needs at least one value, got {values!r}.")
    return listed


def _number(name: str, value: Any) -> float:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
    if math.isnan(value):
        raise ValueError(f"`{name}` must be a number, got NaN.")
    plain: float = value.item() if hasattr(value, "item") else value
    return plain


def _integer(name: str, value: Any) -> int:
    number = _number(name, value)
    if math.isinf(number) or number != int(number):
        raise ValueError(f"`{name}` must be an integer, got {value!r}.")
    return int(number)


def _grid_index(bound: float, q: float, inwards: Callable[[float], float]) -> float:
    """How many times ``q`` a bound is, rounded inwards where it lies between two multiples."""
    if math.isinf(bound):
        return bound
    scaled = bound / q
    nearest = round(scaled)
    return nearest if math.isclose(scaled, nearest) else inwards(scaled)


def _tidy(value: float) -> str:
    return f"{value:.12g}"


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    try:
        return bool(a == b)
    except (TypeError, ValueError):  # arrays
        return False


def _takes_config(func: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(func)
    except ValueError:  # builtins without a signature
        return False
    takes_one = _can_be_called(signature, None)
    takes_none = _can_be_called(signature)
    if not takes_one and not takes_none:
        raise ValueError(
            f"A function given to `sample_from` must take one argument (the configuration) or none, got {func!r}."
        )
    # The optional arguments of compiled functions, such as `numpy.random.rand`, mean something else.
    compiled = inspect.isroutine(func) and not inspect.isfunction(getattr(func, "__func__", func))
    return takes_one and not (takes_none and compiled)


def _can_be_called(signature: inspect.Signature, *arguments: Any) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True

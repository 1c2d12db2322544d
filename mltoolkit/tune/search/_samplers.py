"""How values of a domain are drawn: samplers, and the random generators that they draw from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mltoolkit._optional import require

if TYPE_CHECKING:
    import numpy as np

    from mltoolkit.tune.search.sample import Domain

    RandomState = np.random.Generator | np.random.RandomState | int | None

__all__ = ["BaseSampler", "Grid", "LogUniform", "Normal", "Quantized", "RandomSource", "Sampler", "Uniform"]


class RandomSource:
    """One face for numpy's old and new random generators.

    Parameters
    ----------
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        An int seeds a new ``Generator``. None stands for numpy's global generator.
    """

    __slots__ = ("integers", "normal", "rng", "uniform")

    uniform: Callable[..., Any]
    normal: Callable[..., Any]
    integers: Callable[..., Any]

    def __init__(self, random_state: RandomState = None) -> None:
        random = require("numpy", purpose="Drawing from a search space", extra="tune").random
        if random_state is None:
            rng = random
        elif isinstance(random_state, (random.Generator, random.RandomState)):
            rng = random_state
        elif isinstance(random_state, bool) or not hasattr(random_state, "__index__"):
            raise TypeError(
                "`random_state` must be an int, a numpy.random.Generator, a numpy.random.RandomState or None, "
                f"got {random_state!r}."
            )
        else:
            rng = random.default_rng(random_state)
        self.rng = rng
        self.uniform = rng.uniform
        self.normal = rng.normal
        self.integers = getattr(rng, "integers", None) or rng.randint

    @classmethod
    def of(cls, random_state: Any) -> RandomSource:
        """The source for a random state; one that is a source already is returned as it is."""
        return random_state if isinstance(random_state, cls) else cls(random_state)

    def get_state(self) -> dict[str, Any]:
        """Where the generator stands; plain, small and picklable."""
        if hasattr(self.rng, "bit_generator"):
            return dict(self.rng.bit_generator.state)
        return {"random_state": self.rng.get_state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RandomSource:
        """A source that goes on where :meth:`get_state` was called."""
        random = require("numpy", purpose="Drawing from a search space", extra="tune").random
        if "random_state" in state:
            legacy = random.RandomState()
            legacy.set_state(state["random_state"])
            return cls(legacy)
        bit_generator = getattr(random, state["bit_generator"])()
        bit_generator.state = state
        return cls(random.Generator(bit_generator))


class Sampler:
    """Base class of samplers."""

    def sample(self, domain: Domain, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        """Draw ``size`` values of ``domain``: one value if ``size`` is 1, several otherwise."""
        raise NotImplementedError


class BaseSampler(Sampler):
    """Samplers that stand for no distribution of their own."""

    def __str__(self) -> str:
        return "Base"


class _DomainSampler(Sampler):
    """Samplers that leave the drawing to the domain, which knows its type."""

    def _draw(self, domain: Domain, size: int, rng: RandomSource) -> Any:
        raise NotImplementedError

    def sample(self, domain: Domain, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        """Draw ``size`` values of ``domain``: one value if ``size`` is 1, several otherwise."""
        items = self._draw(domain, size, RandomSource.of(random_state))
        return items if size > 1 else domain.cast(items[0])

    def __str__(self) -> str:
        return type(self).__name__


class Uniform(_DomainSampler):
    """Each value of the domain is as likely as any other."""

    def _draw(self, domain: Domain, size: int, rng: RandomSource) -> Any:
        return domain.draw_uniform(rng, size)


class LogUniform(_DomainSampler):
    """The logarithm of the value is distributed uniformly.

    Parameters
    ----------
    base : float, default=10
        Base of that logarithm. The distribution is the same for every base.
    """

    def __init__(self, base: float = 10) -> None:
        if not base > 0 or base == 1:
            raise ValueError(f"`base` of a logarithm must be positive and not 1, got {base!r}.")
        self.base = base

    def _draw(self, domain: Domain, size: int, rng: RandomSource) -> Any:
        return domain.draw_loguniform(rng, size)


class Normal(_DomainSampler):
    """Normal distribution.

    Parameters
    ----------
    mean : float, default=0.0
    sd : float, default=1.0
        Standard deviation, greater than 0.
    """

    def __init__(self, mean: float = 0.0, sd: float = 1.0) -> None:
        if not math.isfinite(mean):
            raise ValueError(f"`mean` must be finite, got {mean!r}.")
        if not 0 < sd < math.inf:
            raise ValueError(f"`sd` must be finite and greater than 0, got {sd!r}.")
        self.mean = mean
        self.sd = sd

    def _draw(self, domain: Domain, size: int, rng: RandomSource) -> Any:
        return domain.draw_normal(rng, size, self.mean, self.sd)


class Grid(Sampler):
    """Marks a categorical domain of which every value is tried."""

    def sample(self, domain: Domain, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        """Not possible: a grid is walked through, not drawn from."""
        raise RuntimeError(f"A grid is not drawn from: each of its values is tried. Grid: {domain.domain_str}.")

    def __str__(self) -> str:
        return "Grid"


class Quantized(Sampler):
    """Rounds what another sampler draws to multiples of ``q`` within the bounds of the domain.

    Parameters
    ----------
    sampler : Sampler
    q : float or int
        Step, greater than 0.
    """

    def __init__(self, sampler: Sampler, q: float) -> None:
        if not isinstance(sampler, Sampler):
            raise TypeError(f"`Quantized` needs a sampler, got {sampler!r}.")
        if not 0 < q < math.inf:
            raise ValueError(f"The quantisation step `q` must be greater than 0, got {q!r}.")
        self.sampler = sampler
        self.q = q

    def get_sampler(self) -> Sampler:
        """The sampler whose values are rounded."""
        return self.sampler

    def sample(self, domain: Domain, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        """Draw ``size`` values of ``domain``: one value if ``size`` is 1, a list otherwise."""
        values = domain.draw_quantized(RandomSource.of(random_state), size, self.sampler, self.q)
        return [domain.cast(value) for value in values] if size > 1 else domain.cast(values)

    def __str__(self) -> str:
        return f"Quantized({self.sampler}, q={self.q})"

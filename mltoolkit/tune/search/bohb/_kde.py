"""The density model of BOHB: kernel density estimates of good and of bad configurations on the unit cube."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Array = Any  # ndarray of float64: numpy is imported where it is used

__all__ = ["DensityRatio", "KernelDensity", "KernelSettings"]

_TINY = 1e-32
_UNIT_NORMAL = NormalDist()


@dataclass(frozen=True)
class KernelSettings:
    """Settings of the model, named as in Falkner et al.'s software; symbols are the paper's.

    Attributes
    ----------
    min_points_in_model : int or None
        N_min: None stands for the number of parameters plus one.
    top_n_percent : float in (0, 100)
        q: share of configurations that count as good.
    num_samples : int
        N_s: candidates, of which the one with the greatest ratio of densities is taken.
    random_fraction : float in [0, 1]
        ρ: share of suggestions at random.
    bandwidth_factor : float
        b_w: by which the bandwidths are widened when candidates are drawn.
    min_bandwidth : float
        No bandwidth is smaller, so that the model keeps looking around when all good values agree.
    """

    min_points_in_model: int | None = None
    top_n_percent: float = 15
    num_samples: int = 64
    random_fraction: float = 1 / 3
    bandwidth_factor: float = 3
    min_bandwidth: float = 1e-3

    def __post_init__(self) -> None:
        problems = []
        if self.min_points_in_model is not None and self.min_points_in_model < 1:
            problems.append(f"`min_points_in_model` must be >= 1 or None, got {self.min_points_in_model!r}")
        if not 0 < self.top_n_percent < 100:
            problems.append(f"`top_n_percent` must be in (0, 100), got {self.top_n_percent!r}")
        if self.num_samples < 1:
            problems.append(f"`num_samples` must be >= 1, got {self.num_samples!r}")
        if not 0 <= self.random_fraction <= 1:
            problems.append(f"`random_fraction` must be in [0, 1], got {self.random_fraction!r}")
        if not self.bandwidth_factor > 0:
            problems.append(f"`bandwidth_factor` must be > 0, got {self.bandwidth_factor!r}")
        if not self.min_bandwidth > 0:
            problems.append(f"`min_bandwidth` must be > 0, got {self.min_bandwidth!r}")
        if problems:
            raise ValueError("; ".join(problems) + ".")


class KernelDensity:
    """A multivariate kernel density estimate with a product kernel.

    Continuous parameters in [0, 1] have Gaussian kernels, truncated to that interval; categorical ones the kernel of
    Aitchison and Aitken, ``1 - λ`` at the point's category and ``λ / (c - 1)`` at each of the others.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_parameters)
        Values in [0, 1], and positions of categories.
    n_categories : sequence of int
        Of each parameter; 0 for a continuous one.
    min_bandwidth : float

    Notes
    -----
    Bandwidths follow the normal reference rule, ``1.06 σ n ** (-1 / (4 + d))`` (Falkner et al., Appendix B, after
    Silverman 1986), with σ the standard deviation of the points. λ is at most ``(c - 1) / c``, where the kernel is flat.
    """

    def __init__(self, points: Array, n_categories: Sequence[int], min_bandwidth: float) -> None:
        import numpy as np

        n_points, n_parameters = points.shape
        self._points = points
        self._n_categories = tuple(n_categories)
        widest = np.array([(c - 1) / c if c else np.inf for c in n_categories])
        rule = 1.06 * points.std(axis=0) * n_points ** (-1 / (4 + n_parameters))
        self.bandwidths: Array = np.minimum(np.maximum(rule, min_bandwidth), widest)
        # What each truncated kernel has lost beyond the interval.
        self._masses: list[Array] = [
            None if c else np.array([_mass(centre, width) for centre in points[:, d]])
            for d, (c, width) in enumerate(zip(n_categories, self.bandwidths, strict=True))
        ]

    def pdf(self, at: Array) -> Array:
        """Density at each of several positions, an array of shape (n_positions, n_parameters)."""
        import numpy as np

        kernels = np.ones((len(at), len(self._points)))
        for d, (c, width) in enumerate(zip(self._n_categories, self.bandwidths, strict=True)):
            centres, values = self._points[None, :, d], at[:, None, d]
            if c:
                kernels *= np.where(values == centres, 1 - width, width / max(c - 1, 1))
            else:
                kernels *= np.exp(-0.5 * ((values - centres) / width) ** 2)
                kernels /= width * math.sqrt(2 * math.pi) * self._masses[d][None, :]
        return np.asarray(kernels.mean(axis=1))

    def sample(self, size: int, bandwidth_factor: float, rng: np.random.Generator) -> Array:
        """Draw positions, from kernels that are wider by a factor, around points chosen with equal probability."""
        import numpy as np

        centres = self._points[rng.integers(len(self._points), size=size)]
        drawn = np.empty_like(centres)
        for d, (c, width) in enumerate(zip(self._n_categories, self.bandwidths, strict=True)):
            if c:
                # The widening is for continuous parameters: λ is a probability already.
                moves = rng.random(size) < width
                drawn[:, d] = np.where(moves, rng.integers(c, size=size), centres[:, d])
            else:
                scale = width * bandwidth_factor
                uniform = rng.random(size)
                drawn[:, d] = [_truncated(m, scale, u) for m, u in zip(centres[:, d], uniform, strict=True)]
        return drawn


class DensityRatio:
    """BOHB's model for one budget: l(x), of good configurations, over g(x), of the others.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_parameters)
    losses : ndarray of shape (n_points,)
        Less is better.
    n_categories : sequence of int
        As in :class:`KernelDensity`.
    settings : KernelSettings

    References
    ----------
    Falkner, Klein, Hutter, BOHB: Robust and Efficient Hyperparameter Optimization at Scale, ICML 2018, Sec. 3.2 and
    Algorithm 2.
    """

    def __init__(self, points: Array, losses: Array, n_categories: Sequence[int], settings: KernelSettings) -> None:
        import numpy as np

        order = np.argsort(losses, kind="stable")
        n_good, n_bad = split_sizes(len(points), min_points(settings, points.shape[1]), settings.top_n_percent)
        self._settings = settings
        # The two may overlap when there are few points: each has at least N_min.
        self.good = KernelDensity(points[order[:n_good]], n_categories, settings.min_bandwidth)
        self.bad = KernelDensity(points[order[len(points) - n_bad :]], n_categories, settings.min_bandwidth)

    def suggest(self, rng: np.random.Generator) -> Array:
        """The one of N_s candidates, drawn from l with wider kernels, at which l/g is greatest."""
        import numpy as np

        candidates = self.good.sample(self._settings.num_samples, self._settings.bandwidth_factor, rng)
        ratios = np.maximum(self.good.pdf(candidates), _TINY) / np.maximum(self.bad.pdf(candidates), _TINY)
        best: Array = candidates[int(np.argmax(ratios))]
        return best


def min_points(settings: KernelSettings, n_parameters: int) -> int:
    """N_min."""
    return settings.min_points_in_model if settings.min_points_in_model is not None else n_parameters + 1


def split_sizes(n_points: int, minimum: int, top_n_percent: float) -> tuple[int, int]:
    """How many of the best and of the worst points the two densities are made of (Falkner et al., Eq. 2 and 3)."""
    n_good = max(minimum, int(top_n_percent * n_points / 100))
    n_bad = max(minimum, n_points - n_good)
    return min(n_good, n_points), min(n_bad, n_points)


def _mass(centre: float, width: float) -> float:
    """How much of a Gaussian lies in [0, 1]."""
    scale = width * math.sqrt(2)
    return 0.5 * (math.erf((1 - centre) / scale) - math.erf(-centre / scale))


def _truncated(centre: float, scale: float, uniform: float) -> float:
    """The quantile of a Gaussian that is truncated to [0, 1]."""
    low, high = _UNIT_NORMAL.cdf(-centre / scale), _UNIT_NORMAL.cdf((1 - centre) / scale)
    quantile = min(max(low + uniform * (high - low), 1e-15), 1 - 1e-15)
    return min(max(centre + scale * _UNIT_NORMAL.inv_cdf(quantile), 0.0), 1.0)

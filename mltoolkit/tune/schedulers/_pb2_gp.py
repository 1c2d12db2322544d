"""The time-varying Gaussian process of PB2, and the choice of its next configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from mltoolkit._optional import require

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TimeVaryingGP", "select_point"]

_FITTED_ON = 300
_CANDIDATES = 512
_STARTS = 2
# Of log(variance, lengthscale, epsilon, noise).
_START = (1.0, 1.0, 0.1, 0.05)
_BOUNDS = ((1e-3, 1e3), (1e-2, 1e2), (1e-5, 0.5), (1e-4, 1.0))


class TimeVaryingGP:
    """Gaussian process whose correlation fades with the difference in time.

    The kernel is ``variance * exp(-|x - x'|^2 / lengthscale) * (1 - epsilon) ** (|t - t'| / 2)`` (Bogunovic et al. 2016,
    Sec. 2), with noise on the diagonal. Its parameters maximise the marginal likelihood.

    Parameters
    ----------
    X : ndarray of shape (n_points, 1 + n_features)
        The first column is the time.
    y : ndarray of shape (n_points,)
    parameters : ndarray of shape (4,), optional
        Logarithms of variance, lengthscale, epsilon and noise; fitted by default.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, parameters: np.ndarray | None = None) -> None:
        import numpy as np

        linalg = require("scipy.linalg", purpose="PB2", extra="sklearn")
        self.X = X
        self.parameters = _fitted(X, y) if parameters is None else parameters
        kernel = _kernel(X, X, self.parameters) + np.exp(self.parameters[3]) * np.eye(len(X))
        self._factor = linalg.cho_factor(kernel, lower=True)
        self._weights = linalg.cho_solve(self._factor, y)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, without noise, at each of the points."""
        import numpy as np

        linalg = require("scipy.linalg", purpose="PB2", extra="sklearn")
        cross = _kernel(X, self.X, self.parameters)
        solved = linalg.solve_triangular(self._factor[0], cross.T, lower=True)
        variance = np.exp(self.parameters[0]) - (solved**2).sum(axis=0)
        return cross @ self._weights, np.sqrt(np.maximum(variance, 1e-12))


def select_point(
    observed: list[tuple[float, ...]],
    changes: list[float],
    context: tuple[float, float],
    pending: list[tuple[float, ...]],
    bounds: list[tuple[float, float]],
    interval: float,
    seed: int,
) -> list[float]:
    """The parameters with the highest upper confidence bound on the change of the score (Parker-Holder et al., Alg. 2).

    Parameters
    ----------
    observed : list of tuple
        ``(time, score before, *parameters)`` of intervals that are over.
    changes : list of float
        Change of the score per unit of time in each.
    context : tuple of float
        Time and score that the new interval begins with.
    pending : list of tuple
        Intervals under way, like `observed`: they lower the uncertainty where results will come soon (GP-BUCB).
    bounds : list of tuple
    interval : float
        Length of an interval: what counts as a step in time.
    seed : int
    """
    # The matrices are small: more threads would take the cores of the trials and be slower.
    with threadpool_limits(1):
        return _select(observed, changes, context, pending, bounds, interval, seed)


def _select(
    observed: list[tuple[float, ...]],
    changes: list[float],
    context: tuple[float, float],
    pending: list[tuple[float, ...]],
    bounds: list[tuple[float, float]],
    interval: float,
    seed: int,
) -> list[float]:
    import numpy as np

    optimize = require("scipy.optimize", purpose="PB2", extra="sklearn")
    low, high = np.array(bounds, dtype=float).T
    X = np.array(observed[-_FITTED_ON:], dtype=float)
    y = np.array(changes[-_FITTED_ON:], dtype=float)
    first = np.concatenate([X[:, :2].min(axis=0), low])
    width = np.concatenate([X[:, :2].max(axis=0), high]) - first
    width[width <= 0] = 1.0
    width[0] = interval  # in steps, as in the paper: within [0, 1] nothing could be forgotten
    X = (X - first) / width
    y = np.clip((y - y.mean()) / (y.std() + 1e-8), -2, 2)  # one diverging trial must not flatten all others
    model = TimeVaryingGP(X, y)
    spread = model
    if pending:
        others = (np.array(pending, dtype=float) - first) / width
        spread = TimeVaryingGP(np.vstack([X, others]), np.zeros(len(X) + len(others)), model.parameters)
    # Constants of the bound as in the authors' experiments.
    weight = np.sqrt(0.2 + max(0.0, np.log(0.4 * len(X))))
    fixed = (np.array(context) - first[:2]) / width[:2]

    def bound(points: np.ndarray) -> np.ndarray:
        at = np.hstack([np.tile(fixed, (len(points), 1)), points])
        return model.predict(at)[0] + weight * spread.predict(at)[1]

    candidates = np.random.default_rng(seed).uniform(size=(_CANDIDATES, len(bounds)))
    values = bound(candidates)
    best, best_value = candidates[values.argmax()], values.max()
    for start in candidates[np.argsort(values)[-_STARTS:]]:
        found = optimize.minimize(
            lambda x: -bound(x[None])[0],
            start,
            bounds=[(0, 1)] * len(bounds),
            method="L-BFGS-B",
            options={"maxiter": 20},
        )
        if -found.fun > best_value:
            best, best_value = found.x, -found.fun
    chosen: list[float] = (low + np.clip(best, 0, 1) * (high - low)).tolist()
    return chosen


def _kernel(A: np.ndarray, B: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    import numpy as np

    variance, lengthscale, epsilon = np.exp(parameters[:3])
    squares = _squared_distances(A, B)
    return variance * np.exp(-squares / lengthscale) * (1 - epsilon) ** (np.abs(A[:, :1] - B[:, 0]) / 2)


def _squared_distances(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return ((A[:, None, 1:] - B[None, :, 1:]) ** 2).sum(axis=2)


def _fitted(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    import numpy as np

    linalg = require("scipy.linalg", purpose="PB2", extra="sklearn")
    optimize = require("scipy.optimize", purpose="PB2", extra="sklearn")
    squares, lags = _squared_distances(X, X), np.abs(X[:, :1] - X[:, 0])
    identity = np.eye(len(X))

    def loss(parameters: np.ndarray) -> tuple[float, Any]:
        """Negative log marginal likelihood and its gradient."""
        variance, lengthscale, epsilon, noise = np.exp(parameters)
        smooth = variance * np.exp(-squares / lengthscale) * (1 - epsilon) ** (lags / 2)
        factor = linalg.cho_factor(smooth + noise * identity, lower=True)
        weights = linalg.cho_solve(factor, y)
        value = 0.5 * y @ weights + np.log(np.diag(factor[0])).sum()
        inner = np.outer(weights, weights) - linalg.cho_solve(factor, identity)
        slopes = (
            smooth,
            smooth * squares / lengthscale,
            smooth * lags / 2 * -epsilon / (1 - epsilon),
            noise * identity,
        )
        return value, np.array([-0.5 * (inner * slope).sum() for slope in slopes])

    found = optimize.minimize(
        loss, np.log(_START), jac=True, bounds=np.log(_BOUNDS), method="L-BFGS-B", options={"maxiter": 50}
    )
    return found.x

"""Objectives and metrics in scikit-learn's form, for the native API.

They travel to the actors, so they live in a module that loads without scikit-learn.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["SklearnMetric", "SklearnObjective", "SklearnRankingMetric"]


class SklearnObjective:
    """``objective(y_true, y_pred[, sample_weight])``, which returns gradient and hessian, as the native API calls it.

    Parameters
    ----------
    objective : callable
        With `sample_weight` it does the weighing itself; without, it is done here.
    """

    def __init__(self, objective: Callable[..., Any]) -> None:
        self.objective = objective

    def __call__(self, predictions: np.ndarray, matrix: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return gradient and hessian."""
        labels = _labels(matrix)
        weights = matrix.get_weight()
        if not weights.size:
            gradient, hessian = self.objective(labels, predictions)
            return gradient, hessian
        try:
            gradient, hessian = self.objective(labels, predictions, sample_weight=weights)
        except TypeError as error:
            raise TypeError(
                f"The custom objective must take `sample_weight`, since there are weights: {error}"
            ) from error
        return gradient, hessian


class SklearnMetric:
    """``metric(y_true, y_pred[, sample_weight])``, such as those of ``sklearn.metrics``, as the native API calls it.

    Parameters
    ----------
    metric : callable
        Returns a number.
    """

    def __init__(self, metric: Callable[..., float]) -> None:
        self.metric = metric
        self.__name__ = getattr(metric, "__name__", type(metric).__name__)

    def __call__(self, predictions: np.ndarray, matrix: Any) -> tuple[str, float]:
        """Return name and value."""
        weights = matrix.get_weight()
        extra = {"sample_weight": weights} if weights.size else {}
        return self.__name__, float(self.metric(_labels(matrix), predictions, **extra))


class SklearnRankingMetric(SklearnMetric):
    """The same, averaged over queries."""

    def __call__(self, predictions: np.ndarray, matrix: Any) -> tuple[str, float]:
        """Return name and value."""
        borders = matrix.get_uint_info("group_ptr")
        if len(borders) < 2:
            raise ValueError("The metric of a ranker needs `group` or `qid`.")
        labels, weights = _labels(matrix), matrix.get_weight()
        values = [
            float(self.metric(labels[start:end], predictions[start:end])) for start, end in itertools.pairwise(borders)
        ]
        return self.__name__, float(np.average(values, weights=weights if weights.size else None))


def _labels(matrix: Any) -> np.ndarray:
    labels = np.asarray(matrix.get_label())
    rows = matrix.num_row()
    return labels.reshape(rows, -1) if rows and labels.size > rows else labels

"""Objectives and metrics in scikit-learn's form, for the native API.

They travel to the actors, so they live in a module that loads without scikit-learn.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["SklearnMetric", "SklearnObjective"]


class _Wrapper:
    """Calls ``function(y_true, y_pred[, weight[, group]])`` with as much as it takes.

    Parameters
    ----------
    function : callable
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        count = _positional(function)
        if count not in (2, 3, 4):
            raise TypeError(
                f"`{self.__name__}` must take (y_true, y_pred), (y_true, y_pred, weight) or (y_true, y_pred, weight, group), "
                f"it takes {count} arguments."
            )
        self._count = count

    def __call__(self, predictions: np.ndarray, dataset: Any) -> Any:
        """Return what the function returns."""
        arguments = [dataset.get_label(), predictions]
        if self._count > 2:
            arguments.append(dataset.get_weight())
        if self._count > 3:
            arguments.append(dataset.get_group())
        return self.function(*arguments)


class SklearnObjective(_Wrapper):
    """``objective(y_true, y_pred[, weight[, group]])``, which returns gradient and hessian."""


class SklearnMetric(_Wrapper):
    """``metric(y_true, y_pred[, weight[, group]])``, which returns name, value and whether greater is better."""


def _positional(function: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in inspect.signature(function).parameters.values())

"""Metrics of the whole from those of its shards.

LightGBM evaluates each rank's rows by themselves. Ranks that saw different values would stop early at different rounds,
and none of the values would be that of the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mltoolkit._boosting.block import Block
from mltoolkit.lightgbm._mesh import Mesh

__all__ = ["MetricReducer", "average_precision", "group_sizes", "needs_predictions", "roc_auc"]

#: One value of a round: dataset, metric, value, whether greater is better.
Result = tuple[str, str, float, bool]

#: Metrics that no combination of values of the shards gives: they are computed from the predictions of all ranks.
_WHOLE = ("auc", "average_precision")
_RANKING = ("ndcg", "map")


class _Column(NamedTuple):
    """One metric of one dataset; `kind` is LightGBM's name of it, or ``"custom"``."""

    data: str
    name: str
    greater: bool
    kind: str


def needs_predictions(metric: Any) -> bool:
    """Whether a value of LightGBM's parameter ``metric`` names one that is computed from all predictions."""
    names = metric.split(",") if isinstance(metric, str) else metric or ()
    return any(isinstance(name, str) and name.strip() in _WHOLE for name in names)


def group_sizes(qid: np.ndarray) -> np.ndarray:
    """Return the sizes of queries from the query of each row, sorted by query."""
    borders = np.flatnonzero(np.r_[True, qid[1:] != qid[:-1], True]) if len(qid) else np.zeros(1, int)
    return np.diff(borders)


class MetricReducer:
    """Combines the results of a round over all ranks.

    Most metrics are means over rows or queries, whose weighted mean over shards is the mean of the whole. The root of the
    mean squared error is taken last, deviances that are sums are added up, and the areas under curves come from the
    predictions of all ranks. Metrics of the user, and ``auc_mu``, are averaged, weighted by rows.

    Parameters
    ----------
    mesh : Mesh or None
        None: there is one rank, and nothing to do.
    blocks : dict of str to Block
        The evaluation datasets, by name, in order.
    custom : callable
        Whether a metric of this name is the user's.
    """

    def __init__(
        self,
        mesh: Mesh | None,
        blocks: Mapping[str, Block],
        custom: Callable[[str], bool],
    ) -> None:
        self.mesh = mesh
        self._blocks = blocks
        self._is_custom = custom
        self._layout: list[_Column] = []
        self._weights = np.zeros(0)
        self._totals = np.zeros(0)
        self._targets: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def reduce(self, results: Sequence[Result], predictions: Mapping[str, np.ndarray]) -> list[Result]:
        """Return the results of the whole, the same on all ranks.

        Parameters
        ----------
        results : sequence of tuple
            Of this rank; nothing about datasets of which it has no rows.
        predictions : dict of str to ndarray
            By dataset, where they are needed.
        """
        if self.mesh is None:
            return list(results)
        if not self._layout:
            self._agree(results)
        own = {(data, name): value for data, name, value, _ in results}
        parts = np.zeros(len(self._layout))
        for at, column in enumerate(self._layout):
            value = own.get((column.data, column.name))
            if value is not None:
                parts[at] = (value * value if column.kind == "rmse" else value) * self._weights[at]
        gathered = self.mesh.allgather(parts.tobytes())
        sums = np.sum([np.frombuffer(part) for part in gathered], axis=0)
        out = []
        for at, column in enumerate(self._layout):
            if column.kind in _WHOLE:
                value = self._from_predictions(column.data, column.kind, predictions)
            else:
                value = self._whole(column, float(sums[at]), float(self._totals[at]))
            out.append((column.data, column.name, value, column.greater))
        return out

    def _agree(self, results: Sequence[Result]) -> None:
        """Learn which metrics there are, and how much each rank weighs in them."""
        assert self.mesh is not None
        mine = []
        for data, name, _, greater in results:
            kind = "custom" if self._is_custom(name) else name.partition("@")[0]
            mine.append((data, name, bool(greater), kind, self._weight(data, kind)))
        columns: dict[_Column, float] = {}
        for part in self.mesh.allgather(json.dumps(mine).encode()):
            for *about, weight in json.loads(part):
                column = _Column(*about)
                columns[column] = columns.get(column, 0.0) + weight
        order = {data: at for at, data in enumerate(self._blocks)}
        self._layout = sorted(columns, key=lambda column: order[column.data])
        own = {(data, name): weight for data, name, _, _, weight in mine}
        self._weights = np.array([own.get((column.data, column.name), 0.0) for column in self._layout])
        self._totals = np.array([columns[column] for column in self._layout])

    def _weight(self, data: str, kind: str) -> float:
        block = self._blocks[data]
        if kind == "gamma_deviance":
            return 1.0
        if kind in _RANKING and block.qid is not None:
            sizes = group_sizes(block.qid)
            if block.weight is None:
                return float(len(sizes))
            return float(np.sum(np.add.reduceat(block.weight, np.r_[0, np.cumsum(sizes)[:-1]]) / sizes))
        if block.weight is not None and kind not in ("cross_entropy_lambda", "custom"):
            return float(np.sum(block.weight, dtype=np.float64))
        return float(block.n)

    def _whole(self, column: _Column, total: float, weight: float) -> float:
        if column.kind == "gamma_deviance":
            return total
        mean = total / weight if weight else math.nan
        return math.sqrt(mean) if column.kind == "rmse" else mean

    def _from_predictions(self, data: str, kind: str, predictions: Mapping[str, np.ndarray]) -> float:
        assert self.mesh is not None
        scores = np.ascontiguousarray(predictions.get(data, np.zeros(0)), np.float64)
        if data not in self._targets:
            block = self._blocks[data]
            label = np.zeros(0) if block.label is None else np.asarray(block.label, np.float64)
            weight = np.ones(len(label)) if block.weight is None else np.asarray(block.weight, np.float64)
            self._targets[data] = (self._all(label), self._all(weight))
        labels, weights = self._targets[data]
        metric = roc_auc if kind == "auc" else average_precision
        return metric(labels, self._all(scores), weights)

    def _all(self, values: np.ndarray) -> np.ndarray:
        assert self.mesh is not None
        return np.concatenate([np.frombuffer(part) for part in self.mesh.allgather(values.tobytes())])


def _steps(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positive and of negative rows for each distinct score, from the greatest on."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, int)
    positive = np.where(labels[order] > 0, weights[order], 0.0)
    negative = weights[order] - positive
    if not len(starts):
        return np.zeros(0), np.zeros(0)
    return np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)


def roc_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """Area under the receiver operating characteristic; 1 where there is one class, as LightGBM has it.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Positive where greater than 0.
    scores, weights : ndarray of shape (n,)

    Examples
    --------
    >>> roc_auc(np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.8, 0.1]), np.ones(4))
    0.875
    """
    positive, negative = _steps(labels, scores, weights)
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return 1.0
    before = np.cumsum(positive) - positive
    return float(np.sum(negative * (before + 0.5 * positive)) / pairs)


def average_precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the precision at each positive row; 1 where there is one class, as LightGBM has it.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Positive where greater than 0.
    scores, weights : ndarray of shape (n,)

    Examples
    --------
    >>> average_precision(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.1]), np.ones(3))
    0.8333333333333333
    """
    positive, negative = _steps(labels, scores, weights)
    total = positive.sum()
    if not total or not negative.sum():
        return 1.0
    found = np.cumsum(positive)
    precision = found / np.maximum(found + np.cumsum(negative), np.finfo(float).tiny)
    return float(np.sum(positive * precision) / total)

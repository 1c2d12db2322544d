"""Metrics of the whole from those of its shards, against the metrics of the whole."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mltoolkit._boosting.block import Block
from mltoolkit.lightgbm._mesh import Mesh
from mltoolkit.lightgbm._metrics import MetricReducer, average_precision, group_sizes, needs_predictions, roc_auc


@pytest.fixture
def meshes():
    left, right = socket.socketpair()
    made = [Mesh(0, {1: left}, 10), Mesh(1, {0: right}, 10)]
    yield made
    for mesh in made:
        mesh.close()


def reduced(meshes, blocks, results, predictions=({}, {}), custom=frozenset()):
    """What both ranks make of their results, one round after the other."""
    reducers = [MetricReducer(mesh, own, custom.__contains__) for mesh, own in zip(meshes, blocks, strict=True)]
    with ThreadPoolExecutor(2) as pool:
        outcomes = [list(pool.map(lambda at: reducers[at].reduce(results[at], predictions[at]), (0, 1))) for _ in "ab"]
    for ranks in outcomes:
        assert ranks[0] == ranks[1] == outcomes[0][0]
    return {(data, name): (value, greater) for data, name, value, greater in outcomes[0][0]}


def block(n, weight=None, label=None, qid=None):
    return Block(np.zeros((n, 1)), label=label, weight=weight, qid=qid)


def test_means_are_weighted_by_rows_and_roots_come_last(meshes):
    blocks = [{"v": block(1)}, {"v": block(3)}]
    results = [
        [("v", "l1", 1.0, False), ("v", "rmse", 1.0, False)],
        [("v", "l1", 3.0, False), ("v", "rmse", 3.0, False)],
    ]
    assert reduced(meshes, blocks, results) == {
        ("v", "l1"): (2.5, False),
        ("v", "rmse"): (pytest.approx(np.sqrt((1 + 3 * 9) / 4)), False),
    }


def test_weights_count_where_there_are_any(meshes):
    blocks = [{"v": block(1, np.array([9.0]))}, {"v": block(3, np.full(3, 1 / 3))}]
    results = [[("v", "binary_logloss", 1.0, False)], [("v", "binary_logloss", 2.0, False)]]
    assert reduced(meshes, blocks, results)["v", "binary_logloss"][0] == pytest.approx(1.1)


def test_a_custom_metric_is_weighted_by_rows_whatever_its_name(meshes):
    blocks = [{"v": block(1, np.array([9.0]))}, {"v": block(3, np.ones(3))}]
    results = [[("v", "rmse", 1.0, True)], [("v", "rmse", 3.0, True)]]
    assert reduced(meshes, blocks, results, custom={"rmse"})["v", "rmse"] == (2.5, True)


def test_a_dataset_of_which_one_rank_has_nothing(meshes):
    blocks = [{"a": block(2), "b": block(0)}, {"a": block(2), "b": block(1)}]
    results = [[("a", "l2", 1.0, False)], [("a", "l2", 2.0, False), ("b", "l2", 7.0, False)]]
    assert reduced(meshes, blocks, results) == {("a", "l2"): (1.5, False), ("b", "l2"): (7.0, False)}


def test_results_come_in_the_order_of_the_datasets(meshes):
    blocks = [{"b": block(0), "a": block(1)}, {"b": block(1), "a": block(1)}]
    results = [[("a", "l2", 1.0, False)], [("b", "l2", 2.0, False), ("a", "l2", 1.0, False)]]
    assert list(reduced(meshes, blocks, results)) == [("b", "l2"), ("a", "l2")]


def test_sums_are_added_up(meshes):
    results = [[("v", "gamma_deviance", 2.0, False)]] * 2
    blocks = [{"v": block(4)}] * 2
    assert reduced(meshes, blocks, results)["v", "gamma_deviance"][0] == 4.0


def test_ranking_metrics_are_weighted_by_queries(meshes):
    blocks = [{"v": block(5, qid=np.zeros(5, int))}, {"v": block(3, qid=np.arange(3))}]
    results = [[("v", "ndcg@3", 0.4, True)], [("v", "ndcg@3", 0.8, True)]]
    assert reduced(meshes, blocks, results)["v", "ndcg@3"][0] == pytest.approx(0.7)
    blocks = [
        {"v": block(2, np.array([1.0, 3.0]), qid=np.zeros(2, int))},
        {"v": block(1, np.ones(1), qid=np.zeros(1, int))},
    ]
    assert reduced(meshes, blocks, results)["v", "ndcg@3"][0] == pytest.approx((2 * 0.4 + 0.8) / 3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["auc", "average_precision"])
def test_areas_come_from_all_predictions(meshes, name, weighted):
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 40), rng.integers(0, 9, 40) / 9
    weight = rng.random(40) if weighted else None
    label[:7] = 1  # the first rank has one class only
    cut = [slice(0, 7), slice(7, 40)]
    blocks = [{"v": block(len(label[c]), None if weight is None else weight[c], label[c])} for c in cut]
    results = [[("v", name, 0.123, True)]] * 2
    value = reduced(meshes, blocks, results, [{"v": score[c]} for c in cut])["v", name][0]
    whole = {"auc": roc_auc_score, "average_precision": average_precision_score}[name]
    assert value == pytest.approx(whole(label, score, sample_weight=weight))


@pytest.mark.parametrize("metric", [roc_auc, average_precision])
def test_areas_of_one_class_are_what_lightgbm_says(metric):
    assert metric(np.ones(3), np.arange(3.0), np.ones(3)) == 1.0
    assert metric(np.zeros(3), np.arange(3.0), np.ones(3)) == 1.0
    assert metric(np.zeros(0), np.zeros(0), np.zeros(0)) == 1.0


@pytest.mark.parametrize("given", ["auc", "l2,auc", ["average_precision"], ["l2", "auc"]])
def test_which_metrics_need_predictions(given):
    assert needs_predictions(given)


@pytest.mark.parametrize("given", [None, "l2", "auc_mu", ["binary_logloss"], []])
def test_which_metrics_do_not(given):
    assert not needs_predictions(given)


def test_group_sizes():
    assert group_sizes(np.array([4, 4, 7, 9, 9, 9])).tolist() == [2, 1, 3]
    assert group_sizes(np.zeros(0, int)).tolist() == []

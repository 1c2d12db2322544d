"""Rows dealt out to ranks, and put together again."""

from __future__ import annotations

import numpy as np
import pytest

from mltoolkit._boosting.sharding import RayShardingMode, combine_data, group_rows, scatter, shard_rows, share

INTERLEAVED, BATCH, FIXED = RayShardingMode.INTERLEAVED, RayShardingMode.BATCH, RayShardingMode.FIXED


@pytest.mark.parametrize("mode", [INTERLEAVED, BATCH])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 100])
@pytest.mark.parametrize("num_actors", [1, 2, 3, 8])
def test_every_row_has_one_owner_and_comes_back_to_its_place(mode, n, num_actors):
    rows = np.arange(n)
    parts = [rows[shard_rows(mode, rank, num_actors, n)] for rank in range(num_actors)]
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert combine_data(mode, parts).tolist() == rows.tolist()


def test_interleaved_deals_like_cards_and_batch_in_one_piece():
    rows = np.arange(5)
    assert [rows[shard_rows(INTERLEAVED, rank, 2, 5)].tolist() for rank in range(2)] == [[0, 2, 4], [1, 3]]
    assert [rows[shard_rows(BATCH, rank, 2, 5)].tolist() for rank in range(2)] == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize("mode", [INTERLEAVED, BATCH])
def test_results_of_several_columns_are_combined_row_by_row(mode):
    whole = np.arange(21).reshape(7, 3)
    parts = [whole[shard_rows(mode, rank, 3, 7)] for rank in range(3)]
    assert (combine_data(mode, parts) == whole).all()


def test_uneven_interleaved_parts_go_round_while_all_have_rows():
    parts = [np.array([0, 2, 4, 5, 6]), np.array([1, 3])]
    assert combine_data(INTERLEAVED, parts).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_fixed_is_no_way_to_divide_rows():
    with pytest.raises(ValueError, match="FIXED"):
        combine_data(FIXED, [np.arange(2)])
    with pytest.raises(ValueError, match="INTERLEAVED"):
        shard_rows(FIXED, 0, 2, 4)


def test_files_are_shared_like_rows():
    files = ["a", "b", "c"]
    assert [share(INTERLEAVED, files, rank, 2) for rank in range(2)] == [["a", "c"], ["b"]]
    assert [share(BATCH, files, rank, 2) for rank in range(2)] == [["a", "b"], ["c"]]


@pytest.mark.parametrize("mode", [INTERLEAVED, BATCH])
def test_queries_stay_whole_and_sorted(mode):
    rng = np.random.default_rng(0)
    qid = rng.integers(0, 20, 200)
    rows = group_rows(mode, qid, 3)
    assert sorted(np.concatenate(rows).tolist()) == list(range(200))
    owners = [set(qid[r].tolist()) for r in rows]
    assert not owners[0] & owners[1] and not owners[1] & owners[2] and not owners[0] & owners[2]
    assert all((np.diff(qid[r]) >= 0).all() for r in rows)
    assert all(len(r) > 30 for r in rows)


def test_more_actors_than_queries_leave_some_without_rows():
    rows = group_rows(INTERLEAVED, np.array([5, 5, 1]), 4)
    assert [r.tolist() for r in rows] == [[2], [0, 1], [], []]


def test_scatter_ignores_parts_without_rows():
    out = scatter([np.array([1.0, 3.0]), np.empty((0,))], [slice(0, 2, 1), slice(2, 2, 1)], 2)
    assert out.tolist() == [1.0, 3.0]

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mltoolkit.rllib.core.learner.train_batch import (
    make_train_batch,
    minibatch_rows,
    num_minibatches,
    split_fragments,
)


def numbered(n_steps, n_envs, first=0):
    """A fragment whose every step has a number of its own."""
    steps = first + np.arange((n_steps + 1) * n_envs).reshape(n_steps + 1, n_envs)
    return {
        "obs": steps[..., None].astype(np.float32),
        "actions": steps[:-1],
        "rewards": steps[:-1].astype(np.float32),
        "terminateds": np.zeros((n_steps, n_envs), bool),
        "truncateds": np.zeros((n_steps, n_envs), bool),
        "loss_mask": np.ones((n_steps, n_envs), bool),
    }


def test_steps_of_all_fragments_become_rows_without_the_masked():
    one, two = numbered(3, 2), numbered(2, 4, first=100)
    one["loss_mask"][1, 1] = False
    batch = make_train_batch([one, two])
    assert batch.num_steps == 13
    assert batch.columns["actions"][batch.rows].tolist() == [0, 1, 2, 4, 5, *range(100, 108)]
    assert (batch.columns["obs"][:, 0] == batch.columns["actions"]).all()


def test_sequences_are_cut_padded_and_dropped_where_nothing_is_in_them():
    fragment = numbered(5, 2)
    fragment["is_first"] = np.zeros((6, 2), bool)
    fragment["state_in"] = {"h": np.arange(6.0).reshape(3, 2, 1)}
    fragment["loss_mask"][2:4, 1] = False
    batch = make_train_batch([fragment], max_seq_len=2)
    assert batch.seq_len == 2
    assert batch.columns["actions"].tolist() == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 0], [9, 0]]
    assert batch.columns["loss_mask"].tolist()[4:] == [[True, False], [True, False]]
    assert batch.columns["obs"].shape == (6, 2, 1)
    assert batch.rows.tolist() == [0, 1, 2, 4, 5]
    assert batch.state_in["h"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.num_steps == 8


def test_a_short_fragment_is_not_padded_to_the_longest_sequence():
    fragment = numbered(5, 1)
    fragment["is_first"] = np.zeros((6, 1), bool)
    fragment["state_in"] = {"h": np.zeros((1, 1, 1))}
    assert make_train_batch([fragment], max_seq_len=20).columns["actions"].shape == (1, 5)


@pytest.mark.parametrize(("num_rows", "size", "epochs"), [(100, 10, 3), (103, 10, 3), (7, 10, 4), (5, 5, 1)])
def test_minibatches_cover_each_epoch_and_are_all_of_one_size(num_rows, size, epochs):
    rows = np.arange(num_rows) * 2
    count = num_minibatches(num_rows, size, epochs)
    chunks = list(minibatch_rows(rows, size=size, num_minibatches=count, shuffle=True, rng=np.random.default_rng(0)))
    together = np.concatenate([chunk.ravel() for chunk in chunks])
    assert {chunk.shape[1] for chunk in chunks} == {size}
    assert sum(len(chunk) for chunk in chunks) == count
    assert num_rows * epochs <= len(together) < num_rows * epochs + size
    orders = [together[epoch * num_rows : (epoch + 1) * num_rows] for epoch in range(epochs)]
    assert all((np.sort(order) == rows).all() for order in orders)
    assert all((one != two).any() for one, two in pairwise(orders))


def test_without_shuffling_rows_keep_their_order():
    chunks = minibatch_rows(np.arange(4), size=3, num_minibatches=3, shuffle=False, rng=np.random.default_rng(0))
    assert np.concatenate([chunk.ravel() for chunk in chunks]).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_shares_hold_each_step_once_and_are_even():
    fragments = [numbered(6, 5), numbered(8, 1, first=1000)]
    shares = split_fragments(fragments, 3)
    steps = [np.concatenate([part["actions"].ravel() for part in share]) for share in shares]
    assert sorted(np.concatenate(steps)) == sorted(np.concatenate([each["actions"].ravel() for each in fragments]))
    assert max(map(len, steps)) - min(map(len, steps)) <= 6
    for share in shares:
        for part in share:
            assert len(part["obs"]) == len(part["actions"]) + 1
            assert (part["obs"][:-1, :, 0] == part["actions"]).all()


def test_stateful_fragments_are_cut_between_sequences():
    fragment = numbered(10, 1)
    fragment["is_first"] = np.zeros((11, 1), bool)
    fragment["state_in"] = {"h": np.arange(3.0).reshape(3, 1, 1)}
    one, two = split_fragments([fragment], 2, max_seq_len=4)
    assert len(one[0]["actions"]) == 8 and len(two[0]["actions"]) == 2
    assert two[0]["state_in"]["h"].ravel().tolist() == [2.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rewards": None}, "lacks 'rewards'"),
        ({"actions": np.zeros((2, 2))}, r"`actions` of fragment 0 must begin with the shape \(3, 2\), got \(2, 2\)"),
        ({"obs": np.zeros((3, 2, 1))}, r"`obs` of fragment 0 must begin with the shape \(4, 2\)"),
    ],
)
def test_fragments_that_do_not_fit_together_are_errors(change, words):
    from mltoolkit.rllib.core.learner.train_batch import check_fragments

    fragment = {name: value for name, value in {**numbered(3, 2), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        check_fragments([fragment])


def test_nothing_to_learn_from_is_an_error():
    from mltoolkit.rllib.core.learner.train_batch import check_fragments

    fragment = numbered(3, 2)
    fragment["loss_mask"][:] = False
    with pytest.raises(ValueError, match="`loss_mask` is False everywhere"):
        make_train_batch([fragment])
    with pytest.raises(ValueError, match="at least one"):
        check_fragments([])

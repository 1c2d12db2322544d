"""Datasets: parts of equal length for the workers, and what has no parts."""

from __future__ import annotations

import numpy as np
import pytest

from mltoolkit import train
from mltoolkit.train._internal.datasets import split_dataset


def test_parts_are_of_the_same_kind_and_length():
    array = np.arange(7).reshape(7, 1)
    assert [part.tolist() for part in split_dataset(array, 3)] == [[[0], [1]], [[2], [3]], [[4], [5]]]
    assert split_dataset(range(4), 2) == [range(2), range(2, 4)]
    assert split_dataset(lambda: [1, 2, 3], 3) == [[1], [2], [3]]
    pairs = split_dataset((array, np.arange(7)), 2)
    assert [y.tolist() for _, y in pairs] == [[0, 1, 2], [3, 4, 5]]
    named = split_dataset({"x": array, "y": [0] * 7}, 2)
    assert named[1]["x"].ravel().tolist() == [3, 4, 5] and named[1]["y"] == [0, 0, 0]


def test_tables_and_torch_datasets():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": range(5)})
    assert [part["x"].tolist() for part in split_dataset(frame, 2)] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("dataset", "error", "text"),
    [
        (iter([1, 2]), TypeError, "an iterable without parts"),
        (3, TypeError, "no dataset that can be split"),
        ([1], ValueError, "has 1 rows for 2 workers"),
        ({"x": [1, 2], "y": [1, 2, 3, 4]}, ValueError, "different numbers of rows"),
    ],
)
def test_what_cannot_be_split(dataset, error, text):
    with pytest.raises(error) as caught:
        split_dataset(dataset, 2, "valid")
    assert text in str(caught.value) and "valid" in str(caught.value)


def test_config_names_datasets_that_are_there(runtime):
    config = train.DataConfig(datasets_to_split=["train"])
    shards = config.shards({"train": [1, 2], "valid": [3, 4]}, 2)
    assert [runtime.get(shard["train"]) for shard in shards] == [[1], [2]]
    assert [runtime.get(shard["valid"]) for shard in shards] == [[3, 4], [3, 4]]
    with pytest.raises(ValueError, match="names 'test'"):
        train.DataConfig(datasets_to_split=["test"]).shards({"train": [1]}, 1)
    with pytest.raises(TypeError, match="'all' or a list"):
        train.DataConfig(datasets_to_split="train")

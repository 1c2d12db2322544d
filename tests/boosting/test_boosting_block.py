"""Rows in all the forms that users have them in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from mltoolkit._boosting.block import (
    Block,
    Schema,
    apply_schema,
    as_column,
    as_features,
    concat_blocks,
    feature_block,
    take_rows,
    unify,
)


def test_a_frame_of_numbers_becomes_a_matrix_with_names_and_types():
    frame = pd.DataFrame({"a": [1.5, 2.5], "b": [1, 2], "c": [True, False]})
    block = feature_block(frame, float32=True)
    assert block.data.dtype == np.float32
    assert block.data.tolist() == [[1.5, 1.0, 1.0], [2.5, 2.0, 0.0]]
    assert block.feature_names == ["a", "b", "c"]
    assert block.feature_types == ["float", "int", "i"]
    assert feature_block(frame, float32=False).data.dtype == np.float64


def test_a_frame_with_categories_stays_one():
    frame = pd.DataFrame({"a": [1.5, 2.5], "b": pd.Categorical(["x", "y"])}, index=[7, 9])
    block = feature_block(frame, float32=True)
    assert isinstance(block.data, pd.DataFrame)
    assert block.feature_types == ["float", "c"]
    assert block.schema().categories == {"b": ["x", "y"]}


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 2, 2)), np.array([["a"]]), "text", {"a": 1}, 3])
def test_other_things_are_no_features(bad):
    with pytest.raises(ValueError, match="`data`"):
        as_features(bad)


def test_lists_and_series_are_features():
    assert as_features([[1, 2], [3, 4]]).shape == (2, 2)
    assert list(as_features(pd.Series([1.0, 2.0], name="a")).columns) == ["a"]


def test_columns_are_flat_numbers():
    assert as_column(np.array([[1], [2]]), "label").tolist() == [1, 2]
    assert as_column(pd.Series([1, None], dtype="Int64"), "label").tolist()[0] == 1.0
    first, second = as_column(np.array(["b", "a", "b"]), "qid"), as_column(np.array(["c", "b"], object), "qid")
    assert first[0] == first[2] == second[1]  # the same in every part of the data
    assert len({*first.tolist(), *second.tolist()}) == 3
    with pytest.raises(ValueError, match="`label` must be numeric"):
        as_column(np.array(["b", "a"]), "label")


@pytest.mark.parametrize("rows", [slice(1, 4, 2), slice(0, 2, 1), np.array([3, 0])])
def test_rows_can_be_taken_from_every_form(rows):
    values = np.arange(8.0).reshape(4, 2)
    expected = values[rows]
    assert (take_rows(values, rows) == expected).all()
    assert (take_rows(pd.DataFrame(values), rows).to_numpy() == expected).all()
    assert (take_rows(scipy.sparse.csr_matrix(values), rows).toarray() == expected).all()


def test_tables_of_arrow_can_be_taken_apart():
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": [1.0, 2.0, 3.0], "b": [1, 2, 3]})
    assert take_rows(table, slice(0, 3, 2)).to_pydict() == {"a": [1.0, 3.0], "b": [1, 3]}
    assert take_rows(table, slice(1, 3, 1)).to_pydict() == {"a": [2.0, 3.0], "b": [2, 3]}
    assert feature_block(table, float32=True).feature_types == ["float", "int"]


def test_parts_with_other_columns_are_named():
    first = Schema(["a", "b"], ["float", "float"], 2, "array")
    with pytest.raises(ValueError, match=r"missing: 'b'; not in the first: 'c'"):
        unify([first, Schema(["a", "c"], ["float", "float"], 2, "array")])
    with pytest.raises(ValueError, match="same number of columns, got 2 and 3"):
        unify([Schema(None, None, 2, "array"), Schema(None, None, 3, "array")])
    with pytest.raises(ValueError, match=r"Column 'b' has different types"):
        unify([first, Schema(["a", "b"], ["float", "c"], 2, "frame")])


def test_integers_beside_floats_are_floats_and_the_order_is_the_firsts():
    schema = unify(
        [Schema(["a", "b"], ["int", "float"], 2, "array"), Schema(["b", "a"], ["float", "float"], 2, "array")]
    )
    assert schema.names == ["a", "b"]
    assert schema.types == ["float", "float"]
    block = apply_schema(
        Block(np.array([[1.0, 2.0]]), feature_names=["b", "a"], feature_types=["float", "float"]), schema
    )
    assert block.data.tolist() == [[2.0, 1.0]]


def test_categories_are_those_of_all_parts():
    parts = [
        feature_block(pd.DataFrame({"g": pd.Categorical(values)}), float32=True) for values in (["b", "c"], ["a", "c"])
    ]
    whole = concat_blocks(parts)
    assert list(whole.data["g"].cat.categories) == ["a", "b", "c"]
    assert whole.data["g"].tolist() == ["b", "c", "a", "c"]


def test_a_shard_without_rows_takes_the_columns_of_the_others():
    schema = Schema(["a", "g"], ["float", "c"], 2, "frame", {"g": ["x"]})
    empty = apply_schema(Block(np.empty((0, 0))), schema)
    assert empty.n == 0
    assert list(empty.data.columns) == ["a", "g"]
    assert apply_schema(Block(np.empty((0, 0))), Schema(None, None, 3, "array")).data.shape == (0, 3)


def test_labels_in_some_parts_only_are_an_error():
    with pytest.raises(ValueError, match="Some parts of the data have a `label`"):
        concat_blocks([Block(np.zeros((1, 1)), label=np.zeros(1)), Block(np.zeros((1, 1)))])

"""Files and partitions, read by whoever owns them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mltoolkit._boosting.sharding import RayShardingMode
from mltoolkit._boosting.sources import Columns, RayFileType, deal_out, find_pieces, piece_rows


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.random(30), "b": rng.integers(0, 9, 30), "y": np.arange(30)})


@pytest.fixture
def csv_files(frame, tmp_path):
    for index in range(3):
        frame[index * 10 : index * 10 + 10].to_csv(tmp_path / f"part{index}.csv", index=False)
    return tmp_path


def load(pieces, num_actors, sharding=RayShardingMode.INTERLEAVED, columns=None):
    columns = columns or Columns({"label": "y"})
    return [shard.load() for shard in deal_out(pieces, sharding, num_actors, columns, float32=True)]


def in_order(loaded):
    places, n = piece_rows([(block.sources, block.source_rows, block.order) for block in loaded])
    out = np.full(n, -1.0)
    for block, place in zip(loaded, places, strict=True):
        out[place] = block.label
    return out.tolist()


@pytest.mark.parametrize("num_actors", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("sharding", [RayShardingMode.INTERLEAVED, RayShardingMode.BATCH])
def test_files_are_read_once_and_predictions_come_in_their_order(frame, csv_files, num_actors, sharding):
    loaded = load(find_pieces(str(csv_files), {}, RayFileType.CSV, {}), num_actors, sharding)
    assert sum(block.n for block in loaded) == 30
    assert in_order(loaded) == frame["y"].tolist()
    assert all(block.feature_names == ["a", "b"] for block in loaded)


def test_patterns_folders_and_lists_name_the_same_files(csv_files):
    names = [str(csv_files / f"part{index}.csv") for index in range(3)]
    pattern, folder = str(csv_files / "part*.csv"), str(csv_files)
    assert find_pieces(names, {}, None, {}) == find_pieces(pattern, {}, None, {})
    assert find_pieces(names, {}, None, {}) == find_pieces(folder, {}, RayFileType.CSV, {})


def test_parquet_is_read_without_the_index(frame, tmp_path):
    pytest.importorskip("pyarrow")
    frame.set_index(pd.Index(range(100, 130), name="row")).to_parquet(tmp_path / "all.parquet", row_group_size=7)
    loaded = load(find_pieces(str(tmp_path / "all.parquet"), {}, None, {}), 2)
    assert loaded[0].feature_names == ["a", "b"]
    assert in_order(loaded) == frame["y"].tolist()


def test_queries_of_a_shared_file_stay_whole_and_sorted(frame, tmp_path):
    frame.assign(q=np.random.default_rng(1).integers(0, 6, 30)).to_csv(tmp_path / "all.csv", index=False)
    columns = Columns({"label": "y", "qid": "q"})
    loaded = load(find_pieces(str(tmp_path / "all.csv"), {}, None, {}), 2, columns=columns)
    assert not set(loaded[0].qid.tolist()) & set(loaded[1].qid.tolist())
    assert all((np.diff(block.qid) >= 0).all() for block in loaded)
    assert in_order(loaded) == frame["y"].tolist()


def test_columns_can_be_left_out(csv_files):
    pieces = find_pieces(str(csv_files), {}, RayFileType.CSV, {})
    assert load(pieces, 1, columns=Columns({"label": "y"}, ("b",)))[0].feature_names == ["a"]
    with pytest.raises(ValueError, match=r"no column 'z'. It has: 'a', 'b', 'y'"):
        load(pieces, 1, columns=Columns({"label": "z"}))


def test_files_with_other_columns_are_an_error(csv_files):
    pd.DataFrame({"a": [1.0], "c": [2.0], "y": [0]}).to_csv(csv_files / "part3.csv", index=False)
    with pytest.raises(ValueError, match=r"missing: 'b'; not in the first: 'c'"):
        load(find_pieces(str(csv_files), {}, RayFileType.CSV, {}), 1)


def test_names_that_lead_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match="No file matches"):
        find_pieces(str(tmp_path / "*.csv"), {}, None, {})
    with pytest.raises(FileNotFoundError, match="holds no"):
        find_pieces(str(tmp_path), {}, RayFileType.PARQUET, {})
    with pytest.raises(ValueError, match="filetype=RayFileType.CSV"):
        find_pieces("data.bin", {}, None, {})
    with pytest.raises(NotImplementedError, match="PETASTORM"):
        find_pieces("data", {}, RayFileType.PETASTORM, {})


def test_labels_of_files_are_columns(csv_files):
    with pytest.raises(ValueError, match="`label` must be the name of a column"):
        find_pieces(str(csv_files), {"label": np.zeros(3)}, RayFileType.CSV, {})


def test_options_are_for_files_only():
    with pytest.raises(TypeError, match="'sep'"):
        find_pieces(np.zeros((2, 2)), {}, None, {"sep": ";"})
    assert find_pieces(np.zeros((2, 2)), {}, None, {}) is None


def test_partitions_of_dask_are_computed_where_they_are_needed(frame):
    dd = pytest.importorskip("dask.dataframe")
    pieces = find_pieces(dd.from_pandas(frame, npartitions=3), {}, None, {})
    assert len(pieces) == 3
    assert in_order(load(pieces, 2)) == frame["y"].tolist()


def test_dask_arrays_and_labels_must_be_divided_alike(frame):
    da = pytest.importorskip("dask.array")
    data = da.from_array(frame[["a", "b"]].to_numpy(), chunks=(10, 1))
    pieces = find_pieces(data, {"label": da.from_array(frame["y"].to_numpy(), chunks=10)}, None, {})
    assert in_order(load(pieces, 2, columns=Columns())) == frame["y"].tolist()
    with pytest.raises(ValueError, match=r"same number of partitions, got data: 3, label: 2"):
        find_pieces(data, {"label": da.from_array(frame["y"].to_numpy(), chunks=15)}, None, {})
    with pytest.raises(ValueError, match="`label` must be the name of a column or a Dask collection"):
        find_pieces(data, {"label": frame["y"]}, None, {})

"""Datasets that are divided already: files, partitions in the object store, partitions of Dask collections.

The driver only lists their pieces; the actors read them. Where there are fewer pieces than actors, several actors share a
piece, and each keeps every k-th of its rows, or of its queries.
"""

from __future__ import annotations

import glob
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

import mltoolkit
from mltoolkit._boosting import block as blocks
from mltoolkit._boosting.block import ROW_FIELDS, Block
from mltoolkit._boosting.sharding import RayShardingMode, Rows, share
from mltoolkit._optional import require

__all__ = ["Columns", "Piece", "PieceShard", "RayFileType", "deal_out", "find_pieces", "read_all"]

_CSV_CHUNK_ROWS = 200_000


class RayFileType(Enum):
    """What files hold, where their names do not tell.

    Attributes
    ----------
    CSV
        Text with separators, compressed or not.
    PARQUET
        Apache Parquet.
    PETASTORM
        Named for programs that mention it; reading it is not offered. Its files are Parquet files.
    """

    CSV = 1
    PARQUET = 2
    PETASTORM = 3


@dataclass(frozen=True)
class Columns:
    """Which columns of a frame are no features.

    Attributes
    ----------
    fields : dict of str to str
        Column that holds the label, the weight and so on.
    ignore : tuple of str
        Columns to leave out.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()

    def take(self, features: Any, given: Mapping[str, Any]) -> tuple[Any, dict[str, np.ndarray]]:
        """Separate features from labels and the like.

        Parameters
        ----------
        features : DataFrame, pyarrow.Table, ndarray or scipy.sparse matrix
            With all columns.
        given : dict of str to array
            Labels and the like that are no columns of it.

        Raises
        ------
        ValueError
            If a column that is named does not exist.
        """
        features = blocks.as_features(features)
        values = self.values(features, given)
        drop = {*self.fields.values(), *self.ignore}
        if drop:
            left = [name for name in _column_names(features) if name not in drop]
            features = features.select(left) if hasattr(features, "num_rows") else features[left]
        return features, values

    def values(self, features: Any, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return labels and the like, of columns or given beside them; see :meth:`take`."""
        values = {name: blocks.as_column(value, name) for name, value in given.items() if value is not None}
        named = [*self.fields.values(), *self.ignore]
        if named:
            names = _column_names(features)
            missing = [name for name in named if name not in names]
            if missing:
                raise ValueError(
                    f"The data has no column {', '.join(map(repr, missing))}. It has: "
                    f"{', '.join(map(repr, names)) or 'no names, which a DataFrame would have'}."
                )
            for name, column in self.fields.items():
                values[name] = blocks.as_column(features[column], name)
        return values

    def split(self, frame: Any, given: Mapping[str, Any], *, float32: bool) -> Block:
        """Make a block of a frame or matrix; see :meth:`take`."""
        features, values = self.take(frame, given)
        block = blocks.feature_block(_plain_table(features), float32=float32)
        for name, column in values.items():
            if len(column) != block.n:
                raise ValueError(f"`{name}` must have one value for each of the {block.n} rows, got {len(column)}.")
            setattr(block, name, column)
        return block


def _column_names(frame: Any) -> list[Any]:
    return list(getattr(frame, "column_names", getattr(frame, "columns", ())))


def _plain_table(frame: Any) -> Any:
    """A pyarrow Table of numbers and bools as a matrix with names would be, else what it was.

    Tables with categories or text become frames, whose categories can be made the same in all shards.
    """
    if not hasattr(frame, "num_rows"):
        return frame
    import pyarrow.types as kinds

    if all(kinds.is_integer(c.type) or kinds.is_floating(c.type) or kinds.is_boolean(c.type) for c in frame.schema):
        import pandas

        return pandas.DataFrame({name: _arrow_numbers(frame.column(name)) for name in frame.column_names}, copy=False)
    return frame.to_pandas()


def _arrow_numbers(column: Any) -> np.ndarray:
    if column.null_count:
        column = column.cast("float64")
    return np.asarray(column.to_numpy())


class Piece(ABC):
    """One file or partition."""

    def name(self, number: int) -> str:
        """What messages call it, whose place among all is `number`."""
        return f"partition {number}"

    @abstractmethod
    def frames(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Read it, bit by bit if it is large: pairs of features and of what belongs to their rows."""


@dataclass(frozen=True)
class FilePiece(Piece):
    """A file; `options` are those of the function of pandas that reads it."""

    path: str
    options: Mapping[str, Any]

    def name(self, number: int) -> str:
        """The path."""
        return self.path


class CsvPiece(FilePiece):
    """A CSV file."""

    def frames(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Read it in chunks."""
        pandas = require("pandas", purpose="Reading CSV files", extra="xgboost")
        if os.path.exists(self.path) and not os.path.getsize(self.path):
            raise ValueError(f"{self.path} is empty.")
        options = {"chunksize": _CSV_CHUNK_ROWS, **self.options}
        with pandas.read_csv(self.path, **options) as reader:
            for frame in reader:
                yield frame, {}


class ParquetPiece(FilePiece):
    """A Parquet file."""

    def frames(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Read it row group by row group, or at once where options or a remote path ask for pandas."""
        parquet = require("pyarrow.parquet", purpose="Reading Parquet files", extra="xgboost")
        if "://" in self.path or set(self.options) - {"columns"}:
            pandas = require("pandas", purpose="Reading Parquet files with options", extra="xgboost")
            yield pandas.read_parquet(self.path, **self.options), {}
            return
        with parquet.ParquetFile(self.path) as file:
            metadata = file.schema_arrow.pandas_metadata or {}
            index = {name for name in metadata.get("index_columns", ()) if isinstance(name, str)}
            columns = self.options.get("columns") or [n for n in file.schema_arrow.names if n not in index]
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(columns), use_threads=False), {}
            if not file.num_row_groups:
                yield file.schema_arrow.empty_table().select(list(columns)), {}


@dataclass(frozen=True)
class RefPiece(Piece):
    """A partition in the object store; `fields` are references to labels and the like, of the same rows."""

    ref: mltoolkit.ObjectRef
    fields: Mapping[str, mltoolkit.ObjectRef]

    def frames(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Map it."""
        values = mltoolkit.get([self.ref, *self.fields.values()])
        yield values[0], dict(zip(self.fields, values[1:], strict=True))


@dataclass(frozen=True)
class GraphPiece(Piece):
    """A partition that Dask has yet to compute: its part of the graph, and the key of each field in it."""

    graph: Any
    keys: Mapping[str, Any]

    def frames(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Compute it here."""
        import dask

        with dask.config.set(scheduler="synchronous"):
            values = dask.get(self.graph, list(self.keys.values()))
        named = dict(zip(self.keys, values, strict=True))
        yield named.pop("data"), named


@dataclass(frozen=True)
class PieceShard:
    """The pieces of one rank: for each its number, and of how many equal shares which one is read."""

    pieces: Sequence[tuple[int, Piece, int, int]]
    columns: Columns
    float32: bool

    def load(self) -> Block:
        """Read them; runs in the actor.

        Raises
        ------
        ValueError
            If their columns differ.
        """
        loaded = []
        for number, piece, offset, step in self.pieces:
            position = 0
            for frame, given in piece.frames():
                block = self.columns.split(frame, given, float32=self.float32)
                values = {name: getattr(block, name) for name in ROW_FIELDS if getattr(block, name) is not None}
                blocks.check_finite(values, first_row=position, source=piece.name(number))
                rows = _own_rows(block, position, offset, step)
                here: Rows = slice(position, position + block.n, 1) if rows is None else position + rows
                position += block.n
                if rows is not None:
                    block = _select(block, rows)
                block.sources, block.source_rows = [(number, here)], [block.n]
                loaded.append(block)
        if not loaded:
            return Block(np.empty((0, 0), np.float32))
        block = blocks.concat_blocks(loaded)
        if block.qid is not None and (block.qid[1:] < block.qid[:-1]).any():
            order = np.argsort(block.qid, kind="stable")
            block = replace(_select(block, order), sources=block.sources, source_rows=block.source_rows, order=order)
        return block


def _own_rows(block: Block, position: int, offset: int, step: int) -> np.ndarray | None:
    if step == 1:
        return None
    if block.qid is not None:  # a query stays whole, in whichever bit of the file its rows are
        return np.flatnonzero(block.qid.astype(np.int64) % step == offset)
    return np.arange((offset - position) % step, block.n, step)


def _select(block: Block, rows: np.ndarray) -> Block:
    out = Block(
        blocks.take_rows(block.data, rows), feature_names=block.feature_names, feature_types=block.feature_types
    )
    for name in ROW_FIELDS:
        column = getattr(block, name)
        setattr(out, name, None if column is None else column[rows])
    return out


def deal_out(
    pieces: Sequence[Piece], sharding: RayShardingMode, num_actors: int, columns: Columns, *, float32: bool
) -> list[PieceShard]:
    """Give each rank its pieces, or its share of a piece where there are too few."""
    if len(pieces) >= num_actors:
        units = [(number, piece, 0, 1) for number, piece in enumerate(pieces)]
    else:
        per_piece = [len(range(number, num_actors, len(pieces))) for number in range(len(pieces))]
        units = [
            (number, piece, offset, per_piece[number])
            for number, piece in enumerate(pieces)
            for offset in range(per_piece[number])
        ]
    return [PieceShard(share(sharding, units, rank, num_actors), columns, float32) for rank in range(num_actors)]


def piece_rows(loaded: Sequence[tuple[Any, ...]]) -> tuple[list[np.ndarray], int]:
    """Return where the rows of each rank stand when all pieces are read in their order, and how many there are.

    Parameters
    ----------
    loaded : sequence of (sources, source_rows, order)
        Of the block of each rank.
    """
    lengths: dict[int, int] = {}
    for sources, counts, _ in loaded:
        for (number, _), count in zip(sources, counts, strict=True):
            lengths[number] = lengths.get(number, 0) + count
    starts, total = {}, 0
    for number in sorted(lengths):
        starts[number] = total
        total += lengths[number]
    places = []
    for sources, _, order in loaded:
        parts: list[np.ndarray] = [
            starts[number] + (np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows)
            for number, rows in sources
        ]
        place: np.ndarray = np.concatenate(parts) if parts else np.empty(0, np.int64)
        places.append(place if order is None else place[order])
    return places, total


def read_all(pieces: Sequence[Piece], columns: Columns, *, float32: bool) -> Block:
    """Read all pieces here, in the driver."""
    return PieceShard([(number, piece, 0, 1) for number, piece in enumerate(pieces)], columns, float32).load()


# ---- finding the pieces ----------------------------------------------------------------------------------------------


def find_pieces(
    data: Any, given: Mapping[str, Any], filetype: RayFileType | None, options: Mapping[str, Any]
) -> list[Piece] | None:
    """List the pieces of a dataset that is divided already; None if it lies in the driver's memory.

    Parameters
    ----------
    data : object
        What the user gave.
    given : dict of str to object
        Labels and the like that are no names of columns.
    filetype : RayFileType or None
        What the files hold.
    options : dict
        For the function that reads files.

    Raises
    ------
    ValueError
        If labels and the like are not divided as the data is, or the file type is not known.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(data, (str, os.PathLike)) or _all(data, (str, os.PathLike)):
        if given:
            name, value = next(iter(given.items()))
            raise ValueError(
                f"`{name}` must be the name of a column where the data comes from files, got {type(value).__name__}."
            )
        return _file_pieces(data, filetype, options)
    if options:
        raise TypeError(
            f"Unknown argument {', '.join(map(repr, options))}: only files take further arguments, for pandas.read_csv or "
            "pandas.read_parquet."
        )
    if hasattr(data, "to_pandas_refs") and hasattr(data, "schema"):  # a dataset of mltoolkit or Ray
        data = data.to_pandas_refs()
    if hasattr(data, "__partitioned__"):
        data = _partitioned(data.__partitioned__)
    if isinstance(data, mltoolkit.ObjectRef) or _all(data, mltoolkit.ObjectRef):
        return _ref_pieces([data] if isinstance(data, mltoolkit.ObjectRef) else list(data), given)
    if hasattr(data, "__dask_graph__"):
        return _dask_pieces(data, given)
    return None


def _all(data: Any, kind: Any) -> bool:
    return isinstance(data, (list, tuple)) and bool(data) and all(isinstance(item, kind) for item in data)


def _file_pieces(data: Any, filetype: RayFileType | None, options: Mapping[str, Any]) -> list[Piece]:
    paths = [os.fspath(data)] if isinstance(data, (str, os.PathLike)) else [os.fspath(path) for path in data]
    found: list[str] = []
    for path in paths:
        kind = filetype or _type_of(path)
        if os.path.isdir(path):
            inside = glob.glob(f"{glob.escape(path)}/**/*", recursive=True)
            files = sorted(name for name in inside if os.path.isfile(name) and _matches(name, kind))
            if not files:
                raise FileNotFoundError(
                    f"The folder {path!r} holds no {kind.name if kind else 'CSV or Parquet'} files."
                )
            found += files
        elif glob.has_magic(path) and not os.path.exists(path):
            files = sorted(glob.glob(path, recursive=True))
            if not files:
                raise FileNotFoundError(f"No file matches {path!r}.")
            found += files
        else:
            found.append(path)
    pieces: list[Piece] = []
    for path in found:
        kind = filetype or _type_of(path)
        if kind is None:
            raise ValueError(
                f"The name {path!r} does not tell what the file holds. Say it with `filetype=RayFileType.CSV` or "
                "`filetype=RayFileType.PARQUET`."
            )
        if kind is RayFileType.PETASTORM:
            raise NotImplementedError(
                "RayFileType.PETASTORM is not offered: its files are Parquet files, so name them with "
                "`filetype=RayFileType.PARQUET`."
            )
        # Actors may run in another folder, or on another machine with the same file system.
        path = path if "://" in path else os.path.abspath(path)
        pieces.append((CsvPiece if kind is RayFileType.CSV else ParquetPiece)(path, dict(options)))
    return pieces


def _type_of(path: str) -> RayFileType | None:
    name = path.lower().rstrip("/")
    for suffix in (".gz", ".bz2", ".xz", ".zst", ".zip"):
        name = name.removesuffix(suffix)
    if name.endswith((".csv", ".tsv", ".txt")):
        return RayFileType.CSV
    return RayFileType.PARQUET if name.endswith((".parquet", ".pq", ".parq")) else None


def _matches(path: str, kind: RayFileType | None) -> bool:
    own = _type_of(path)
    return own is not None and kind in (None, own)


def _ref_pieces(refs: Sequence[Any], given: Mapping[str, Any]) -> list[Piece]:
    columns = {}
    for name, value in given.items():
        parts = [value] if isinstance(value, mltoolkit.ObjectRef) else value
        if not _all(parts, mltoolkit.ObjectRef) or len(parts) != len(refs):
            raise ValueError(
                f"`{name}` must be the name of a column, or as many references as there are partitions ({len(refs)}), got "
                f"{type(value).__name__}."
            )
        columns[name] = parts
    return [RefPiece(ref, {name: parts[i] for name, parts in columns.items()}) for i, ref in enumerate(refs)]


def _partitioned(layout: Mapping[str, Any]) -> list[mltoolkit.ObjectRef]:
    partitions = [layout["partitions"][position] for position in sorted(layout["partitions"])]
    handles = [partition["data"] for partition in partitions]
    if not all(isinstance(handle, mltoolkit.ObjectRef) for handle in handles):
        handles = [mltoolkit.put(layout["get"](handle)) for handle in handles]
    return handles


def _dask_pieces(data: Any, given: Mapping[str, Any]) -> list[Piece]:
    collections = {"data": data, **given}
    parts: dict[str, list[Any]] = {}
    for name, collection in collections.items():
        if not hasattr(collection, "__dask_graph__"):
            raise ValueError(
                f"`{name}` must be the name of a column or a Dask collection like the data, got "
                f"{type(collection).__name__}. Make one with dask.array.from_array, or compute the data."
            )
        parts[name] = _dask_partitions(collection)
    counts = {name: len(each) for name, each in parts.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            "The data and what belongs to it must have the same number of partitions, got "
            f"{', '.join(f'{name}: {count}' for name, count in counts.items())}. Rechunk or repartition them alike."
        )
    return [_dask_piece({name: each[i] for name, each in parts.items()}) for i in range(counts["data"])]


def _dask_partitions(collection: Any) -> list[Any]:
    optimize = True
    if hasattr(collection, "rechunk"):
        if collection.ndim == 2:
            collection = collection.rechunk({1: -1})
        # Dask's optimization of arrays loses chunks that a cluster holds.
        optimize = not any(_is_future(value) for value in dict(collection.__dask_graph__()).values())
    return list(np.ravel(np.asarray(collection.to_delayed(optimize_graph=optimize), object)))


def _dask_piece(fields: Mapping[str, Any]) -> Piece:
    from dask.optimization import cull

    graph: dict[Any, Any] = {}
    keys = {}
    for name, delayed in fields.items():
        keys[name] = delayed.__dask_keys__()[0]
        graph.update(cull(dict(delayed.__dask_graph__()), [keys[name]])[0])
    if any(_is_future(value) for value in graph.values()):
        # Held by a cluster: they come over one by one, without being computed again.
        refs = {name: mltoolkit.util.dask.from_dask(_future_of(delayed, graph)) for name, delayed in fields.items()}
        return RefPiece(refs.pop("data"), refs)
    return GraphPiece(graph, keys)


def _is_future(value: Any) -> bool:
    value = getattr(value, "value", value)  # Dask wraps data of a graph
    return type(value).__module__.startswith("distributed") and hasattr(value, "add_done_callback")


def _future_of(delayed: Any, graph: Mapping[Any, Any]) -> Any:
    held = next(getattr(v, "value", v) for v in graph.values() if _is_future(v))
    return held.client.compute(delayed)

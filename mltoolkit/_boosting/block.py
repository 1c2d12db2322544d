"""One rank's rows: features and what belongs to them, as arrays that can be mapped from shared memory."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mltoolkit._boosting.sharding import Rows

__all__ = [
    "ROW_FIELDS",
    "Block",
    "Schema",
    "apply_schema",
    "as_column",
    "as_features",
    "check_finite",
    "concat_blocks",
    "feature_block",
    "n_rows",
    "take_rows",
    "unify",
]

#: What has one value, or one row of values, for each row of the data.
ROW_FIELDS = ("label", "weight", "base_margin", "label_lower_bound", "label_upper_bound", "qid")

_NUMERIC = "biuf"


@dataclass
class Block:
    """Rows of a dataset.

    Attributes
    ----------
    data : ndarray of shape (n, p), scipy.sparse matrix, DataFrame or pyarrow.Table
        The features. Frames stay frames only where they hold more than plain numbers.
    label, weight, base_margin, label_lower_bound, label_upper_bound, qid : ndarray or None
        Of n rows. Rows are sorted by `qid`.
    feature_weights : ndarray of shape (p,) or None
    feature_names : list of str or None
        As the data itself names them.
    feature_types : list of str or None
        ``"float"``, ``"int"``, ``"i"`` for bool, ``"c"`` for categories; None for arrays, which do not tell.
    sources : list of (int, slice or ndarray)
        Where the rows come from, one entry for each piece in the order of rows: number of the file or partition, and the
        positions in it. Empty for data that was divided by the driver.
    source_rows : list of int
        The number of rows of each piece.
    order : ndarray or None
        Which rows of the pieces, put below each other, stand here, where they had to be sorted.
    """

    data: Any
    label: np.ndarray | None = None
    weight: np.ndarray | None = None
    base_margin: np.ndarray | None = None
    label_lower_bound: np.ndarray | None = None
    label_upper_bound: np.ndarray | None = None
    qid: np.ndarray | None = None
    feature_weights: np.ndarray | None = None
    feature_names: list[str] | None = None
    feature_types: list[str] | None = None
    sources: list[tuple[int, Rows]] = field(default_factory=list)
    source_rows: list[int] = field(default_factory=list)
    order: np.ndarray | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return n_rows(self.data)

    def schema(self) -> Schema:
        """Describe the columns."""
        categories = {}
        if _is_frame(self.data):
            for name, dtype in zip(self.feature_names or (), self.data.dtypes, strict=True):
                if _is_categorical(dtype):
                    categories[name] = list(dtype.categories)
        return Schema(
            names=self.feature_names,
            types=self.feature_types,
            width=n_columns(self.data),
            kind="frame" if _is_frame(self.data) else "table" if _is_table(self.data) else "array",
            categories=categories,
        )


@dataclass(frozen=True)
class Schema:
    """Columns of a block, or of all blocks of a dataset.

    Attributes
    ----------
    names, types : list of str or None
        As in :class:`Block`.
    width : int
        Number of columns.
    kind : {'array', 'frame', 'table'}
        What the features are held in.
    categories : dict of str to list
        Values of each categorical column of a frame.
    """

    names: list[str] | None
    types: list[str] | None
    width: int
    kind: str
    categories: Mapping[str, list[Any]] = field(default_factory=dict)


# ---- what the user gave ----------------------------------------------------------------------------------------------


def _is_frame(data: Any) -> bool:
    pandas = sys.modules.get("pandas")  # nobody has a frame who has not imported pandas
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _is_table(data: Any) -> bool:
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(data, pyarrow.Table)


def is_sparse(data: Any) -> bool:
    """Whether it is a matrix or array of scipy.sparse."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(data))


def _is_categorical(dtype: Any) -> bool:
    return getattr(dtype, "name", "") == "category"


def n_rows(data: Any) -> int:
    """Number of rows of features or of a column."""
    return int(data.num_rows) if _is_table(data) else int(data.shape[0])


def n_columns(data: Any) -> int:
    """Number of features."""
    return int(data.num_columns) if _is_table(data) else int(data.shape[1])


def as_features(data: Any) -> Any:
    """Bring features in memory into one of the forms that a :class:`Block` holds.

    Raises
    ------
    ValueError
        If there are not two dimensions, or the type is not known.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.Series):
        return data.to_frame()
    if _is_frame(data) or _is_table(data):
        return data
    if is_sparse(data):
        return data.tocsr()
    if not isinstance(data, np.ndarray):
        if hasattr(data, "to_arrow") and not hasattr(
            data, "__array_interface__"
        ):  # polars, whose own frames name no rows
            return data.to_arrow()
        if isinstance(data, (str, bytes, Mapping, set)) or not (
            hasattr(data, "__array__") or isinstance(data, Sequence)
        ):
            raise ValueError(
                f"`data` of type {type(data).__name__} is not supported. Give a NumPy array, a pandas DataFrame, a pyarrow "
                "Table, a scipy.sparse matrix, file names, a Dask collection, or references to partitions."
            )
        data = np.asarray(data)
    if data.ndim != 2:
        raise ValueError(
            f"`data` must have two dimensions, got an array of shape {data.shape}. Reshape it: `data.reshape(-1, 1)` if it has "
            "a single feature, `data.reshape(1, -1)` if it is a single row."
        )
    if data.dtype.kind not in _NUMERIC:
        try:
            data = data.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"`data` must be numeric, got dtype {data.dtype}: {error}.") from error
    return data


def as_column(value: Any, name: str) -> np.ndarray:
    """Bring labels, weights and the like into an array; a column of a matrix becomes flat."""
    if hasattr(value, "to_numpy") and not isinstance(value, np.ndarray):
        kind = getattr(getattr(value, "dtype", None), "name", "")
        value = value.astype("float64").to_numpy() if kind in ("Int64", "Float64", "boolean") else value.to_numpy()
    array = np.asarray(value)
    if array.ndim == 2 and array.shape[1] == 1 and name != "base_margin":
        array = array[:, 0]
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            if name == "qid":
                return _text_ids(array.astype(str))
            raise ValueError(
                f"`{name}` must be numeric, got values such as {array.flat[0]!r}. Encode them first, for instance with "
                "sklearn.preprocessing.LabelEncoder."
            ) from None
    elif array.dtype.kind in "US":
        if name == "qid":
            return _text_ids(array)
        raise ValueError(f"`{name}` must be numeric, got text such as {array.flat[0]!r}. Encode it first.")
    return array


def _text_ids(array: np.ndarray) -> np.ndarray:
    """Integers for names of queries, the same ones in all parts of the data."""
    names, positions = np.unique(array, return_inverse=True)
    digests = [hashlib.blake2b(str(name).encode(), digest_size=7).digest() for name in names]
    return np.array([int.from_bytes(digest, "big") for digest in digests], np.int64)[positions]


def check_finite(values: Mapping[str, np.ndarray], *, first_row: int = 0, source: str = "") -> None:
    """Refuse labels, weights and queries that are no numbers.

    Parameters
    ----------
    values : dict of str to ndarray
        Labels and the like.
    first_row : int, default=0
        What the first row is called.
    source : str, default=""
        Where the rows come from, for the message.

    Raises
    ------
    ValueError
        If one of them is NaN or infinite; the first such row is named.
    """
    for name in ("label", "weight", "qid"):
        if name not in values or values[name].dtype.kind != "f" or not len(values[name]):
            continue
        finite = np.isfinite(values[name].reshape(len(values[name]), -1)).all(axis=1)
        if not finite.all():
            row = first_row + int(np.argmin(finite))
            raise ValueError(
                f"`{name}` contains NaN or infinity, first in row {row}{source and f' of {source}'}. Drop these rows, or "
                "fill the values in."
            )


# ---- rows ------------------------------------------------------------------------------------------------------------


def take_rows(data: Any, rows: Rows) -> Any:
    """Return rows of features in any form."""
    if _is_frame(data):
        return data.iloc[rows]
    if _is_table(data):
        if isinstance(rows, slice):
            start, stop, step = rows.indices(data.num_rows)
            if step == 1:
                return data.slice(start, max(0, stop - start)).combine_chunks()
            rows = np.arange(start, stop, step)
        return data.take(rows)
    return data[rows]


def feature_block(data: Any, *, float32: bool) -> Block:
    """Wrap features; frames of plain numbers become a matrix, which costs less memory and needs no pandas to read.

    Parameters
    ----------
    data : ndarray, scipy.sparse matrix, DataFrame or pyarrow.Table
        As :func:`as_features` returns it.
    float32 : bool
        Make matrices float32, as which XGBoost reads everything anyway. Otherwise dtypes are kept.
    """
    if _is_frame(data):
        names = [" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in data.columns]
        types = [_feature_type(dtype) for dtype in data.dtypes]
        if all(isinstance(dtype, np.dtype) and dtype.kind in _NUMERIC for dtype in data.dtypes):
            return Block(_frame_matrix(data, float32), feature_names=names, feature_types=types)
        return Block(data.reset_index(drop=True), feature_names=names, feature_types=types)
    if _is_table(data):
        return Block(data, feature_names=list(map(str, data.column_names)), feature_types=_arrow_types(data))
    if float32 and data.dtype != np.float32 and not is_sparse(data):
        with np.errstate(over="ignore"):  # what is too large becomes infinite, about which the library complains itself
            data = data.astype(np.float32)
    if not is_sparse(data):
        data = np.ascontiguousarray(data)
    return Block(data)


def _frame_matrix(frame: Any, float32: bool) -> np.ndarray:
    dtype = np.dtype(np.float32) if float32 else np.result_type(np.float32, *frame.dtypes)
    out = np.empty(frame.shape, dtype)
    with np.errstate(over="ignore"):
        for index in range(frame.shape[1]):
            out[:, index] = frame.iloc[:, index].to_numpy()
    return out


def _feature_type(dtype: Any) -> str:
    if _is_categorical(dtype):
        return "c"
    kind = getattr(dtype, "kind", "O")
    return {"b": "i", "i": "int", "u": "int", "f": "float"}.get(kind, str(dtype))


def _arrow_types(table: Any) -> list[str]:
    import pyarrow.types as kinds

    names = []
    for column in table.schema:
        if kinds.is_dictionary(column.type):
            names.append("c")
        elif kinds.is_boolean(column.type):
            names.append("i")
        elif kinds.is_integer(column.type):
            names.append("int")
        elif kinds.is_floating(column.type):
            names.append("float")
        else:
            names.append(str(column.type))
    return names


# ---- many blocks -----------------------------------------------------------------------------------------------------


def concat_blocks(blocks: Sequence[Block]) -> Block:
    """Put blocks of one rank below each other.

    Raises
    ------
    ValueError
        If their columns differ.
    """
    if len(blocks) == 1:
        return blocks[0]
    schema = unify([block.schema() for block in blocks if block.n] or [blocks[0].schema()])
    blocks = [apply_schema(block, schema) for block in blocks]
    first = blocks[0]
    joined: dict[str, Any] = {}
    for name in ROW_FIELDS:
        columns = [getattr(block, name) for block in blocks]
        given = [column for column in columns if column is not None]
        if given and len(given) != len(columns):
            raise ValueError(f"Some parts of the data have a `{name}`, others have none.")
        joined[name] = np.concatenate(given) if given else None
    return replace(
        first,
        data=_concat_features([block.data for block in blocks]),
        sources=[source for block in blocks for source in block.sources],
        source_rows=[count for block in blocks for count in block.source_rows],
        **joined,
    )


def _concat_features(parts: Sequence[Any]) -> Any:
    if _is_frame(parts[0]):
        import pandas

        return pandas.concat(parts, ignore_index=True)
    if _is_table(parts[0]):
        import pyarrow

        return pyarrow.concat_tables(parts).combine_chunks()
    if is_sparse(parts[0]):
        import scipy.sparse

        return scipy.sparse.vstack(parts, format="csr")
    return np.concatenate(parts)


def unify(schemas: Sequence[Schema]) -> Schema:
    """Find the columns that all parts of a dataset have in common form.

    The order of columns is the first part's; integers beside floats become floats; the values of a category are those of
    all parts.

    Raises
    ------
    ValueError
        If a column is missing somewhere, or is categorical here and not there; they are named.
    """
    first = schemas[0]
    for other in schemas[1:]:
        _check_same_columns(first, other)
    if any(schema.kind != first.kind for schema in schemas):
        kind = "frame" if any(schema.kind == "frame" for schema in schemas) else "table"
    else:
        kind = first.kind
    if all(schema == first for schema in schemas[1:]):
        return first
    names = first.names
    types = first.types
    if names is not None and types is not None:
        by_name = [dict(zip(schema.names or (), schema.types or (), strict=True)) for schema in schemas]
        types = [_common_type(name, {each[name] for each in by_name}) for name in names]
    categories: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for schema in schemas for name in schema.categories):
        lists = [schema.categories[name] for schema in schemas if name in schema.categories]
        categories[name] = _union(lists)
    return Schema(names, types, first.width, kind, categories)


def _check_same_columns(first: Schema, other: Schema) -> None:
    if first.names is None or other.names is None:
        if first.width != other.width:
            raise ValueError(
                f"All parts of the data must have the same number of columns, got {first.width} and {other.width}."
            )
        return
    missing = [name for name in first.names if name not in set(other.names)]
    extra = [name for name in other.names if name not in set(first.names)]
    if missing or extra:
        parts = [f"missing: {', '.join(map(repr, missing))}"] * bool(missing)
        parts += [f"not in the first: {', '.join(map(repr, extra))}"] * bool(extra)
        raise ValueError(
            "All files or partitions must have the same columns, but they differ between parts of the data "
            f"({'; '.join(parts)}). Name columns to leave out in `ignore=[...]`."
        )


def _common_type(name: str, types: set[str]) -> str:
    if len(types) == 1:
        return next(iter(types))
    if types <= {"int", "float", "i"}:
        return "float" if "float" in types else "int"
    raise ValueError(
        f"Column {name!r} has different types in different parts of the data: {', '.join(sorted(types))}. Give it one type "
        "in all of them."
    )


def _union(lists: Sequence[list[Any]]) -> list[Any]:
    if all(values == lists[0] for values in lists[1:]):
        return lists[0]
    merged = list(dict.fromkeys(value for values in lists for value in values))
    try:
        return sorted(merged)
    except TypeError:  # values that do not compare keep the order in which they came
        return merged


def apply_schema(block: Block, schema: Schema) -> Block:
    """Bring a block into the form that all blocks share."""
    if block.n == 0 and (_is_frame(block.data) or n_columns(block.data) == 0):  # without rows, types say nothing
        return replace(block, data=_empty(schema), feature_names=schema.names, feature_types=schema.types)
    data = block.data
    names = block.feature_names
    if names is not None and schema.names is not None and names != schema.names:
        if _is_frame(data):
            data = data.set_axis(names, axis=1)[schema.names]
        elif _is_table(data):
            data = data.select(schema.names)
        else:
            data = data[:, [names.index(name) for name in schema.names]]
        names = schema.names
    if schema.kind == "frame" and not _is_frame(data):
        import pandas

        data = data.to_pandas() if _is_table(data) else pandas.DataFrame(data, columns=schema.names)
    if schema.categories and _is_frame(data):
        import pandas

        for name, values in schema.categories.items():
            column = data[name]
            if list(column.cat.categories) != values:
                data = data.assign(**{name: column.cat.set_categories(pandas.Index(values))})
    return replace(block, data=data, feature_names=names, feature_types=schema.types)


def _empty(schema: Schema) -> Any:
    if schema.kind == "frame":
        import pandas

        columns = {}
        for name, kind in zip(schema.names or (), schema.types or (), strict=True):
            if kind == "c":
                columns[name] = pandas.Categorical([], categories=schema.categories[name])
            else:
                columns[name] = np.empty(0, {"int": "int64", "i": "bool"}.get(kind, "float64"))
        return pandas.DataFrame(columns)
    return np.empty((0, schema.width), np.float32)

"""The dataset of a distributed training: where it comes from, and how it is divided."""

from __future__ import annotations

import collections
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

import mltoolkit
from mltoolkit._boosting import block as blocks
from mltoolkit._boosting.block import ROW_FIELDS, Block, Schema
from mltoolkit._boosting.runtime import light_start
from mltoolkit._boosting.sharding import RayShardingMode, Rows, group_rows, scatter, shard_rows
from mltoolkit._boosting.sources import Columns, RayFileType, deal_out, find_pieces, piece_rows, read_all

__all__ = ["MemoryShard", "RayDMatrix", "Shard"]


class Shard(Protocol):
    """What a rank needs in order to get its rows."""

    def load(self) -> Block:
        """Return the rows; runs in the actor."""


class MemoryShard:
    """Rows that the driver has put into shared memory.

    Parameters
    ----------
    ref : ObjectRef
        Of a :class:`Block`.
    """

    def __init__(self, ref: mltoolkit.ObjectRef) -> None:
        self.ref = ref

    def load(self) -> Block:
        """Map them."""
        block: Block = mltoolkit.get(self.ref)
        return block


class RayDMatrix:
    """Data for training, evaluation or prediction, divided among actors.

    Data in memory is divided by rows and written to shared memory, once. Files and partitions are read by the actors
    themselves; the driver never holds them.

    Parameters
    ----------
    data : array-like, DataFrame, Table, str, list of str, Dask collection or list of ObjectRef
        A NumPy array, pandas DataFrame, pyarrow Table, polars DataFrame or scipy.sparse matrix; the names of CSV or Parquet
        files, folders of them or patterns; a Dask DataFrame or array; references to partitions, each a DataFrame or array;
        or anything with ``__partitioned__``.
    label : array-like or str, optional
        One value, or one row of values, for each row; or the name of the column.
    weight, base_margin, label_lower_bound, label_upper_bound : array-like or str, optional
        The same. With `qid`, `weight` may have one value for each query instead, in the order in which they come.
    feature_weights : array-like of shape (n_features,), optional
        How likely each feature is sampled.
    missing : float, optional
        Value that stands for a missing one. Default: NaN.
    feature_names, feature_types : list of str, optional
        Names and types of the features, instead of those that the data brings along.
    qid : array-like or str, optional
        The query of each row, for ranking. Rows of one query go to one actor.
    enable_categorical : bool, optional
        Use categorical columns as such.
    num_actors : int, optional
        Divide the data at once for this number of actors. Default: when training starts.
    filetype : RayFileType, optional
        What the files hold, if their names do not tell.
    ignore : list of str, optional
        Columns to leave out.
    distributed : bool, optional
        False reads files in the driver and divides them by rows. Default: True for whatever is divided already.
    sharding : RayShardingMode, default=RayShardingMode.INTERLEAVED
        How rows, files or partitions are dealt out.
    lazy : bool, default=False
        With `num_actors`: wait for training all the same.
    group : array-like of int, optional
        Sizes of consecutive queries, instead of `qid`.
    **kwargs
        For ``pandas.read_csv`` or ``pandas.read_parquet``.

    Attributes
    ----------
    n : int or None
        Number of rows, once it is known.
    num_actors : int or None
        For how many actors the data is divided.
    distributed : bool
        Whether the actors read it themselves.

    Raises
    ------
    ValueError
        If data of an unknown type is given, or labels and the like do not fit it.

    Notes
    -----
    Where there are fewer files or partitions than actors, several actors read the same one and keep every k-th row.

    Examples
    --------
    >>> import numpy as np
    >>> matrix = RayDMatrix(np.zeros((5, 2)), np.arange(5), sharding=RayShardingMode.BATCH)
    >>> matrix.load_data(num_actors=2)
    >>> matrix.get_data(rank=1)["label"].tolist()
    [3, 4]
    """

    #: Whether the library reads everything as float32, so that it can be stored as such.
    _float32 = False
    #: The library.
    _module: str | None = None

    def __init__(
        self,
        data: Any,
        label: Any = None,
        weight: Any = None,
        feature_weights: Any = None,
        base_margin: Any = None,
        missing: float | None = None,
        label_lower_bound: Any = None,
        label_upper_bound: Any = None,
        feature_names: Sequence[str] | None = None,
        feature_types: Sequence[str] | None = None,
        qid: Any = None,
        enable_categorical: bool | None = None,
        num_actors: int | None = None,
        filetype: RayFileType | None = None,
        ignore: Sequence[str] | None = None,
        distributed: bool | None = None,
        sharding: RayShardingMode = RayShardingMode.INTERLEAVED,
        lazy: bool = False,
        *,
        group: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(sharding, RayShardingMode):
            raise ValueError(f"`sharding` must be a RayShardingMode, got {sharding!r}.")
        if filetype is not None and not isinstance(filetype, RayFileType):
            raise ValueError(f"`filetype` must be a RayFileType, got {filetype!r}.")
        self._uid = uuid.uuid4().int
        self.missing = missing
        self.feature_names = None if feature_names is None else list(feature_names)
        self.feature_types = None if feature_types is None else list(feature_types)
        self.enable_categorical = enable_categorical
        self.sharding = sharding
        self._given_num_actors = num_actors
        self.num_actors: int | None = num_actors
        self.n: int | None = None
        self._feature_weights = None if feature_weights is None else np.asarray(feature_weights, np.float32)
        given = {
            "label": label,
            "weight": weight,
            "base_margin": base_margin,
            "label_lower_bound": label_lower_bound,
            "label_upper_bound": label_upper_bound,
            "qid": qid,
        }
        if group is not None:
            if qid is not None:
                raise ValueError("Give either `group` or `qid`, not both.")
            given["qid"] = _queries_of(group)
        self._has_groups = group is not None
        self._has = {name for name, value in given.items() if value is not None}
        named = {name: value for name, value in given.items() if isinstance(value, str)}
        self._values = {
            name: value for name, value in given.items() if value is not None and not isinstance(value, str)
        }
        self._columns = Columns(named, tuple(ignore or ()))
        self._data = data
        pieces = find_pieces(data, self._values, filetype, kwargs)
        if distributed and pieces is None:
            raise ValueError(
                f"`distributed=True` needs data that is divided already, such as a list of files, got {type(data).__name__}. "
                "Leave `distributed` out: data in memory is divided by rows."
            )
        self.distributed = pieces is not None and distributed is not False
        self._pieces = pieces
        if pieces is None:  # it is here: what is wrong with it can be said at once
            self._data = blocks.as_features(data)
            self._values = {name: blocks.as_column(value, name) for name, value in self._values.items()}
            self._check_lengths(self._columns.values(self._data, self._values), blocks.n_rows(self._data))
        self._shards: list[Any] | None = None
        self._rows: list[Rows] | None = None
        self._session: tuple[int, str] | None = None
        if num_actors is not None and not lazy:
            self.load_data(num_actors)

    # ---- what it has ---------------------------------------------------------------------------------------------------

    @property
    def has_label(self) -> bool:
        """Whether there is a label."""
        return "label" in self._has

    @property
    def has_label_bounds(self) -> bool:
        """Whether there are bounds of labels, for survival analysis."""
        return bool(self._has & {"label_lower_bound", "label_upper_bound"})

    @property
    def has_qid(self) -> bool:
        """Whether rows belong to queries."""
        return "qid" in self._has

    def labels(self) -> np.ndarray | None:
        """The labels, if the driver has them; None if only the actors do."""
        if self.distributed or not self.has_label:
            return None
        if self._pieces is not None:
            return None
        return self._columns.values(self._data, {"label": self._values.get("label")})["label"]

    @property
    def loaded(self) -> bool:
        """Whether the data is divided."""
        return self._shards is not None

    @property
    def uid(self) -> int:
        """Tells this matrix from all others, in every process."""
        return self._uid

    def __hash__(self) -> int:
        return hash(self._uid)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RayDMatrix) and self._uid == other._uid

    # ---- dividing it ---------------------------------------------------------------------------------------------------

    def load_data(self, num_actors: int | None = None, rank: int | None = None) -> None:
        """Divide the data for a number of actors; data in memory is written to the object store.

        Parameters
        ----------
        num_actors : int, optional
            How many. Default: as many as the constructor was given.
        rank : int, optional
            Taken for compatibility: all shards are made together.

        Raises
        ------
        ValueError
            If no number is known, or it is not the one that the constructor was given.
        """
        number = num_actors if num_actors is not None else self.num_actors
        if number is None:
            raise ValueError("`num_actors` is not known yet. Give it to `load_data()` or to the constructor.")
        if self._given_num_actors is not None and number != self._given_num_actors:
            raise ValueError(
                f"This matrix was made for num_actors={self._given_num_actors}, and {number} actors are to use it. Leave "
                "`num_actors` out of the constructor, and it is divided for whoever uses it."
            )
        if self._shards is not None and self.num_actors == number and not self._is_stale():
            return
        self.num_actors = number
        if self.distributed:
            assert self._pieces is not None
            self._shards = list(deal_out(self._pieces, self.sharding, number, self._columns, float32=self._float32))
            self._rows = None
            return
        with light_start(self._module):
            self._divide_memory(number)

    def _is_stale(self) -> bool:
        """Whether the shards were put into the object store of a session that this process has ended."""
        if self._session is None or self._session[0] != os.getpid():
            return False
        return not mltoolkit.is_initialized() or self._session != _this_session()

    def _divide_memory(self, number: int) -> None:
        if self._pieces is not None:  # files that the driver is to read
            whole = read_all(self._pieces, self._columns, float32=self._float32)
            whole.sources, whole.source_rows = [], []
            data: Any = whole.data
            values: dict[str, Any] = {
                name: getattr(whole, name) for name in ROW_FIELDS if getattr(whole, name) is not None
            }
            names, types = whole.feature_names, whole.feature_types
        else:
            data, values = self._columns.take(self._data, self._values)
            names = types = None
        n = blocks.n_rows(data)
        if self._pieces is not None:
            self._check_lengths(values, n)
        rows = self._rows_of_ranks(number, n, values.get("qid"))
        self._expand_query_weights(values, n)
        shards = []
        for own in rows:
            block = blocks.feature_block(blocks.take_rows(data, own), float32=self._float32)
            block.feature_names = block.feature_names or names
            block.feature_types = block.feature_types or types
            for name, column in values.items():
                setattr(block, name, np.ascontiguousarray(column[own]))
            shards.append(MemoryShard(mltoolkit.put(block)))
        self.n = n
        self._shards, self._rows, self._session = shards, rows, _this_session()

    def _check_lengths(self, values: Mapping[str, np.ndarray], n: int) -> None:
        if not n:
            raise ValueError("The data has no rows.")
        for name, column in values.items():
            most = 2 if name in ("label", "base_margin") else 1
            if column.ndim > most or not column.ndim:
                raise ValueError(f"`{name}` must have {most} dimension{'s' * (most > 1)}, got shape {column.shape}.")
            if len(column) == n or (name == "weight" and "qid" in values):
                continue
            if name == "qid" and self._has_groups:
                raise ValueError(
                    f"The sizes in `group` must add up to the {n} rows of the data, got {len(column)} rows in all."
                )
            raise ValueError(
                f"`{name}` must have one value for each of the {n} rows of the data, got {len(column)} values."
            )
        blocks.check_finite(values)

    def _rows_of_ranks(self, number: int, n: int, qid: np.ndarray | None) -> list[Rows]:
        if qid is not None:
            return list(group_rows(self.sharding, qid, number))
        return [shard_rows(self.sharding, rank, number, n) for rank in range(number)]

    @staticmethod
    def _expand_query_weights(values: dict[str, np.ndarray], n: int) -> None:
        """Give each row the weight of its query, where queries are what was weighed."""
        if "weight" not in values or "qid" not in values or len(values["weight"]) == n:
            return
        weight, qid = values["weight"], values["qid"]
        _, first, query_of_row = np.unique(qid, return_index=True, return_inverse=True)
        if len(weight) != len(first):
            raise ValueError(
                f"`weight` must have one value for each of the {len(first)} queries or for each of the {n} rows, got "
                f"{len(weight)}."
            )
        place: np.ndarray = np.empty(len(first), np.int64)
        place[np.argsort(first)] = np.arange(len(first))  # weights come in the order in which queries do
        values["weight"] = weight[place[query_of_row]]

    def renew(self) -> None:
        """A node is gone, maybe with partitions of a persisted collection: have Dask compute them again."""
        if self.distributed and hasattr(self._data, "__dask_graph__"):
            self._pieces = find_pieces(self._data, self._values, None, {})
            self._shards = None

    def unload_data(self) -> None:
        """Forget the shards; data in the object store is freed."""
        self._shards = self._rows = None

    def get_data(self, rank: int, num_actors: int | None = None) -> dict[str, Any]:
        """Return the shard of one rank.

        Parameters
        ----------
        rank : int
            Which.
        num_actors : int, optional
            Of how many, if the data is not divided yet.

        Returns
        -------
        dict
            ``data``, and where there are any ``label``, ``weight``, ``base_margin``, ``qid``, ...; None for the others.
        """
        if num_actors is not None or not self.loaded:
            self.load_data(num_actors)
        block = self.shard(rank).load()
        return {
            "data": block.data,
            **{name: getattr(block, name) for name in ROW_FIELDS},
            "feature_weights": self._feature_weights,
        }

    # ---- for the actors ------------------------------------------------------------------------------------------------

    def shard(self, rank: int) -> Shard:
        """What a rank needs in order to get its rows."""
        assert self._shards is not None
        shard: Shard = self._shards[rank]
        return shard

    def settings(self) -> dict[str, Any]:
        """What all ranks must know to build the library's own matrix from their rows."""
        return {
            "missing": self.missing,
            "feature_names": self.feature_names,
            "feature_types": self.feature_types,
            "feature_weights": self._feature_weights,
            "enable_categorical": self.enable_categorical,
            "kind": type(self).__name__,
        }

    def check_schema(self, schema: Schema) -> None:
        """Refuse columns that the library cannot use; libraries add their own checks."""
        if not schema.width:
            raise ValueError("The data has no columns for features.")
        names = self.feature_names or schema.names or ()
        twice = [name for name, count in collections.Counter(names).items() if count > 1]
        if twice:
            raise ValueError(
                f"Names of features must be unique, these come more than once: {', '.join(map(repr, twice))}."
            )
        kinds = {"int", "i", "float", "c"}
        bad = [
            f"{name!r} ({kind})"
            for name, kind in zip(schema.names or (), schema.types or (), strict=True)
            if kind not in kinds and not kind.lower().startswith(("int", "uint", "float", "bool", "double", "sparse"))
        ]
        if bad:
            raise ValueError(
                f"Columns must be numbers, bools or categories; these are not: {', '.join(bad)}. Convert them with "
                "`astype('category')`, or name them in `ignore=[...]`."
            )
        weights = None if self._feature_weights is None else list(self._feature_weights)
        for name, given in (
            ("feature_names", self.feature_names),
            ("feature_types", self.feature_types),
            ("feature_weights", weights),
        ):
            if given is not None and len(given) != schema.width:
                raise ValueError(f"`{name}` must have {schema.width} entries, one for each column, got {len(given)}.")

    def without_data(self) -> RayDMatrix:
        """A copy that names the matrix and holds none of its rows; hooks in the actors get it."""
        bare = object.__new__(type(self))
        bare.__dict__.update(self.__dict__)
        bare._data, bare._values, bare._pieces, bare._shards, bare._rows = None, {}, None, None, None
        return bare

    def in_order(self, parts: Sequence[np.ndarray], loaded: Sequence[Any]) -> np.ndarray:
        """Put what each rank returned for its rows into the order of the data.

        Parameters
        ----------
        parts : sequence of ndarray
            Of each rank.
        loaded : sequence of (sources, source_rows, order)
            Of the block of each rank.
        """
        if self._rows is not None:
            assert self.n is not None
            return scatter(parts, self._rows, self.n)
        rows, n = piece_rows(loaded)
        return scatter(parts, rows, n)


def _this_session() -> tuple[int, str]:
    """Tells a session of this process from its others."""
    return os.getpid(), mltoolkit.get_runtime_context().get_node_id()


def _queries_of(group: Any) -> np.ndarray:
    """The query of each row, of the sizes of consecutive queries."""
    if isinstance(group, str):
        raise ValueError("`group` must be the sizes of consecutive queries; name a column in `qid` instead.")
    sizes = np.asarray(group)
    if sizes.ndim != 1 or (sizes.size and (sizes.dtype.kind not in "iu" or sizes.min() < 0)):
        raise ValueError(f"`group` must be a list of integers >= 0, the sizes of consecutive queries, got {group!r}.")
    return np.repeat(np.arange(len(sizes)), sizes)

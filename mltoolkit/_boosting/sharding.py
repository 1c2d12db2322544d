"""Which rows belong to which rank, and how results of the ranks become one again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TypeVar

import numpy as np

__all__ = ["RayShardingMode", "Rows", "combine_data", "group_rows", "scatter", "shard_rows", "share"]

T = TypeVar("T")

#: Rows of one rank within the whole: a regular slice where that is possible.
Rows = slice | np.ndarray


class RayShardingMode(Enum):
    """How rows, or the files and partitions of a distributed source, are dealt out to the actors.

    Attributes
    ----------
    INTERLEAVED
        Like cards: actor ``r`` of ``n`` gets rows ``r, r + n, r + 2n, ...``.
    BATCH
        In one piece each: the first actor gets the first rows.
    FIXED
        As the source has them.
    """

    INTERLEAVED = 1
    BATCH = 2
    FIXED = 3


def _check_mode(sharding: object) -> None:
    if sharding not in (RayShardingMode.INTERLEAVED, RayShardingMode.BATCH):
        raise ValueError(
            "`sharding` must be RayShardingMode.INTERLEAVED or RayShardingMode.BATCH here, got "
            f"{sharding!r}. `FIXED` is for sources that are divided already."
        )


def _bounds(rank: int, num_actors: int, n: int) -> tuple[int, int]:
    base, extra = divmod(n, num_actors)
    start = rank * base + min(rank, extra)
    return start, start + base + (rank < extra)


def shard_rows(sharding: RayShardingMode, rank: int, num_actors: int, n: int) -> slice:
    """Return the rows of one rank.

    Parameters
    ----------
    sharding : RayShardingMode
        INTERLEAVED or BATCH.
    rank, num_actors : int
        Which of how many.
    n : int
        Number of rows in all.

    Examples
    --------
    >>> [shard_rows(RayShardingMode.BATCH, rank, 2, 5) for rank in range(2)]
    [slice(0, 3, 1), slice(3, 5, 1)]
    """
    _check_mode(sharding)
    if sharding is RayShardingMode.INTERLEAVED:
        return slice(rank, n, num_actors)
    start, stop = _bounds(rank, num_actors, n)
    return slice(start, stop, 1)


def share(sharding: RayShardingMode, items: Sequence[T], rank: int, num_actors: int) -> list[T]:
    """Return the items, such as files, of one rank."""
    mode = RayShardingMode.INTERLEAVED if sharding is RayShardingMode.FIXED else sharding
    return list(items[shard_rows(mode, rank, num_actors, len(items))])


def group_rows(sharding: RayShardingMode, qid: np.ndarray, num_actors: int) -> list[np.ndarray]:
    """Return the rows of each rank where rows of one query stay together, sorted by query.

    Parameters
    ----------
    sharding : RayShardingMode
        INTERLEAVED deals queries out like cards, BATCH in consecutive runs of about equally many rows.
    qid : ndarray of shape (n,)
        The query of each row, in any order.
    num_actors : int
        Number of ranks.

    Returns
    -------
    list of ndarray of int64
        Row numbers of each rank; rows of one query keep their order.

    Examples
    --------
    >>> rows = group_rows(RayShardingMode.BATCH, np.array([7, 7, 3, 9, 9]), 2)
    >>> [r.tolist() for r in rows]
    [[2, 0, 1], [3, 4]]
    """
    _check_mode(sharding)
    order = np.argsort(qid, kind="stable")
    if not len(order):
        return [order] * num_actors
    ordered = qid[order]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    ends: np.ndarray = np.append(starts[1:], len(order))
    owner: np.ndarray
    if sharding is RayShardingMode.INTERLEAVED:
        owner = np.arange(len(starts)) % num_actors
    else:
        # A query belongs where its middle row falls.
        owner = np.minimum((starts + ends - 1) * num_actors // (2 * len(order)), num_actors - 1)
    owner_of_row: np.ndarray = np.repeat(owner, ends - starts)
    return [order[owner_of_row == rank] for rank in range(num_actors)]


def scatter(parts: Sequence[np.ndarray], rows: Sequence[Rows], n: int) -> np.ndarray:
    """Put results of the ranks back into the order of the rows.

    Parameters
    ----------
    parts : sequence of ndarray
        The result of each rank, one row of it for one row of the data.
    rows : sequence of slice or ndarray
        Where they belong.
    n : int
        Number of rows in all.

    Returns
    -------
    ndarray
    """
    filled = [(part, where) for part, where in zip(parts, rows, strict=True) if len(part)]
    if not filled:
        return np.asarray(parts[0])
    first = filled[0][0]
    out = np.empty((n, *first.shape[1:]), first.dtype)
    for part, where in filled:
        out[where] = part
    return out


def combine_data(sharding: RayShardingMode, data: Iterable[np.ndarray]) -> np.ndarray:
    """Combine what each rank returned for its shard, in the order of the original rows.

    Parameters
    ----------
    sharding : RayShardingMode
        How the rows were dealt out.
    data : iterable of ndarray
        One array for each rank, in the order of ranks.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> combine_data(RayShardingMode.INTERLEAVED, [np.array([0, 2, 4]), np.array([1, 3])]).tolist()
    [0, 1, 2, 3, 4]
    """
    _check_mode(sharding)
    parts = [np.asarray(part) for part in data]
    n = sum(len(part) for part in parts)
    if sharding is RayShardingMode.INTERLEAVED:
        expected = [len(range(rank, n, len(parts))) for rank in range(len(parts))]
        if [len(part) for part in parts] == expected:
            return scatter(parts, [slice(rank, n, len(parts)) for rank in range(len(parts))], n)
        # Not dealt out evenly: rows go round while every rank has one, the rest follows.
        parts = [part for part in parts if len(part)]
        even = min(len(part) for part in parts)
        head = np.stack([part[:even] for part in parts], axis=1).reshape(-1, *parts[0].shape[1:])
        return np.concatenate([head, *(part[even:] for part in parts)])
    return np.concatenate([part for part in parts if len(part)] or parts[:1])

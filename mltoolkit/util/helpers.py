"""Iterate over the results of tasks as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import mltoolkit

if TYPE_CHECKING:
    from mltoolkit import ObjectRef


class _Submittable(Protocol):
    def remote(self, item: Any, /) -> Any: ...


def _check(chunk_size: int, wait_options: dict[str, Any]) -> None:
    if chunk_size < 1:
        raise ValueError(f"`chunk_size` must be >= 1, got {chunk_size!r}.")
    if "num_returns" in wait_options:
        raise ValueError("`num_returns` is not an option here: use `chunk_size`.")


def _next_batch(
    refs: Sequence[ObjectRef], chunk_size: int, yield_obj_refs: bool, wait_options: dict[str, Any]
) -> tuple[list[Any], list[ObjectRef]]:
    """Wait for a batch; return its refs or values, and the refs that are left."""
    ready, rest = mltoolkit.wait(list(refs), num_returns=min(chunk_size, len(refs)), **wait_options)
    return (ready if yield_obj_refs else mltoolkit.get(ready)), rest


def as_completed(
    refs: Sequence[ObjectRef], *, chunk_size: int = 10, yield_obj_refs: bool = False, **kwargs: Any
) -> Iterator[Any]:
    """Iterate over the results of refs as they become ready.

    Parameters
    ----------
    refs : sequence of ObjectRef
        The refs, each at most once.
    chunk_size : int, default=10
        Results are taken in batches of this many; inside a batch they keep the order of `refs`. 1 gives each result as
        soon as it is there, more costs less for many short tasks.
    yield_obj_refs : bool, default=False
        Give the refs instead of their values.
    **kwargs
        Options of ``mltoolkit.wait`` other than `num_returns`.

    Yields
    ------
    object or ObjectRef
        Values, or refs if `yield_obj_refs`.

    Raises
    ------
    ValueError
        If `chunk_size` is less than 1, or `num_returns` is given.

    Examples
    --------
    >>> import mltoolkit
    >>> @mltoolkit.remote
    ... def square(x):
    ...     return x * x
    >>> sorted(mltoolkit.util.as_completed([square.remote(i) for i in range(4)]))
    [0, 1, 4, 9]
    """
    _check(chunk_size, kwargs)
    return _as_completed(list(refs), chunk_size, yield_obj_refs, kwargs)


def _as_completed(
    refs: list[ObjectRef], chunk_size: int, yield_obj_refs: bool, wait_options: dict[str, Any]
) -> Iterator[Any]:
    while refs:
        results, refs = _next_batch(refs, chunk_size, yield_obj_refs, wait_options)
        yield from results


def map_unordered(
    fn: _Submittable,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run a remote function on every item and iterate over the results as they become ready.

    Items are taken as tasks finish, so the iterable may be long, or without end.

    Parameters
    ----------
    fn : remote function
        Called as ``fn.remote(item)``.
    items : iterable
        The items; they are drawn from it while the results are consumed.
    backpressure_size : int or None, default=100
        Greatest number of tasks under way at a time; None for no limit.
    chunk_size : int, default=10
        How many tasks to wait for at a time; see `as_completed`.
    yield_obj_refs : bool, default=False
        Give the refs instead of their values.
    **kwargs
        Options of ``mltoolkit.wait`` other than `num_returns`.

    Yields
    ------
    object or ObjectRef
        Values, or refs if `yield_obj_refs`.

    Raises
    ------
    ValueError
        If `backpressure_size` or `chunk_size` is less than 1, or `num_returns` is given.

    Examples
    --------
    >>> import mltoolkit
    >>> @mltoolkit.remote
    ... def square(x):
    ...     return x * x
    >>> sorted(mltoolkit.util.map_unordered(square, range(4)))
    [0, 1, 4, 9]
    """
    if backpressure_size is not None and backpressure_size < 1:
        raise ValueError(f"`backpressure_size` must be >= 1, or None for no limit, got {backpressure_size!r}.")
    _check(chunk_size, kwargs)
    return _map_unordered(fn, items, backpressure_size, chunk_size, yield_obj_refs, kwargs)


def _map_unordered(
    fn: _Submittable,
    items: Iterable[Any],
    backpressure_size: int | None,
    chunk_size: int,
    yield_obj_refs: bool,
    wait_options: dict[str, Any],
) -> Iterator[Any]:
    refs: list[ObjectRef] = []
    for item in items:
        refs.append(fn.remote(item))
        # A wait with a timeout may come back empty-handed; going on then would pass the limit.
        while backpressure_size is not None and len(refs) >= backpressure_size:
            results, refs = _next_batch(refs, chunk_size, yield_obj_refs, wait_options)
            yield from results
    yield from _as_completed(refs, chunk_size, yield_obj_refs, wait_options)

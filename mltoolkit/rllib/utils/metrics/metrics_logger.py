"""What callbacks and learners log, reduced to one number a key."""

from __future__ import annotations

import difflib
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["Key", "MetricsLogger"]

Key = str | tuple[str, ...]

_REDUCTIONS = ("ema", "mean", "sum", "lifetime_sum", "min", "max", "item", "item_series")
_DEFAULT_EMA_COEFF = 0.01


class MetricsLogger:
    """Collect values under keys and reduce them when a result is made.

    Callbacks get one as ``metrics_logger``. In an environment runner's process values are only kept; the algorithm
    logs them in the order of the runners, so a result does not depend on which runner was faster.

    Parameters
    ----------
    record : bool, default=False
        Keep calls for :meth:`pop_calls` in place of reducing values here.

    Examples
    --------
    >>> logger = MetricsLogger()
    >>> logger.log_value("angle", 1.0, reduce="mean", window=10)
    >>> logger.log_value(("pole", "height"), 2.0, reduce="max")
    >>> logger.log_value("angle", 3.0, reduce="mean", window=10)
    >>> logger.reduce()
    {'angle': 2.0, 'pole': {'height': 2.0}}
    """

    def __init__(self, record: bool = False) -> None:
        self._stats: dict[tuple[str, ...], _Statistic] = {}
        self._calls: list[tuple[tuple[str, ...], Any, dict[str, Any]]] | None = [] if record else None

    def log_value(
        self,
        key: Key,
        value: Any,
        *,
        reduce: str | None = None,
        window: int | None = None,
        ema_coeff: float | None = None,
        clear_on_reduce: bool | None = None,
    ) -> None:
        """Log one value.

        Parameters
        ----------
        key : str or tuple of str
            Where it appears in the result; a tuple, or slashes, make a nested one.
        value : number or array
            Anything that ``float`` takes; with ``reduce="item"`` or ``"item_series"`` any value.
        reduce : {"ema", "mean", "sum", "lifetime_sum", "min", "max", "item", "item_series"}, default="ema"
            ``"ema"`` is the exponential moving average, or the mean over ``window`` where one is given.
            ``"lifetime_sum"`` is never cleared.
        window : int, optional
            Reduce over the newest so many values. They outlive a result; without a window a result clears all but
            averages and lifetime sums.
        ema_coeff : float, default=0.01
            Weight of a new value in ``"ema"``.
        clear_on_reduce : bool, optional
            Whether a result clears the values; by default as said above.
        """
        path = _path(key)
        options: dict[str, Any] = {
            "reduce": reduce,
            "window": window,
            "ema_coeff": ema_coeff,
            "clear_on_reduce": clear_on_reduce,
        }
        if self._calls is not None:
            _check(reduce, window)
            self._calls.append((path, _plain(value), options))
            return
        stat = self._stats.get(path)
        if stat is None:
            stat = self._stats[path] = _Statistic(**options)
        stat.push(value)

    def log_dict(self, value_dict: Mapping[str, Any], *, key: Key | None = None, **options: Any) -> None:
        """Log the values of a nested dict, each under its own key below `key`."""
        prefix = _path(key) if key is not None else ()
        for name, value in value_dict.items():
            if isinstance(value, Mapping):
                self.log_dict(value, key=(*prefix, name), **options)
            else:
                self.log_value((*prefix, name), value, **options)

    @contextmanager
    def log_time(self, key: Key, **options: Any) -> Iterator[None]:
        """Log the seconds that a ``with`` block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.log_value(key, time.perf_counter() - start, **options)

    def peek(self, key: Key | None = None, default: Any = None) -> Any:
        """The reduced value of a key, or all of them as a nested dict, without clearing anything."""
        if key is None:
            return self._tree(clear=False)
        stat = self._stats.get(_path(key))
        return default if stat is None else stat.value()

    def __contains__(self, key: Key) -> bool:
        return _path(key) in self._stats

    def reduce(self) -> dict[str, Any]:
        """All reduced values as a nested dict; clears what is not kept over results."""
        return self._tree(clear=True)

    def delete(self, key: Key) -> None:
        """Forget a key."""
        self._stats.pop(_path(key), None)

    def reset(self) -> None:
        """Forget all keys."""
        self._stats.clear()
        if self._calls is not None:
            self._calls.clear()

    def pop_calls(self) -> list[tuple[tuple[str, ...], Any, dict[str, Any]]]:
        """What was logged since the last time, for :meth:`replay` in another process."""
        calls, self._calls = self._calls or [], []
        return calls

    def replay(self, calls: list[tuple[tuple[str, ...], Any, dict[str, Any]]], prefix: Key = ()) -> None:
        """Log what another logger recorded, below `prefix`."""
        above = _path(prefix) if prefix else ()
        for path, value, options in calls:
            self.log_value((*above, *path), value, **options)

    def get_state(self) -> list[dict[str, Any]]:
        """All statistics as plain data."""
        return [{"path": list(path), **stat.state()} for path, stat in self._stats.items()]

    def set_state(self, state: list[dict[str, Any]]) -> None:
        """Take up what :meth:`get_state` gave."""
        self._stats = {}
        for entry in state:
            entry = dict(entry)
            path = tuple(entry.pop("path"))
            values = entry.pop("values")
            stat = self._stats[path] = _Statistic(**entry)
            stat.values.extend(values)

    def _tree(self, clear: bool) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for path, stat in self._stats.items():
            if not stat.values:
                continue
            node = tree
            for name in path[:-1]:
                child = node.setdefault(name, {})
                node = child if isinstance(child, dict) else node
            node[path[-1]] = stat.value()
            if clear:
                stat.clear()
        return tree


class _Statistic:
    """The values of one key and how they are reduced."""

    def __init__(
        self,
        reduce: str | None = None,
        window: int | None = None,
        ema_coeff: float | None = None,
        clear_on_reduce: bool | None = None,
    ) -> None:
        _check(reduce, window)
        self.options = {
            "reduce": reduce,
            "window": window,
            "ema_coeff": ema_coeff,
            "clear_on_reduce": clear_on_reduce,
        }
        self.how = reduce or "ema"
        if self.how == "ema" and window is not None:
            self.how = "mean"
        self.coeff = _DEFAULT_EMA_COEFF if ema_coeff is None else ema_coeff
        kept = window is not None or self.how in ("ema", "lifetime_sum")
        self.clears = not kept if clear_on_reduce is None else clear_on_reduce
        self.values: deque[Any] = deque(maxlen=window)

    def push(self, value: Any) -> None:
        value = _plain(value)
        if self.how in ("ema", "sum", "lifetime_sum", "min", "max") and self.values and self.values.maxlen is None:
            # One number says all that will be asked: a key that is logged at each step must not grow.
            old = self.values.pop()
            if self.how == "ema":
                value = (1.0 - self.coeff) * old + self.coeff * value
            elif self.how in ("sum", "lifetime_sum"):
                value = old + value
            else:
                value = min(old, value) if self.how == "min" else max(old, value)
        self.values.append(value)

    def value(self) -> Any:
        if not self.values:
            return float("nan")
        if self.how == "item_series":
            return list(self.values)
        if self.how in ("item", "ema"):
            return self.values[-1]
        if self.how == "mean":
            return float(np.mean(self.values))
        if self.how in ("sum", "lifetime_sum"):
            return sum(self.values)
        return min(self.values) if self.how == "min" else max(self.values)

    def clear(self) -> None:
        if self.clears:
            self.values.clear()

    def state(self) -> dict[str, Any]:
        return {**self.options, "values": list(self.values)}


def _check(reduce: str | None, window: int | None) -> None:
    if reduce is not None and reduce not in _REDUCTIONS:
        near = difflib.get_close_matches(str(reduce), _REDUCTIONS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`reduce` must be one of {', '.join(_REDUCTIONS)}, got {reduce!r}.{hint}")
    if window is not None and (not isinstance(window, int) or window < 1):
        raise ValueError(f"`window` must be a whole number of values from 1, got {window!r}.")


def _path(key: Key) -> tuple[str, ...]:
    if isinstance(key, str):
        return tuple(key.split("/"))
    return tuple(str(part) for part in key)


def _plain(value: Any) -> Any:
    """Numbers as Python's own; a tensor or array of one element likewise."""
    if isinstance(value, (int, float, str, bool)) or value is None:
        return value
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "size", 1) != 0:
        try:
            return item()
        except (ValueError, RuntimeError):  # more than one element
            pass
    return value

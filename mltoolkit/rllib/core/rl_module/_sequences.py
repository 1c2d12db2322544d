"""Sequences for recurrent modules, cut where episodes begin.

A fragment's rows run on through the ends of episodes. A recurrent network must forget there, so each row is cut into
pieces, one per episode; all pieces are then run side by side, in a single call, and their outputs put back in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Pieces", "cut", "map_tensors"]


class Pieces:
    """How B rows of T steps are cut into P pieces of at most L steps.

    Parameters
    ----------
    is_first : ndarray of shape (B, T), dtype=bool

    Attributes
    ----------
    lengths : ndarray of shape (P,), dtype=int64
        Steps in each piece.
    rows : ndarray of shape (P,), dtype=int64
        The row that each piece is from.
    is_padded : bool
        Whether pieces are of different lengths.
    """

    def __init__(self, is_first: np.ndarray[Any, Any], device: torch.device) -> None:
        batch, steps = is_first.shape
        begins = is_first.copy()
        begins[:, 0] = True
        rows, times = np.nonzero(begins)
        ends: np.ndarray[Any, Any] = np.append(
            np.flatnonzero(times == 0)[1:], len(rows)
        )  # the piece after each row's last one
        stops = np.empty_like(times)
        stops[:-1] = times[1:]
        stops[ends - 1] = steps
        self.rows, self.lengths = rows, stops - times
        length = int(self.lengths.max())
        offsets = np.arange(length)
        flat = rows * steps + times
        # One step past the end stands for padding: row `batch * steps` of the input, extended by a row of zeros.
        source = np.where(offsets < self.lengths[:, None], flat[:, None] + offsets, batch * steps)
        back = np.empty(batch * steps, np.int64)
        valid = source < batch * steps
        back[source[valid]] = np.flatnonzero(valid.ravel())
        self.shape = (batch, steps)
        self.is_padded = not valid.all()
        self._table = (len(rows), length)
        self._source = torch.from_numpy(np.minimum(source, batch * steps - 1).ravel()).to(device)
        self._padding = None if not self.is_padded else torch.from_numpy(~valid).to(device)
        self._back = torch.from_numpy(back).to(device)
        self._rows = torch.from_numpy(rows).to(device)
        self._fresh = torch.from_numpy(is_first[rows, times]).to(device)
        self._last = torch.from_numpy(ends - 1).to(device)

    def split(self, value: Tensor) -> Tensor:
        """(B, T, ...) to (P, L, ...), padded with zeros."""
        pieces = value.flatten(0, 1).index_select(0, self._source).unflatten(0, self._table)
        if self._padding is None:
            return pieces
        return pieces.masked_fill(self._padding.reshape(*self._table, *[1] * (pieces.ndim - 2)), 0)

    def split_state(self, value: Tensor, initial: Any) -> Tensor:
        """(B, ...) to (P, ...): the row's state for the piece that continues an episode, else the initial one."""
        fresh = self._fresh.reshape(-1, *[1] * (value.ndim - 1))
        start = torch.as_tensor(initial, dtype=value.dtype, device=value.device)
        return torch.where(fresh, start, value.index_select(0, self._rows))

    def merge(self, value: Tensor) -> Tensor:
        """(P, L, ...) back to (B, T, ...)."""
        return value.flatten(0, 1).index_select(0, self._back).unflatten(0, self.shape)

    def merge_state(self, value: Tensor) -> Tensor:
        """(P, ...) to (B, ...): the state after each row's last piece."""
        return value.index_select(0, self._last)


def cut(is_first: Tensor | None) -> Pieces | None:
    """Cut rows at the beginnings of episodes; None where no row needs it."""
    if is_first is None:
        return None
    array = is_first.cpu().numpy()
    return Pieces(array.astype(bool), is_first.device) if array.any() else None


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply ``function`` to the tensors in nested dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tensors(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map_tensors(function, value) for value in tree)
    return tree

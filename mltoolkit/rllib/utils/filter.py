"""Running mean and variance, mergeable between processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["RunningStat", "SharedStat"]


class RunningStat:
    """Mean and variance of a stream of arrays, in float64.

    Batches are merged by the pairwise update of Chan et al., which loses no digits where the mean is large beside the
    deviation; a batch of one is Welford's update.

    Parameters
    ----------
    shape : sequence of int, default=()
        Shape of one element of the stream; each entry has its own mean and variance.

    References
    ----------
    Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979, eq. 2.1.

    Examples
    --------
    >>> stat = RunningStat()
    >>> stat.push_batch(np.array([1.0, 2.0, 3.0]))
    >>> stat.n, float(stat.mean), float(stat.var)
    (3, 2.0, 1.0)
    """

    __slots__ = ("m2", "mean", "n")

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self.n = 0
        self.mean = np.zeros(shape)
        self.m2 = np.zeros(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one element."""
        return self.mean.shape

    @property
    def var(self) -> np.ndarray:
        """Unbiased variance, of shape `shape`; zero before the second element."""
        return self.m2 / (self.n - 1) if self.n > 1 else np.zeros(self.shape)

    @property
    def std(self) -> np.ndarray:
        """Root of `var`."""
        return np.sqrt(self.var)

    def push(self, x: Any) -> None:
        """Add one element of shape `shape`.

        Raises
        ------
        ValueError
            If it has another shape.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.shape != self.shape:
            raise ValueError(f"`x` must have the shape {self.shape}, got {x.shape}.")
        self._merge(1, x, None)

    def push_batch(self, x: np.ndarray) -> None:
        """Add the elements of an array of shape (n, *shape), dtype=float64."""
        n = len(x)
        if n == 0:
            return
        mean = np.add.reduce(x, axis=0) / n
        deviation = x - mean
        deviation *= deviation
        self._merge(n, mean, np.add.reduce(deviation, axis=0))

    def merge(self, other: RunningStat) -> None:
        """Add all that `other` has seen."""
        if other.n:
            self._merge(other.n, other.mean, other.m2)

    def _merge(self, n: int, mean: np.ndarray, m2: np.ndarray | None) -> None:
        total = self.n + n
        delta = mean - self.mean
        self.mean = self.mean + delta * (n / total)
        delta *= delta
        delta *= self.n * n / total
        self.m2 = self.m2 + delta
        if m2 is not None:
            self.m2 = self.m2 + m2
        self.n = total

    def copy(self) -> RunningStat:
        """One that goes on from here by itself."""
        # No arrays are copied: every update replaces them.
        other = RunningStat.__new__(RunningStat)
        other.n, other.mean, other.m2 = self.n, self.mean, self.m2
        return other

    def get_state(self) -> dict[str, Any]:
        """Data only: ``n`` (int), ``mean`` and ``m2`` (sum of squared deviations; float64 arrays)."""
        return {"n": self.n, "mean": np.array(self.mean), "m2": np.array(self.m2)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave.

        Raises
        ------
        ValueError
            If it is the state of elements of another shape.
        """
        mean, m2 = np.array(state["mean"], dtype=np.float64), np.array(state["m2"], dtype=np.float64)
        if mean.shape != self.shape or m2.shape != self.shape:
            raise ValueError(
                f"the state holds statistics of shape {mean.shape}, but these have the shape {self.shape}."
            )
        self.n, self.mean, self.m2 = int(state["n"]), mean, m2


class SharedStat:
    """A running statistic that several processes add to: what all have seen, and what only this one has.

    Each process pushes into its own; :meth:`pop_delta` takes out what is new, :meth:`merge_deltas` of one of them adds
    what all took out, and its state goes back to everyone. Merging in a fixed order gives the same bits every time.

    Parameters
    ----------
    shape : sequence of int, default=()
        Shape of one element.
    """

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self.base = RunningStat(shape)
        self.delta = RunningStat(shape)
        # Taken out, and not come back as part of what is shared: still counted here meanwhile.
        self._pending = RunningStat(shape)

    def push_batch(self, x: np.ndarray) -> None:
        """Add elements, an array of shape (n, *shape), dtype=float64."""
        self.delta.push_batch(x)

    def total(self) -> RunningStat:
        """All that is known here; not to be changed."""
        if not self.delta.n and not self._pending.n:
            return self.base
        total = self.base.copy()
        total.merge(self._pending)
        total.merge(self.delta)
        return total

    def pop_delta(self) -> dict[str, Any]:
        """Take out what was pushed since the last call, as data."""
        state = self.delta.get_state()
        self._pending.merge(self.delta)
        self.delta = RunningStat(self.delta.shape)
        return state

    def merge_deltas(self, deltas: Sequence[dict[str, Any]]) -> None:
        """Add what was taken out, of this one too, in the order given."""
        part = RunningStat(self.base.shape)
        self._pending = RunningStat(self.base.shape)
        for delta in deltas:
            part.set_state(delta)
            self.base.merge(part)

    def get_state(self) -> dict[str, Any]:
        """What is shared, and what was not taken out yet, as data."""
        return {"base": self.base.get_state(), "delta": self.delta.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        self.base.set_state(state["base"])
        self.delta.set_state(state["delta"])
        self._pending = RunningStat(self.base.shape)

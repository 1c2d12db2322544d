"""Dask and mltoolkit in one program: arrays and futures of one, tasks and actors of the other.

python examples/dask_interop.py
"""

from __future__ import annotations

import dask
import numpy as np

import mltoolkit


@mltoolkit.remote
class RunningMean:
    """State that no Dask graph could keep: each block updates the same process."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, block: np.ndarray) -> float:
        self.total += float(block.sum())
        self.count += block.size
        return self.total / self.count


@dask.delayed
def load(part: int) -> np.ndarray:
    """What a Dask graph makes: here it invents numbers, elsewhere it reads files."""
    return np.random.default_rng(part).normal(loc=part, size=100_000)


@mltoolkit.remote
def spread(block: np.ndarray) -> float:
    return float(block.max() - block.min())


def main() -> None:
    with mltoolkit.init():
        blocks = [load(part) for part in range(4)]
        # A Dask collection is computed and kept by `put`; what comes back is a reference like any other.
        refs = [mltoolkit.put(block) for block in blocks]
        spreads = mltoolkit.get([spread.remote(ref) for ref in refs])
        print("spread of each block:", ", ".join(f"{value:.2f}" for value in spreads))

        mean = RunningMean.remote()
        for ref in refs:
            print(f"running mean: {mltoolkit.get(mean.add.remote(ref)):.4f}")

        # And `get` takes a collection as it is.
        total = mltoolkit.get(dask.delayed(sum)([load(part).sum() for part in range(4)]))
        print(f"mean by Dask: {total / 400_000:.4f}")


if __name__ == "__main__":
    main()

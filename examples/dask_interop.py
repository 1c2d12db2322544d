"""Dask and mltoolkit in one program: arrays and futures of one, tasks and actors of the other.

python examples/dask_interop.py
"""

from __future__ import annotations

import dask
import numpy as np

import mltoolkit
from mltoolkit.util.dask import from_dask, get_client, to_dask


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

        # The other way: the session has a Dask client, and a reference becomes a Dask future.
        client = get_client()
        mean_of_first = client.submit(np.mean, to_dask(refs[0]))
        print(f"mean of the first block, by Dask: {mean_of_first.result():.4f}")

        # A Dask future becomes a reference; `get` takes futures and collections as they are.
        future = client.submit(np.linspace, 0, 8, 5)
        print(f"spread of a Dask future: {mltoolkit.get(spread.remote(from_dask(future))):.2f}")
        total = mltoolkit.get(dask.delayed(sum)([block.sum() for block in blocks]))
        print(f"mean of all blocks, by Dask: {total / 400_000:.4f}")


if __name__ == "__main__":
    main()

"""Nested tasks: a merge sort whose tasks submit tasks, on one CPU and without a deadlock.

A task that waits in `get` gives its CPU back until its children are done, so any depth finishes on any machine. A
generator task streams: its results can be used while it is still running.

    python examples/nested_tasks.py
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator

import mltoolkit

ITEMS = 200_000
SMALL = 25_000


@mltoolkit.remote
def merge_sort(items: list[int], depth: int = 0) -> tuple[list[int], int]:
    """Sort `items`; the second value tells how deep the tasks went."""
    if len(items) <= SMALL:
        return sorted(items), depth
    half = len(items) // 2
    children = [merge_sort.remote(part, depth + 1) for part in (items[:half], items[half:])]
    (left, left_depth), (right, right_depth) = mltoolkit.get(children)
    return list(heapq.merge(left, right)), max(left_depth, right_depth)


@mltoolkit.remote
def count_up(items: list[int], bins: int) -> Iterator[tuple[int, int]]:
    """Yield a histogram, one bin at a time."""
    width = (items[-1] + 1) / bins
    start = 0
    for index in range(bins):
        end = next((i for i in range(start, len(items)) if items[i] >= (index + 1) * width), len(items))
        yield index, end - start
        start = end


def main() -> None:
    items = random.Random(0).choices(range(1000), k=ITEMS)
    with mltoolkit.init(num_cpus=1):
        started = time.perf_counter()
        result, depth = mltoolkit.get(merge_sort.remote(items))
        seconds = time.perf_counter() - started
        print(f"sorted {len(result):,} numbers in {seconds:.2f} s by tasks {depth + 1} levels deep, on one CPU")
        print(f"correct: {result == sorted(items)}")
        for ref in count_up.remote(result, 5):
            index, count = mltoolkit.get(ref)
            print(f"bin {index}: {count:6,} {'#' * (count // 2000)}")


if __name__ == "__main__":
    main()

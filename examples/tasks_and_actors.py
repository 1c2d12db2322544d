"""Tasks and actors: estimate pi on every CPU, and watch an actor keep the score.

A function becomes a task and a class becomes an actor by one decorator. Calls return at once with a reference; `get`
waits for the value.

    python examples/tasks_and_actors.py
"""

from __future__ import annotations

import random
import time

import mltoolkit

BATCHES = 16
POINTS = 200_000


@mltoolkit.remote
class Score:
    """State that lives in a process of its own; its calls run one at a time, so it needs no lock."""

    def __init__(self) -> None:
        self.inside = 0
        self.total = 0

    def add(self, inside: int, total: int) -> None:
        self.inside += inside
        self.total += total

    def estimate(self) -> float:
        return 4 * self.inside / self.total


@mltoolkit.remote
def throw_darts(seed: int, score: mltoolkit.actor.ActorHandle) -> int:
    generator = random.Random(seed)
    inside = sum(generator.random() ** 2 + generator.random() ** 2 < 1 for _ in range(POINTS))
    # A handle can be passed anywhere: this task reports by itself, without the driver in between.
    mltoolkit.get(score.add.remote(inside, POINTS))
    return inside


def main() -> None:
    started = time.perf_counter()
    with mltoolkit.init():
        print(f"started in {time.perf_counter() - started:.2f} s with {mltoolkit.cluster_resources()['CPU']:g} CPUs")
        score = Score.remote()
        pending = [throw_darts.remote(seed, score) for seed in range(BATCHES)]
        while pending:
            # `wait` hands out what is ready first: results can be used while others are still being made.
            _, pending = mltoolkit.wait(pending, num_returns=min(4, len(pending)))
            estimate = mltoolkit.get(score.estimate.remote())
            print(f"{BATCHES - len(pending):3} of {BATCHES} batches: pi is about {estimate:.4f}")
        estimate = mltoolkit.get(score.estimate.remote())
        print(f"pi = {estimate:.4f} from {BATCHES * POINTS:,} darts in {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()

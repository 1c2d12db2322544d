"""Evaluation results in the driver's output, as they come."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["EvaluationPrinter", "write_line"]


def write_line(line: str) -> None:
    """Write a line to the driver's output at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class EvaluationPrinter:
    """Prints evaluation results of every n-th round, and of the last.

    Parameters
    ----------
    period : int
        Rounds between lines; 0 prints nothing.
    """

    def __init__(self, period: int) -> None:
        self.period = period
        self._latest = ""
        self._write = write_line

    def __call__(self, rounds: int, results: Sequence[tuple[str, str, float]]) -> None:
        """Take the results of one round, counted from 0."""
        if not self.period or not results:
            return
        line = f"[{rounds}]" + "".join(f"\t{data}-{metric}:{value:.5f}" for data, metric, value in results)
        if rounds % self.period == 0:
            self._write(line)
            self._latest = ""
        else:
            self._latest = line

    def close(self) -> None:
        """Training is over: print the last round if its turn had not come."""
        if self._latest:
            self._write(self._latest)
            self._latest = ""

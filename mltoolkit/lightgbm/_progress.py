"""Evaluation results in the driver's output, as LightGBM prints them."""

from __future__ import annotations

from collections.abc import Sequence

from mltoolkit._boosting.progress import EvaluationPrinter

__all__ = ["LightGBMPrinter"]


class LightGBMPrinter(EvaluationPrinter):
    """Prints evaluation results of every n-th round, and of the last; rounds are counted from 1."""

    def __call__(self, rounds: int, results: Sequence[tuple[str, str, float]]) -> None:
        """Take the results of one round, counted from 0."""
        if not self.period or not results:
            return
        line = f"[{rounds + 1}]\t" + "\t".join(f"{data}'s {metric}: {value:g}" for data, metric, value in results)
        if (rounds + 1) % self.period == 0:
            self._write(line)
            self._latest = ""
        else:
            self._latest = line

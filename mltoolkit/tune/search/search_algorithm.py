"""The contract between the controller of a sweep and what supplies its configurations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mltoolkit.tune._keywords import check_keywords

__all__ = ["SearchAlgorithm", "Suggestion"]


@dataclass(frozen=True)
class Suggestion:
    """A configuration to try.

    Attributes
    ----------
    config : dict
        What the trainable gets.
    evaluated_params : dict
        The values that were drawn, under flat names (``"model/lr"``).
    """

    config: dict[str, Any]
    evaluated_params: dict[str, Any] = field(default_factory=dict)


class SearchAlgorithm:
    """Source of configurations. All methods are called on one thread.

    After a crash it is restored from its saved state and asked once more for what came after, with the same ids in the
    same order; an algorithm that is seeded gives the same answers, and where it gives others the recorded ones stand.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_keywords(cls)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Take metric, mode and search space of the sweep; False if they were set before."""
        raise NotImplementedError

    def prepare(self, num_samples: int, *, seed: int | None = None) -> None:
        """Learn how many samples are wanted (-1: without end) and the sweep's seed, before the first suggestion.

        Where neither the algorithm nor the sweep was given a seed, one is drawn and kept with the state, so that a
        restored sweep goes on as it would have.
        """
        raise NotImplementedError

    @property
    def total_samples(self) -> int | None:
        """How many configurations there will be; None if that is not known."""
        raise NotImplementedError

    def next_suggestion(self, trial_id: str) -> Suggestion | None:
        """The next configuration, or None if there is none *now*: finished, or waiting for results."""
        raise NotImplementedError

    def is_finished(self) -> bool:
        """Whether no configuration will come any more."""
        raise NotImplementedError

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learn from a result that was not the trial's last."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn how a trial ended."""

    def save(self, checkpoint_path: str | Path) -> None:
        """Write the state to a file."""
        raise NotImplementedError

    def restore(self, checkpoint_path: str | Path) -> None:
        """Take the state from a file that :meth:`save` wrote."""
        raise NotImplementedError

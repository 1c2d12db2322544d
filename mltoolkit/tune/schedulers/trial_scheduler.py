"""The contract of trial schedulers, and first in, first out."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mltoolkit.tune._keywords import check_keywords

if TYPE_CHECKING:
    from mltoolkit.train import Checkpoint
    from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
    from mltoolkit.tune.experiment import Trial

__all__ = ["Controller", "FIFOScheduler", "TrialScheduler"]


class Controller(Protocol):
    """What a scheduler may ask of the controller of a sweep.

    Called on the controller's thread, between two events, while the trial that a result came from waits for the
    decision. Methods that act take effect before the next result of that trial is delivered.
    """

    def get_trials(self) -> Sequence[Trial]:
        """All trials so far, in the order of their creation."""

    def get_live_trials(self) -> Sequence[Trial]:
        """Those that have neither finished nor failed."""

    def get_trial(self, trial_id: str) -> Trial | None:
        """The trial of an id."""

    @property
    def search_alg(self) -> Any:
        """The search algorithm of the sweep."""

    def stop_trial(self, trial: Trial) -> None:
        """End a trial for good, whether it runs, is paused or waits."""

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        """Take a running trial off its slot; it goes on from its latest checkpoint when it is chosen again."""

    def resume_trial(self, trial: Trial) -> None:
        """Let a paused trial be chosen again: it becomes ``PENDING``."""

    def save_trial(self, trial: Trial) -> Checkpoint | None:
        """A checkpoint of a trial as it is now.

        A class trainable that waits at a result saves itself; for a function it is the last one it reported.
        None where there is none.
        """

    def reset_trial(
        self,
        trial: Trial,
        config: dict[str, Any],
        checkpoint: Checkpoint | None = None,
        tag: str | None = None,
        resources: PlacementGroupFactory | None = None,
    ) -> None:
        """Let a trial go on with another configuration, from a checkpoint (its own or another trial's).

        In the slot that it holds when it runs and the resources stay the same; otherwise as soon as there is room.
        The scheduler then returns ``NOOP`` for the result at hand.
        """

    def total_resources(self) -> dict[str, float]:
        """What the cluster has: ``{"CPU": 8, "GPU": 1, ...}``."""


class TrialScheduler:
    """Base class of schedulers: who runs next, and which trial goes on after a result.

    All methods are called on one thread. A scheduler keeps its state under trial *ids*, draws random numbers from a
    generator of its own, and decides by what it is given alone: after a crash it is restored from its saved state
    and shown the events since then once more, with a controller whose actions do nothing.

    Attributes
    ----------
    CONTINUE, PAUSE, STOP, NOOP : str
        Decisions. ``NOOP``: the scheduler has acted through the controller already.
    """

    CONTINUE: ClassVar[str] = "CONTINUE"
    PAUSE: ClassVar[str] = "PAUSE"
    STOP: ClassVar[str] = "STOP"
    NOOP: ClassVar[str] = "NOOP"

    needs_checkpoints: bool = False
    """Whether trials have to be saved for it to do its work: then a class trainable must define how."""

    _metric: str | None = None
    _mode: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_keywords(cls)

    @property
    def metric(self) -> str | None:
        """The metric decisions are made by."""
        return self._metric

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode of the sweep.

        Returns
        -------
        bool
            False if the scheduler has others already.
        """
        if (self._metric and metric) or (self._mode and mode):
            return False
        self._metric = metric or self._metric
        self._mode = mode or self._mode
        return True

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """A trial was created."""

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """A trial failed for good."""

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Decide how a trial goes on after a result that was not its last."""
        raise NotImplementedError

    def on_trial_complete(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> None:
        """A trial has finished by itself, or met its stopping criterion."""

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """A trial was ended while it was paused or had not started."""

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """Choose among the trials in state ``PENDING``, without changing anything; None to let the slot idle."""
        raise NotImplementedError

    def on_stall(self, controller: Controller) -> None:
        """Nothing runs and nothing was chosen, though trials wait: the last chance to resume or stop some.

        If nothing can run afterwards either, the sweep ends with an error.
        """

    def debug_string(self) -> str:
        """One line for the status table."""
        return f"Using {type(self).__name__}"

    def save(self, checkpoint_path: str | Path) -> None:
        """Write the state to a file."""
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str | Path) -> None:
        """Take the state from a file that :meth:`save` wrote."""
        self.__dict__.update(pickle.loads(Path(checkpoint_path).read_bytes()))


class FIFOScheduler(TrialScheduler):
    """Run trials in the order of their creation, each to its end."""

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Always go on."""
        return self.CONTINUE

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """The first that waits."""
        for trial in controller.get_live_trials():
            if trial.status == trial.PENDING:
                return trial
        return None

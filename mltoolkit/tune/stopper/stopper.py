"""The contract of what decides when trials, or the whole experiment, end; and several such in one."""

from __future__ import annotations

import functools
from typing import Any

from mltoolkit.tune.error import TuneError

__all__ = ["CombinedStopper", "Stopper"]


class Stopper:
    """Decides when a trial ends, and when the experiment does.

    A stopper sees every result, in the order in which they are reported, on one thread of the driver. It is pickled
    with the state of the experiment.

    Examples
    --------
    >>> class OneOfThem(Stopper):
    ...     "End the experiment when one trial has reached an accuracy of 0.9."
    ...     def __init__(self):
    ...         self.reached = False
    ...     def __call__(self, trial_id, result):
    ...         self.reached = self.reached or result["accuracy"] >= 0.9
    ...         return self.reached
    ...     def stop_all(self):
    ...         return self.reached
    >>> stopper = OneOfThem()
    >>> stopper("a", {"accuracy": 0.95}), stopper.stop_all()
    (True, True)
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls):
            cls.__call__ = _naming_itself(cls.__call__)  # type: ignore[method-assign]

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial is to end after this result.

        Parameters
        ----------
        trial_id : str
        result : dict

        Returns
        -------
        bool
        """
        raise NotImplementedError(f"{type(self).__name__} must define `__call__(trial_id, result)`.")

    def stop_all(self) -> bool:
        """Whether the experiment is to end: running trials stop, no others start.

        Returns
        -------
        bool
        """
        raise NotImplementedError(f"{type(self).__name__} must define `stop_all()`.")

    def _who(self) -> str:
        """What errors call it."""
        return f"Stopper {type(self).__name__}"


def _naming_itself(call: Any) -> Any:
    """Let errors of a stopper say whose they are: in a sweep they show up in the driver, far from the trial."""

    @functools.wraps(call)
    def __call__(self: Stopper, trial_id: str, result: dict[str, Any]) -> bool:
        try:
            stops: bool = call(self, trial_id, result)
        except TuneError:  # says what is wrong already
            raise
        except Exception as error:
            raise TuneError(
                f"The {self._who()} (`stop`) failed for trial {trial_id}: {type(error).__name__}: {error}. "
                f"The result has {', '.join(map(repr, result)) or 'no metrics'}."
            ) from error
        return stops

    return __call__


class CombinedStopper(Stopper):
    """Stops when any of several stoppers does.

    Each stopper sees each result, also when one before it has decided already: those that count miss none.

    Parameters
    ----------
    *stoppers : Stopper

    Examples
    --------
    >>> from mltoolkit.tune.stopper import MaximumIterationStopper, TrialPlateauStopper
    >>> stopper = CombinedStopper(MaximumIterationStopper(2), TrialPlateauStopper("loss"))
    >>> stopper("a", {"loss": 3.0}), stopper("a", {"loss": 2.0})
    (False, True)
    """

    def __init__(self, *stoppers: Stopper) -> None:
        for stopper in stoppers:
            if not isinstance(stopper, Stopper):
                raise TypeError(f"`CombinedStopper` takes Stoppers, got {stopper!r} of type {type(stopper).__name__}.")
        self._stoppers = stoppers

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether any of the stoppers ends the trial."""
        decisions = [stopper(trial_id, result) for stopper in self._stoppers]
        return any(decisions)

    def stop_all(self) -> bool:
        """Whether any of the stoppers ends the experiment."""
        decisions = [stopper.stop_all() for stopper in self._stoppers]
        return any(decisions)

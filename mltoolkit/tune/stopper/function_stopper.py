"""A function as a stopper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mltoolkit.tune.stopper.stopper import Stopper

__all__ = ["FunctionStopper"]


class FunctionStopper(Stopper):
    """Ends a trial when a function of its id and result says so.

    Parameters
    ----------
    function : callable
        Called as ``function(trial_id, result)``; a true value ends the trial.

    Examples
    --------
    >>> stopper = FunctionStopper(lambda trial_id, result: result["loss"] < 0.1)
    >>> stopper("a", {"loss": 0.05})
    True
    """

    def __init__(self, function: Callable[[str, dict[str, Any]], bool]) -> None:
        if not callable(function):
            raise TypeError(f"`FunctionStopper` takes a function of (trial_id, result), got {function!r}.")
        self._function = function

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """What the function says."""
        return bool(self._function(trial_id, result))

    def stop_all(self) -> bool:
        """False."""
        return False

    @classmethod
    def is_valid_function(cls, fn: Any) -> bool:
        """Whether something is a function to stop by; a Stopper is not.

        Parameters
        ----------
        fn : object

        Returns
        -------
        bool

        Raises
        ------
        ValueError
            If it has a `stop_all` but is no Stopper: it would never be asked.
        """
        if not callable(fn) or isinstance(fn, Stopper):
            return False
        if hasattr(fn, "stop_all"):
            raise ValueError(
                f"{fn!r} has a `stop_all` but is no `mltoolkit.tune.Stopper`, so it would never be asked. "
                "Derive its class from Stopper, and give an instance."
            )
        return True

"""A function as a stopper."""

from __future__ import annotations

import inspect
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

    Raises
    ------
    TypeError
        If it cannot be called with these two.

    Examples
    --------
    >>> stopper = FunctionStopper(lambda trial_id, result: result["loss"] < 0.1)
    >>> stopper("a", {"loss": 0.05})
    True
    """

    def __init__(self, function: Callable[[str, dict[str, Any]], bool]) -> None:
        if not callable(function):
            raise TypeError(f"`FunctionStopper` takes a function of (trial_id, result), got {function!r}.")
        try:
            inspect.signature(function).bind("", {})
        except ValueError:
            pass  # built in, without a signature
        except TypeError as error:
            raise TypeError(
                f"`stop` is called with (trial_id, result), which {_name(function)}{inspect.signature(function)} does "
                f"not take: {error}. Write `stop=lambda trial_id, result: result['loss'] < 0.1`."
            ) from None
        self._function = function

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """What the function says."""
        return bool(self._function(trial_id, result))

    def stop_all(self) -> bool:
        """False."""
        return False

    def _who(self) -> str:
        return f"function {_name(self._function)}"

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


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__

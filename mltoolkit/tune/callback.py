"""Callbacks: code of the user's that runs on the driver while a sweep goes on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.error import TuneError

if TYPE_CHECKING:
    from mltoolkit.train import Checkpoint
    from mltoolkit.tune.experiment.trial import Trial
    from mltoolkit.tune.stopper import Stopper

__all__ = ["Callback", "CallbackList"]


class Callback:
    """Base class: override the hooks that are of interest.

    Hooks run one after the other on the thread of the driver that runs the sweep; trials wait meanwhile, so
    they should be short. An exception in a hook ends the sweep with a :class:`TuneError` that names both.

    Every hook takes ``**info``, for keywords that later versions may add.

    Examples
    --------
    >>> class Best(Callback):
    ...     best = float("inf")
    ...
    ...     def on_trial_result(self, iteration, trials, trial, result, **info):
    ...         self.best = min(self.best, result["loss"])
    """

    def setup(
        self,
        stop: Stopper | None = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **info: Any,
    ) -> None:
        """Called once, before the first trial.

        Parameters
        ----------
        stop : Stopper or None
            When the sweep or its trials stop.
        num_samples : int or None
            Times the search space is sampled, as it was given; -1 for no end.
        total_num_samples : int or None
            Trials this makes, with the points of a grid multiplied out.
        **info
            Other properties of the experiment.
        """

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called at the start of each turn of the sweep's loop.

        Parameters
        ----------
        iteration : int
            Turns so far.
        trials : list of Trial
            All trials; not to be changed.
        **info
            For later versions.
        """

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called at the end of each turn of the sweep's loop; see :meth:`on_step_begin`."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Called after a trial was started, and again each time it goes on after a pause or a failure."""

    def on_trial_restore(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Called after a trial was given a checkpoint to go on from."""

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Called after a checkpoint of a trial was stored: ``trial.checkpoint``."""

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Called after a trial reported a result, which has Tune's own keys as well as the reported ones."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Called after a trial ended without an error."""

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Called after a trial failed that will be started again."""

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Called after a trial failed for good."""

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Checkpoint, **info: Any
    ) -> None:
        """Called after a checkpoint of a trial was stored, with that checkpoint."""

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Called once, after the last trial has ended."""

    def get_state(self) -> dict[str, Any] | None:
        """What :meth:`set_state` needs when a sweep is restored; None where there is nothing to keep.

        Returns
        -------
        dict or None
            Picklable.
        """
        return None

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back the state that :meth:`get_state` returned, when a sweep is restored."""


_STEP = ("iteration", "trials")
_TRIAL = ("iteration", "trials", "trial")
# The hooks and their arguments, all of which are passed by keyword: users' hooks may take them in any order.
_HOOKS = {
    "setup": ("stop", "num_samples", "total_num_samples"),
    "on_step_begin": _STEP,
    "on_step_end": _STEP,
    "on_trial_start": _TRIAL,
    "on_trial_restore": _TRIAL,
    "on_trial_save": _TRIAL,
    "on_trial_result": (*_TRIAL, "result"),
    "on_trial_complete": _TRIAL,
    "on_trial_recover": _TRIAL,
    "on_trial_error": _TRIAL,
    "on_checkpoint": (*_TRIAL, "checkpoint"),
    "on_experiment_end": ("trials",),
}


class CallbackList(Callback):
    """Several callbacks, called in their order; hooks that a callback does not override cost nothing.

    Parameters
    ----------
    callbacks : iterable of Callback

    Raises
    ------
    TypeError
        If something in it is not a callback.
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks = list(callbacks)
        for callback in self._callbacks:
            _check(callback)
        self._overridden: dict[str, list[Callable[..., None]]] = {
            hook: [getattr(callback, hook) for callback in self._callbacks if _overrides(callback, hook)]
            for hook in _HOOKS
        }

    def setup(self, *args: Any, **info: Any) -> None:
        """Set all callbacks up; one whose ``setup`` takes fewer arguments gets those it takes."""
        info.update(zip(_HOOKS["setup"], args, strict=False))
        for hook in self._overridden["setup"]:
            try:
                hook(**_accepted(hook, info))
            except TuneError:
                raise
            except Exception as error:
                raise _failed(hook, "setup", info, error) from error

    def on_step_begin(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_step_begin", args, info)

    def on_step_end(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_step_end", args, info)

    def on_trial_start(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_trial_start", args, info)

    def on_trial_restore(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_trial_restore", args, info)

    def on_trial_save(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_trial_save", args, info)

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_trial_result", args, info)

    def on_trial_complete(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_trial_complete", args, info)

    def on_trial_recover(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_trial_recover", args, info)

    def on_trial_error(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_trial_error", args, info)

    def on_checkpoint(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback."""
        self._call("on_checkpoint", args, info)

    def on_experiment_end(self, *args: Any, **info: Any) -> None:
        """Call the hook of each callback: of all of them, and raise the first error only then."""
        info.update(zip(_HOOKS["on_experiment_end"], args, strict=False))
        first: TuneError | None = None
        for hook in self._overridden["on_experiment_end"]:
            try:
                hook(**info)
            except TuneError as error:
                first = first or error
            except Exception as error:
                failed = _failed(hook, "on_experiment_end", info, error)
                failed.__cause__ = error
                first = first or failed
        if first is not None:
            raise first

    def _call(self, name: str, args: tuple[Any, ...], info: dict[str, Any]) -> None:
        hooks = self._overridden[name]
        if hooks and args:
            info.update(zip(_HOOKS[name], args, strict=False))
        for hook in hooks:
            try:
                hook(**info)
            except TuneError:  # says what is wrong already, such as a folder that cannot be written
                raise
            except Exception as error:
                raise _failed(hook, name, info, error) from error

    def get_state(self) -> dict[Any, Any] | None:
        """The states by position, or None if no callback has any."""
        states = {position: callback.get_state() for position, callback in enumerate(self._callbacks)}
        return states if any(states.values()) else None

    def set_state(self, state: dict[Any, Any]) -> None:
        """Give each callback its state; those that had none are left alone."""
        for position, callback in enumerate(self._callbacks):
            if state.get(position):
                callback.set_state(state[position])

    def __len__(self) -> int:
        return len(self._callbacks)

    def __getitem__(self, position: int) -> Callback:
        return self._callbacks[position]

    def __iter__(self) -> Iterator[Callback]:
        return iter(self._callbacks)


def _check(callback: Any) -> None:
    if isinstance(callback, Callback):
        return
    if isinstance(callback, type) and issubclass(callback, Callback):
        raise TypeError(
            f"`callbacks` takes instances, got the class `{callback.__name__}`: write `{callback.__name__}()`."
        )
    raise TypeError(f"`callbacks` takes instances of `mltoolkit.tune.Callback`, got {callback!r}.")


def _overrides(callback: Callback, hook: str) -> bool:
    return hook in vars(callback) or getattr(type(callback), hook) is not getattr(Callback, hook)


def _accepted(hook: Callable[..., None], info: dict[str, Any]) -> dict[str, Any]:
    """Those of the keywords that ``hook`` takes: many callbacks were written with ``setup(self)``."""
    parameters = inspect.signature(hook).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return info
    return {name: value for name, value in info.items() if name in parameters}


def _failed(hook: Callable[..., None], name: str, info: dict[str, Any], error: Exception) -> TuneError:
    owner = type(getattr(hook, "__self__", hook)).__name__
    trial = f" for trial {info['trial']}" if "trial" in info else ""
    return TuneError(f"The callback `{owner}` failed in `{name}`{trial}: {type(error).__name__}: {error}")

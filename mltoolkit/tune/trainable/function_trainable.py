"""The function form of a trainable: a function that reports, returns or yields its results."""

from __future__ import annotations

import functools
import inspect
import numbers
import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mltoolkit.train import Checkpoint
from mltoolkit.train._session import Session, plain_metrics, report, set_session
from mltoolkit.tune.result import DEFAULT_METRIC, DONE
from mltoolkit.tune.trainable.trainable import Trainable

if TYPE_CHECKING:
    from mltoolkit.tune.context import TuneContext
    from mltoolkit.tune.execution._messages import SavedCheckpoint

__all__ = ["FunctionTrainable", "TrialStopped", "wrap_function"]

STOP_GRACE_S = 5.0
"""Seconds that a function has to end after it was told to stop, before its process is replaced."""


class TrialStopped(BaseException):
    """Ends a function inside `report`, when the sweep has decided to end its trial.

    Not an ``Exception``, so that ``except Exception`` lets it pass; ``finally`` and ``with`` blocks run.
    """


class _Handover:
    """Two threads that run in turn: the function's, and the one that serves the controller.

    Bare locks as binary semaphores: a turn costs a few microseconds.
    """

    def __init__(self) -> None:
        self._ready = threading.Lock()
        self._resume = threading.Lock()
        self._ready.acquire()
        self._resume.acquire()

    def wait_for_outcome(self, timeout: float = -1) -> bool:
        return self._ready.acquire(timeout=timeout)

    def give_outcome(self) -> None:
        self._ready.release()

    def resume(self) -> None:
        try:
            self._resume.release()
        except RuntimeError:
            pass  # it has its turn already

    def wait_for_turn(self) -> None:
        self._resume.acquire()


class FunctionTrainable(Trainable, Session):
    """Runs a function in a thread and hands its reports over one at a time.

    The function stands still in ``report`` until the controller has written the result down and decided, so a stopped
    trial computes nothing more. It ends by an exception raised there, and its process can run another trial.

    Parameters
    ----------
    function : callable
        Called with the configuration.
    config : dict
    metric : str, optional
        Name of the metric where the function gives a bare number.
    context : TuneContext
    persist : callable
        Keeps a reported checkpoint and returns what the controller gets. Its second argument says whether the folder
        came from `new_folder`.
    new_folder : callable
        Makes a folder that a checkpoint can be written into.
    checkpoint : Checkpoint, optional
        What the function finds with `get_checkpoint`.
    """

    def __init__(
        self,
        function: Callable[[dict[str, Any]], Any],
        config: dict[str, Any],
        *,
        metric: str | None,
        context: TuneContext,
        persist: Callable[[Checkpoint, bool], SavedCheckpoint],
        new_folder: Callable[[], str],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._context = context
        super().__init__(config)
        self._function = function
        self._metric = metric
        self._persist = persist
        self.new_folder = new_folder
        self._checkpoint = checkpoint
        self._turn = _Handover()
        self._one_reporter = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._finished = False
        self._outcome: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self._resumed_at = 0.0
        self.reported_checkpoint: SavedCheckpoint | None = None
        self._in_the_making: Checkpoint | None = None

    # The controller's side

    def train(self) -> dict[str, Any] | None:  # type: ignore[override]  # None: it ended without another result
        """Let the function run until it reports next or ends.

        Returns
        -------
        dict or None
            The result; ``None`` if the function ended without another one.
        """
        self._resumed_at = time.perf_counter()
        self.reported_checkpoint = None
        if self._thread is None:
            set_session(self)
            self._thread = threading.Thread(target=self._run, name=f"trial-{self.trial_id}", daemon=True)
            self._thread.start()
        else:
            self._turn.resume()
        self._turn.wait_for_outcome()
        if self._error is not None:
            raise self._error
        outcome, self._outcome = self._outcome, None
        return outcome

    def stop(self) -> None:
        """Tell the function to end, and wait for it.

        Raises
        ------
        TimeoutError
            If it goes on in spite of that.
        """
        thread, self._stopping = self._thread, True
        try:
            deadline = time.monotonic() + STOP_GRACE_S
            while thread is not None and not self._finished:
                self._turn.resume()
                # It may report again on its way out: such reports raise at once.
                if not self._turn.wait_for_outcome(max(deadline - time.monotonic(), 0)):
                    raise TimeoutError(
                        f"The function of trial {self.trial_name} goes on {STOP_GRACE_S:g} s after it was stopped."
                    )
            if thread is not None:
                thread.join(STOP_GRACE_S)
        finally:
            set_session(None)
            self._forget_made()

    @property
    def has_returned(self) -> bool:
        """Whether the function has come to its end."""
        return self._finished

    # The function's side

    @property
    def context(self) -> TuneContext:
        """Identity of the trial."""
        assert self._context is not None
        return self._context

    def report(self, metrics: dict[str, Any], checkpoint: Checkpoint | None = None) -> None:
        """Hand a result to the sweep and wait until it says to go on."""
        with self._one_reporter:
            if self._stopping:
                raise TrialStopped
            seconds = time.perf_counter() - self._resumed_at
            result = self._complete(dict(metrics), seconds)
            self._keep(checkpoint)
            self._outcome = result
            self._turn.give_outcome()
            self._turn.wait_for_turn()
            if self._stopping:
                raise TrialStopped

    def _keep(self, checkpoint: Checkpoint | None) -> None:
        """Keep the checkpoint of a result: the one that is reported with it, or the one that was made before it."""
        made = self._in_the_making
        if checkpoint is None and made is None:
            return
        try:
            own = checkpoint is None
            saved = self.reported_checkpoint = self._persist(checkpoint or made, own)  # type: ignore[arg-type]
        finally:
            self._forget_made()
        if saved.packed is None:  # else it is on the driver's host, and this one goes on without
            self._checkpoint = Checkpoint(os.path.join(self.context.trial_dir, saved.name))

    def get_checkpoint(self) -> Checkpoint | None:
        """The latest checkpoint: the one reported last, or the one that the trial went on from."""
        return self._checkpoint

    def make_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint in a folder from `new_folder`, to be kept with the next result, in place of one before."""
        self._forget_made()
        self._in_the_making = checkpoint

    def _forget_made(self) -> None:
        made, self._in_the_making = self._in_the_making, None
        if made is not None:
            shutil.rmtree(made.path, ignore_errors=True)

    def _run(self) -> None:
        try:
            self._take(self._call())
        except TrialStopped:
            pass
        except SystemExit as error:
            if error.code not in (None, 0):
                self._error = RuntimeError(f"The trainable called sys.exit({error.code!r}).")
                self._error.__cause__ = error
        except BaseException as error:
            self._error = error
        finally:
            self._forget_made()
            self._finished = True
            self._turn.give_outcome()

    def _call(self) -> Any:
        """Call the function, with what its signature asks for beside the configuration.

        ``reporter`` and ``checkpoint_dir`` are how functions reported and went on in the first versions of Ray.
        """
        try:
            parameters = inspect.signature(self._function).parameters
        except ValueError:
            parameters = {}  # type: ignore[assignment]  # built in, without a signature
        extra: dict[str, Any] = {}
        if "reporter" in parameters:
            extra["reporter"] = report
        if "checkpoint_dir" in parameters:
            extra["checkpoint_dir"] = None if self._checkpoint is None else self._checkpoint.path
        return self._function(self.config, **extra)

    def _take(self, returned: Any) -> None:
        """What the function returned: a generator of results, the last result, or nothing."""
        if inspect.isawaitable(returned) or inspect.isasyncgen(returned):
            if inspect.iscoroutine(returned):
                returned.close()  # or Python warns that nobody awaited it
            from mltoolkit.tune.trainable.util import trainable_name

            raise TypeError(
                f"{trainable_name(self._function)} is async, but async functions are not trainables. Write a plain "
                "function and use `asyncio.run` inside."
            )
        if inspect.isgenerator(returned):
            with_value = (self._as_metrics(value) for value in returned)
            for metrics in with_value:
                self.report(metrics)
        elif returned is not None:
            metrics = plain_metrics(self._as_metrics(returned))
            self._keep(None)
            self._outcome = self._complete({**metrics, DONE: True}, time.perf_counter() - self._resumed_at)

    def _as_metrics(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        if hasattr(value, "item") and getattr(value, "size", None) in (1, None):
            try:
                value = value.item()  # scalars of numpy and torch
            except (TypeError, ValueError, RuntimeError):
                pass
        if isinstance(value, numbers.Number):
            return {self._metric or DEFAULT_METRIC: value}
        raise TypeError(
            "A trainable function may return or yield a dict of metrics or a number (the metric), "
            f"got {type(value).__name__}: {value!r:.100}. Report other things with `tune.report({{...}})`."
        )


def wrap_function(train_func: Callable[[dict[str, Any]], Any], name: str | None = None) -> Callable[..., Any]:
    """Give a function trainable another name; a function needs no wrapping to be a trainable.

    Parameters
    ----------
    train_func : callable
    name : str, optional
        That its trials carry; by default the function's own.

    Returns
    -------
    callable
        To be given to `Tuner`, `tune.run` or `register_trainable`. Not a class, as it is in Ray.

    Examples
    --------
    >>> wrap_function(lambda config: {"y": 1}, name="one").__name__
    'one'
    """
    from mltoolkit.tune.trainable.util import check_trainable

    if isinstance(train_func, type):
        raise TypeError(f"`wrap_function` takes a function, got the class {train_func.__name__}: use it as it is.")
    check_trainable(train_func)
    if name is None:
        return train_func

    @functools.wraps(train_func)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        return train_func(*args, **kwargs)

    renamed.__name__ = name
    return renamed

"""Run a plain Optuna study on many processes, with nothing but the driver touching the study."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import mltoolkit
from mltoolkit._optional import require
from mltoolkit.exceptions import RayActorError, RayTaskError
from mltoolkit.tune._optuna_worker import Answer, Outcome, Request, Worker

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from mltoolkit import ObjectRef
    from mltoolkit.actor import ActorHandle

__all__ = ["optimize"]

RETRY_OF = "mltoolkit:retry_of"
"""User attribute of a trial that repeats one whose worker was lost: the number of that trial."""

_POLL_S = 1.0
_MAX_STILLBORN = 3


def optimize(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float | Sequence[float]],
    n_trials: int | None = None,
    n_jobs: int | None = None,
    timeout: float | None = None,
    callbacks: Iterable[Callable[[optuna.Study, FrozenTrial], None]] | None = None,
    catch: type[Exception] | Iterable[type[Exception]] = (),
    show_progress_bar: bool = False,
    resources: dict[str, float] | None = None,
) -> None:
    """Optimize an Optuna study with worker processes instead of threads.

    The objective is an ordinary define-by-run one. It runs in worker processes, on all machines of the cluster that
    mltoolkit is attached to; the study, in memory or in a storage, stays in the driver, which alone samples, prunes
    and records. Workers are kept from trial to trial. With ``n_jobs=1`` and a seeded sampler the trials are those of
    ``study.optimize``.

    Parameters
    ----------
    study : optuna.Study
    objective : callable
        Takes a trial with everything that `optuna.Trial` offers: ``suggest_*``, ``report``, ``should_prune``,
        ``set_user_attr``, ``number``, ``params``, ... and ``trial.study`` for reading, ``stop`` and ``enqueue_trial``.
    n_trials : int, optional
        Trials in total, over all workers, failed ones included. None: until `timeout`, ``study.stop()`` or Ctrl-C.
    n_jobs : int, optional
        Worker processes. None or -1: as many as the cluster's CPUs allow.
    timeout : float, optional
        Seconds after which no trial is started; those that run are waited for.
    callbacks : iterable of callable, optional
        Called in the driver as ``callback(study, frozen_trial)`` after each trial.
    catch : exception class or iterable of them, default=()
        What an objective may raise without ending the run.
    show_progress_bar : bool, default=False
    resources : dict of str to float, optional
        What each worker holds: ``{"CPU": 2, "GPU": 1}``; by default one CPU.

    Raises
    ------
    Exception
        Whatever the objective raised, if it is not in `catch`: its trial is recorded as ``FAIL``, as are those that
        ran beside it. The traceback in the worker is added as a note.
    ImportError
        If Optuna is not installed.

    Notes
    -----
    A trial whose worker process dies becomes ``FAIL``, a new worker takes its place, and its parameters are tried once
    more, as one of the `n_trials`, before the sampler is asked again. On every way out, Ctrl-C included, no trial is
    left in state ``RUNNING``.

    Examples
    --------
    >>> import optuna
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    >>> def objective(trial):
    ...     return trial.suggest_float("x", -1, 1) ** 2
    >>> optimize(study, objective, n_trials=6, n_jobs=2)
    >>> len(study.trials)
    6
    """
    require("optuna", purpose="mltoolkit.tune.optuna.optimize", extra="optuna")
    caught = _check(study, objective, n_trials, n_jobs, timeout, catch, resources)
    requested = _requested(resources)
    if not mltoolkit.is_initialized():
        mltoolkit.init()
    limit = n_jobs if n_jobs is not None and n_jobs != -1 else _fitting(requested)
    if n_trials is not None:
        limit = min(limit, n_trials)
    reference = mltoolkit.put(objective)
    bar = _ProgressBar(n_trials) if show_progress_bar else None
    with _loop_of(study), _Interrupts() as interrupts:
        run = _Run(study, reference, n_trials, timeout, list(callbacks or ()), caught, bar, requested, interrupts)
        try:
            run.loop(limit)
        finally:
            run.close()
            if bar is not None:
                bar.close()


def _check(
    study: Any, objective: Any, n_trials: Any, n_jobs: Any, timeout: Any, catch: Any, resources: Any
) -> tuple[type[Exception], ...]:
    """Check the arguments of :func:`optimize`; return `catch` as a tuple."""
    import optuna

    if not isinstance(study, optuna.Study):
        raise TypeError(f"`study` must be an optuna.Study, got {type(study).__name__}. Use optuna.create_study().")
    if not callable(objective):
        raise TypeError(f"`objective` must be callable with a trial, got {objective!r}.")
    if n_trials is not None and (isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 0):
        raise ValueError(f"`n_trials` must be an int >= 0 or None, got {n_trials!r}.")
    if n_jobs is not None and (
        isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or (n_jobs < 1 and n_jobs != -1)
    ):
        raise ValueError(f"`n_jobs` must be an int >= 1, or -1 or None for all CPUs, got {n_jobs!r}.")
    if timeout is not None and (not isinstance(timeout, (int, float)) or timeout < 0):
        raise ValueError(f"`timeout` must be a number of seconds >= 0 or None, got {timeout!r}.")
    if resources is not None and not isinstance(resources, dict):
        raise TypeError(f"`resources` must be a dict such as {{'CPU': 1, 'GPU': 0.5}}, got {resources!r}.")
    classes = (catch,) if isinstance(catch, type) else tuple(catch)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise TypeError(f"`catch` must hold exception classes, got {each!r}.")
    return classes


def _requested(resources: dict[str, float] | None) -> dict[str, Any]:
    """Resources under their names in the sweep's vocabulary, as options of an actor."""
    wanted = dict(resources or {})
    options: dict[str, Any] = {"num_cpus": wanted.pop("CPU", wanted.pop("cpu", 1))}
    gpus = wanted.pop("GPU", wanted.pop("gpu", None))
    if gpus is not None:
        options["num_gpus"] = gpus
    memory = wanted.pop("memory", None)
    if memory is not None:
        options["memory"] = memory
    if wanted:
        options["resources"] = wanted
    return options


def _fitting(requested: dict[str, Any]) -> int:
    """How many workers the cluster has room for, at least one."""
    total = mltoolkit.cluster_resources()
    wanted = {"CPU": requested["num_cpus"], "GPU": requested.get("num_gpus", 0), "memory": requested.get("memory", 0)}
    wanted.update(requested.get("resources", {}))
    counts = [math.floor(total.get(name, 0) / amount) for name, amount in wanted.items() if amount]
    return max(1, min(counts, default=math.floor(total.get("CPU", 1))))


@contextmanager
def _loop_of(study: optuna.Study) -> Iterator[None]:
    """Mark the study as being optimized, so that ``study.stop()`` is allowed and a nested run refused."""
    local = study._thread_local
    if local.in_optimize_loop:
        raise RuntimeError("`optimize` was called inside another optimization of the same study.")
    study._stop_flag = False
    local.in_optimize_loop = True
    try:
        yield
    finally:
        local.in_optimize_loop = False
        study._storage.remove_session()


class _Interrupts:
    """Let Ctrl-C through only where the run waits, so that no trial is lost between being asked for and being noted.

    A second Ctrl-C is let through anywhere. Does nothing outside the main thread, and where the program has a handler
    of its own.
    """

    def __init__(self) -> None:
        self._is_allowed = False
        self._is_pending = False
        self._is_installed = False

    def __enter__(self) -> _Interrupts:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._is_installed = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: Any) -> None:
        if self._is_allowed or self._is_pending:
            raise KeyboardInterrupt
        self._is_pending = True

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Where Ctrl-C may strike; one that was held back strikes at once."""
        self._is_allowed = True
        try:
            if self._is_pending:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_allowed = False


class _Slot:
    """A worker, and the trial that runs in it."""

    def __init__(self, worker: ActorHandle) -> None:
        self.worker = worker
        self.trial: optuna.Trial | None = None


class _Run:
    """One call of :func:`optimize`: all of it on the driver's thread."""

    def __init__(
        self,
        study: optuna.Study,
        objective: ObjectRef,
        n_trials: int | None,
        timeout: float | None,
        callbacks: list[Callable[[optuna.Study, FrozenTrial], None]],
        catch: tuple[type[Exception], ...],
        bar: _ProgressBar | None,
        requested: dict[str, Any],
        interrupts: _Interrupts,
    ) -> None:
        import optuna

        self._study = study
        self._objective = objective
        self._left = math.inf if n_trials is None else n_trials
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._callbacks = callbacks
        self._catch = catch
        self._bar = bar
        self._worker_class = mltoolkit.remote(Worker).options(**requested)
        self._waiting: dict[ObjectRef, _Slot] = {}
        self._logger = optuna.logging.get_logger("optuna.mltoolkit")
        self._heartbeat = _Heartbeat(study)
        self._interrupts = interrupts
        self._stillborn = 0

    @property
    def _wants_more(self) -> bool:
        return self._left > 0 and not self._study._stop_flag and time.monotonic() < self._deadline

    def loop(self, n_workers: int) -> None:
        """Run trials until there are enough, with up to this many workers."""
        if self._wants_more:
            for _ in range(n_workers):
                self._hire()
        while self._wants_more or any(slot.trial for slot in self._waiting.values()):
            with self._interrupts.allowed():
                ready, _ = mltoolkit.wait(list(self._waiting), timeout=_POLL_S)
            for reference in ready:
                self._handle(reference, self._waiting.pop(reference))
            self._heartbeat.beat(slot.trial for slot in self._waiting.values())

    def close(self) -> None:
        """End the workers; fail what still runs."""
        for slot in self._waiting.values():
            mltoolkit.kill(slot.worker)
        for slot in self._waiting.values():
            if slot.trial is not None:
                self._tell_failed(slot.trial, "the run was ended")
        self._waiting.clear()

    def _hire(self) -> None:
        worker = self._worker_class.remote([self._objective])
        self._waiting[worker.prepare.remote()] = _Slot(worker)

    def _handle(self, reference: ObjectRef, slot: _Slot) -> None:
        try:
            event = mltoolkit.get(reference)
        except RayActorError as error:
            self._lose(slot, error)
            return
        except RayTaskError as error:  # the objective could not be loaded there
            mltoolkit.kill(slot.worker)
            raise RuntimeError(f"The objective could not be loaded in a worker process: {error}") from error
        if isinstance(event, Request):
            self._waiting[slot.worker.resume.remote(self._answer(slot, event))] = slot
            return
        trial, slot.trial = slot.trial, None
        try:
            if isinstance(event, Outcome) and trial is not None:
                self._finish(trial, event)
            self._start_next(slot)
        except BaseException:
            mltoolkit.kill(slot.worker)
            raise

    def _start_next(self, slot: _Slot) -> None:
        """Give an idle worker a trial, or let it go."""
        if not self._wants_more:
            mltoolkit.kill(slot.worker)
            return
        self._left -= 1
        self._heartbeat.fail_stale()
        slot.trial = self._study.ask()
        self._heartbeat.beat([slot.trial], force=True)
        self._waiting[slot.worker.start.remote(slot.trial.number)] = slot

    def _answer(self, slot: _Slot, request: Request) -> Answer:
        """Do what the objective asked for."""
        target = slot.trial if request.target == "trial" else self._study
        try:
            member = getattr(target, request.name)
            return Answer(value=member if request.args is None else member(*request.args, **request.kwargs))
        except Exception as error:  # raised where the objective asked, as without a proxy
            return Answer(error=error)

    def _lose(self, slot: _Slot, error: RayActorError) -> None:
        """Take note of a worker's death: its trial fails, another worker takes its place."""
        if slot.trial is None:
            self._stillborn += 1
            if self._stillborn == _MAX_STILLBORN:
                raise RuntimeError(
                    f"{_MAX_STILLBORN} worker processes died before they ran a trial, the last one so: {error}"
                ) from error
        else:
            trial, slot.trial = slot.trial, None
            self._tell_failed(trial, str(error))
            if self._left > 0 and trial.params and RETRY_OF not in trial.user_attrs:
                self._study.enqueue_trial(trial.params, user_attrs={**trial.user_attrs, RETRY_OF: trial.number})
            self._call_back(trial)
        if self._wants_more:
            self._hire()

    def _finish(self, trial: optuna.Trial, outcome: Outcome) -> None:
        from optuna import TrialPruned

        error = outcome.error
        if isinstance(error, TrialPruned):
            from optuna.trial import TrialState

            self._study.tell(trial, state=TrialState.PRUNED)
            self._logger.info(f"Trial {trial.number} pruned. {error}")
        elif error is not None:
            self._tell_failed(trial, repr(error))
            if not isinstance(error, self._catch):
                raise error
        else:
            problem = _problem(outcome.value, len(self._study.directions))
            if problem is None:
                self._study.tell(trial, outcome.value)
                self._log_completed(trial, outcome.value)
            else:
                self._tell_failed(trial, problem)
        self._call_back(trial)

    def _tell_failed(self, trial: optuna.Trial, reason: str) -> None:
        from optuna.trial import TrialState

        self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        self._logger.warning(f"Trial {trial.number} failed with parameters: {trial.params}: {reason}")

    def _log_completed(self, trial: optuna.Trial, value: Any) -> None:
        import logging

        if not self._logger.isEnabledFor(logging.INFO):
            return
        text = f"Trial {trial.number} finished with value: {value} and parameters: {trial.params}."
        if len(self._study.directions) == 1:
            best = self._study.best_trial
            text += f" Best is trial {best.number} with value: {best.value}."
        self._logger.info(text)

    def _call_back(self, trial: optuna.Trial) -> None:
        if self._bar is not None:
            self._bar.update(self._study)
        if self._callbacks:
            frozen = self._study._storage.get_trial(trial._trial_id)
            for callback in self._callbacks:
                callback(self._study, copy.deepcopy(frozen))


def _problem(value: Any, n_objectives: int) -> str | None:
    """Why Optuna would not take an objective's value, or None."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for each in values:
        try:
            number = float(each)
        except (TypeError, ValueError):
            return f"the value {each!r} could not be cast to float"
        if math.isnan(number):
            return f"the value {each!r} is not acceptable"
    if len(values) != n_objectives:
        return f"the number of values {len(values)} did not match the number of objectives {n_objectives}"
    return None


class _Heartbeat:
    """Signs of life for a storage that is set to expect them, and the failing of trials that gave none."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._storage: Any = study._storage
        interval = getattr(self._storage, "get_heartbeat_interval", lambda: None)()
        self._interval = None if interval is None else interval / 2
        self._due = 0.0

    def beat(self, trials: Iterable[optuna.Trial | None], *, force: bool = False) -> None:
        if self._interval is None or (not force and time.monotonic() < self._due):
            return
        for trial in trials:
            if trial is not None:
                self._storage.record_heartbeat(trial._trial_id)
        if not force:
            self._due = time.monotonic() + self._interval

    def fail_stale(self) -> None:
        if self._interval is None:
            return
        import warnings

        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)


class _ProgressBar:
    """Trials done and the best value so far, on standard error or as a widget."""

    def __init__(self, n_trials: int | None) -> None:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # comes with Optuna

        self._bar = tqdm(total=n_trials, unit="trial")

    def update(self, study: optuna.Study) -> None:
        if len(study.directions) == 1:
            try:
                self._bar.set_description(f"Best value: {study.best_value:g}", refresh=False)
            except ValueError:  # none has completed yet
                pass
        self._bar.update(1)

    def close(self) -> None:
        self._bar.close()

"""How a Trainer's run gets to the workers, and back."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mltoolkit
from mltoolkit.exceptions import RayError
from mltoolkit.lightning import _results
from mltoolkit.lightning._package import implementation, package_of
from mltoolkit.lightning._progress import BarDriver, RemoteBar
from mltoolkit.lightning._tensors import pack, shared_storages, unpack
from mltoolkit.train._internal.failures import StallWatch, collect_failures, make_error, stall_after_s
from mltoolkit.train._internal.mailbox import own_mailbox
from mltoolkit.train._internal.worker_group import Ranks, WorkerGroup, ensure_session
from mltoolkit.train._session import current_session
from mltoolkit.train.error import WorkerGroupError
from mltoolkit.train.torch.config import connect_process_group
from mltoolkit.util import preload_modules

__all__ = ["RayLauncher", "preloaded"]

_EVENTS_WAIT_S = 0.2
_TICK_S = 0.5


def preloaded(package: str) -> tuple[str, ...]:
    """What workers import, so that it is imported once for all of them."""
    return (package, "torch._dynamo", "torch.distributed", "mltoolkit.lightning.ray_ddp", __name__)


class RayLauncher:
    """Runs what a Trainer is asked for on the workers of a strategy.

    Parameters
    ----------
    strategy : RayStrategy
    """

    is_interactive_compatible = True

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self._group: WorkerGroup | None = None

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Run a function on all workers; return what it returned on rank 0.

        Parameters
        ----------
        function : callable
            A method of the trainer's, or any function if there is none.
        *args, **kwargs
            For the function.
        trainer : Trainer, optional
            Gets the state that rank 0's is in afterwards.

        Raises
        ------
        BaseException
            What a rank has raised, with a note that says which.
        WorkerGroupError
            If a worker has died.
        """
        strategy = self._strategy
        _check_devices(trainer, strategy)
        preload_modules(*preloaded(strategy._package))
        resources = ensure_session(strategy.num_workers, strategy.worker_resources)
        if trainer is not None:
            _settle_loggers(trainer)
        bars = _bars(trainer)
        group = self._group = WorkerGroup(
            strategy.num_workers, resources, name=type(strategy).__name__, env_vars=strategy.env_vars
        )
        driver = BarDriver(trainer.callbacks[bars[0]], trainer) if bars else None
        try:
            group.begin()
            call = _sent(_Call(function, args, kwargs, trainer, _GlobalState.capture(), bars))  # while processes start
            group.start()
            if strategy.init_hook is not None:
                group.execute(strategy.init_hook)
            connect_process_group(group, strategy.chosen_backend, timeout_s=strategy.timeout_s)
            outcomes = self._follow(group, call, driver)
        except KeyboardInterrupt:
            strategy.note_interrupt()
            raise
        except WorkerGroupError as error:
            strategy.note_failure()
            if driver is not None:
                driver.end(error)
                driver = None
            raise _own_exception(error) from None
        finally:
            self._group = None
            group.shutdown()
            if driver is not None:
                driver.end(None)
        first = outcomes[0]
        if trainer is None:
            return unpack(first.results)
        _results.restore(trainer, first, bars)
        if first.ended_by is not None:
            raise first.ended_by
        if trainer.state.fn == "predict":
            return _results.merge_predictions([unpack(outcome.results) for outcome in outcomes])
        return unpack(first.results)

    def kill(self, signum: Any) -> None:
        """End the workers: the program was told to end."""
        if self._group is not None:
            self._group.shutdown()

    def _follow(self, group: WorkerGroup, call: Any, driver: BarDriver | None) -> list[_results.Outcome]:
        running = {
            worker.ranks.world_rank: worker.actor.execute.remote(_work, call, worker.ranks) for worker in group.workers
        }
        watch = StallWatch(group.workers, stall_after_s())
        session = current_session()
        first = group.workers[0].actor
        events = first.take_events.remote(_EVENTS_WAIT_S) if driver is not None or session is not None else None
        if driver is not None:
            driver.begin()
        outcomes: dict[int, _results.Outcome] = {}
        while len(outcomes) < len(running) or events is not None:
            waiting = [ref for rank, ref in running.items() if rank not in outcomes]
            done, _ = mltoolkit.wait([*waiting, *([events] if events is not None else [])], timeout=_TICK_S)
            if events is not None and events in done:
                events = self._handle(first, mltoolkit.get(events), driver, session)
            for rank, ref in running.items():
                if ref in done and rank not in outcomes:
                    try:
                        outcomes[rank] = mltoolkit.get(ref)
                    except RayError as error:
                        raise make_error(collect_failures({rank: error}, running), group.workers) from None
            stalled = watch.check(dict.fromkeys(outcomes, "has ended"))
            if stalled:
                raise make_error(stalled, group.workers)
        return [outcomes[rank] for rank in sorted(outcomes)]

    def _handle(self, first: Any, events: list[tuple[int, Any]] | None, driver: BarDriver | None, session: Any) -> Any:
        """Do what rank 0 asks for; return a reference to its next events, None if there will be no more."""
        if events is None:
            return None
        for number, event in events:
            if event[0] == "bar" and driver is not None:
                driver.handle(*event[1:])
            elif event[0] == "print" and driver is not None:
                driver.print(event[1])
            elif event[0] == "session":
                self._ask_session(first, number, session, *event[1:])
        return first.take_events.remote(_EVENTS_WAIT_S)

    @staticmethod
    def _ask_session(first: Any, number: int, session: Any, what: str, *args: Any) -> None:
        """Report for rank 0 to the trial that this process runs. What ends the trial is raised here."""
        try:
            answer = _answer_for(session, what, *args)
        except Exception as error:
            first.answer.remote(number, error, True)
        else:
            first.answer.remote(number, answer)

    def __getstate__(self) -> dict[str, Any]:
        return {"_strategy": self._strategy, "_group": None}


def _answer_for(session: Any, what: str, *args: Any) -> Any:
    if what == "report":
        metrics, checkpoint = args
        if checkpoint is None:
            return session.report(metrics, None)
        from mltoolkit.train import Checkpoint
        from mltoolkit.tune.execution._checkpoint_io import unpack as unpack_folder

        folder = session.new_folder()
        target = os.path.join(folder, "checkpoint")
        unpack_folder(checkpoint, target)
        try:
            return session.report(metrics, Checkpoint(target))
        finally:
            import shutil

            shutil.rmtree(folder, ignore_errors=True)
    raise AssertionError(what)


@dataclass
class _Call:
    """All that a worker needs."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    trainer: Any
    state: _GlobalState
    bars: list[int]
    session: Any = None


@dataclass
class _GlobalState:
    """States of libraries that a run depends on: random streams, and torch's switches."""

    streams: dict[str, Any] = field(default_factory=dict)
    switches: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def capture(cls) -> _GlobalState:
        """Those of this process."""
        import torch

        streams = {"python": random.getstate(), "torch": torch.get_rng_state()}
        if "numpy" in sys.modules:
            streams["numpy"] = sys.modules["numpy"].random.get_state()
        switches = {
            "deterministic": (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            "benchmark": torch.backends.cudnn.benchmark,
            "dtype": torch.get_default_dtype(),
            "precision": torch.get_float32_matmul_precision(),
        }
        return cls(streams, switches)

    def restore(self) -> None:
        """Make them this process'."""
        import torch

        random.setstate(self.streams["python"])
        torch.set_rng_state(self.streams["torch"])
        if "numpy" in self.streams:
            import numpy as np

            np.random.set_state(self.streams["numpy"])
        enabled, warn_only = self.switches["deterministic"]
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = self.switches["benchmark"]
        torch.set_default_dtype(self.switches["dtype"])
        torch.set_float32_matmul_precision(self.switches["precision"])


def _sent(call: _Call) -> Any:
    """Put a call into the object store; what cannot be sent is named."""
    session = current_session()
    if session is not None:
        from mltoolkit.train.context import TrainContext

        context = session.context
        call.session = TrainContext(
            experiment_name=context.get_experiment_name(),
            trial_id=context.get_trial_id(),
            trial_name=context.get_trial_name(),
            trial_dir=context.get_trial_dir(),
            trial_resources=context.get_trial_resources(),
        )
    with shared_storages(), _left_out(call.trainer, call.bars):
        try:
            return mltoolkit.put(call)
        except Exception as error:
            for name, part in _parts(call):
                try:
                    mltoolkit.put(part)
                except Exception as inner:
                    raise TypeError(f"{name} cannot be sent to the workers. {inner}") from error
            raise


@contextmanager
def _left_out(trainer: Any, bars: list[int]) -> Iterator[None]:
    """Progress bars stay here; they may hold terminals and widgets."""
    kept = {index: trainer.callbacks[index] for index in bars}
    for index in bars:
        trainer.callbacks[index] = None
    try:
        yield
    finally:
        for index, bar in kept.items():
            trainer.callbacks[index] = bar


def _parts(call: _Call) -> list[tuple[str, Any]]:
    """The user's own objects in a call, under the names that they know."""
    parts = [(f"Argument {type(value).__name__}", value) for value in (*call.args, *call.kwargs.values())]
    trainer = call.trainer
    if trainer is None:
        return [*parts, ("The function", call.function)]
    parts = [
        (f"{'The model' if value is trainer.lightning_module else 'The data'} ({type(value).__name__})", value)
        for value in (*call.args, *call.kwargs.values())
        if value is not None
    ]
    parts += [(f"The callback {type(each).__name__}", each) for each in trainer.callbacks if each is not None]
    parts += [(f"The logger {type(each).__name__}", each) for each in trainer.loggers]
    if trainer.profiler is not None:
        parts.append((f"The profiler {type(trainer.profiler).__name__}", trainer.profiler))
    return parts


def _check_devices(trainer: Any, strategy: Any) -> None:
    """Refuse a number of devices that is not the number of workers. Left out, it is 1 here."""
    devices = getattr(getattr(trainer, "_accelerator_connector", None), "_devices_flag", 1)
    if isinstance(devices, int) and devices not in (1, strategy.num_workers):
        raise ValueError(
            f"`Trainer(devices={devices})` and `{type(strategy).__name__}(num_workers={strategy.num_workers})` disagree. "
            "Leave `devices` out: each worker has one."
        )


def _settle_loggers(trainer: Any) -> None:
    """Have loggers that number their runs choose here: afterwards the driver's says where the workers have written."""
    for logger in trainer.loggers:
        if hasattr(logger, "_get_next_version"):
            _ = logger.version


def _bars(trainer: Any) -> list[int]:
    """Which callbacks are progress bars."""
    if trainer is None:
        return []
    import importlib

    bar = importlib.import_module(f"{package_of(trainer)}.callbacks").ProgressBar
    return [index for index, callback in enumerate(trainer.callbacks) if isinstance(callback, bar)]


def _own_exception(error: WorkerGroupError) -> BaseException:
    """The exception that a rank has raised, with a note; the error itself where a process has died."""
    cause = next(iter(error.worker_failures.values()))
    if isinstance(cause, RayError) or not isinstance(cause, Exception):
        return error
    cause.add_note(error.error_message)
    return cause


# On the workers


def _work(call: _Call, ranks: Ranks) -> _results.Outcome:
    """Run a call as one of the ranks."""
    try:
        call.state.restore()
        trainer = call.trainer
        if trainer is None:
            return _results.Outcome(pack(call.function(*call.args, **call.kwargs)))
        strategy = trainer.strategy
        module = next((each for each in (*call.args, trainer.lightning_module) if hasattr(each, "named_modules")), None)
        strategy.become_worker(ranks, frozenset() if module is None else (name for name, _ in module.named_modules()))
        _replace_bars(trainer, call.bars, ranks.world_rank == 0)
        if call.session is not None and ranks.world_rank == 0:
            from mltoolkit.lightning._session import ForwardingSession
            from mltoolkit.train._session import set_session

            set_session(ForwardingSession(call.session))
        results = ended_by = None
        try:
            results = call.function(*call.args, **call.kwargs)
        except BaseException as exception:
            if type(exception).__name__ != "_TunerExitException":
                raise
            ended_by = exception
        weights = strategy.whole_state_dict() if trainer.state.fn == "fit" else None
        outcome = _results.collect(trainer, results, weights, is_first=ranks.world_rank == 0)
        outcome.ended_by = ended_by
        return outcome
    finally:
        own_mailbox.close()


def _replace_bars(trainer: Any, bars: list[int], is_first: bool) -> None:
    """Have rank 0 send its progress to the driver; the others show none."""
    for number, index in enumerate(bars):
        post = own_mailbox.post if is_first and number == 0 else _drop
        trainer.callbacks[index] = implementation(RemoteBar, package_of(trainer))(post)


def _drop(event: Any) -> None:
    """Forget an event."""

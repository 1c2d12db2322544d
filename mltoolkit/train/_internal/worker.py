"""A worker of a training run: the process, and its side of the conversation with what directs the run."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import mltoolkit
from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._internal.mailbox import own_mailbox
from mltoolkit.train._session import Session, set_session
from mltoolkit.train.context import TrainContext
from mltoolkit.tune.error import StorageError

__all__ = ["Exchange", "Probe", "Report", "RunSetup", "TrainWorker", "WorkerInfo", "WorkerSession"]

_PACKED_PREFIX = "checkpoint_worker_"


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker is."""

    pid: int
    hostname: str
    node_id: str
    address: str
    gpu_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Report:
    """What one worker reported.

    Attributes
    ----------
    checkpoint : str, PackedFolder or None
        A folder beside the trial's checkpoints, or the files themselves where the worker cannot see that place.
    """

    metrics: dict[str, Any]
    checkpoint: Any = None


@dataclass(frozen=True)
class Exchange:
    """A worker that waits for all others to come as far, and for what rank 0 has to say.

    Attributes
    ----------
    data : object
        Rank 0's; None of the others.
    """

    data: Any = None


@dataclass(frozen=True)
class Probe:
    """What a worker does at this moment.

    Attributes
    ----------
    cpu_s : float
        CPU time that the process has used so far, in seconds.
    in_collective : bool
        Whether its main thread is inside a collective operation of torch, XGBoost or LightGBM, which waits for the other
        workers.
    where : str
        The innermost line of the user's code.
    """

    cpu_s: float
    in_collective: bool
    where: str


@dataclass(frozen=True)
class RunSetup:
    """What a worker must know to run the training function.

    Attributes
    ----------
    incoming : str
        Folder in which new checkpoints are collected, as the directing process names it.
    marker : str
        File that shows whether this process sees that folder.
    checkpoint : str, PackedFolder or None
        What to go on from.
    datasets : dict
        This worker's shards: values, or references to them.
    change_directory : bool
        Whether relative paths are meant in the folder of the trial, so that trials do not overwrite each other's files.
    """

    context: TrainContext
    incoming: str = ""
    marker: str = ""
    checkpoint: Any = None
    datasets: dict[str, Any] = field(default_factory=dict)
    change_directory: bool = False


class WorkerSession(Session):
    """Takes the reports of a training function and hands them over one at a time.

    The function stands still in ``report`` until all workers have reported and the result is stored.
    """

    def __init__(self, setup: RunSetup) -> None:
        self._setup = setup
        self._changed = threading.Condition()
        self._report: Report | Exchange | None = None
        self._taken = False
        self._answer: Any = None
        self._ended = False
        self._own_folder: str | None = None
        self._checkpoint = self._unpacked(setup.checkpoint)
        self._shards: dict[str, Any] = {}
        if setup.change_directory:
            os.environ.setdefault("TUNE_ORIG_WORKING_DIR", os.getcwd())
            os.chdir(setup.incoming if self._sees_storage() else self._scratch())

    # The training function's side

    @property
    def context(self) -> TrainContext:
        """Who this worker is."""
        return self._setup.context

    def report(self, metrics: dict[str, Any], checkpoint: Checkpoint | None = None) -> None:
        """Hand a result over, and wait until those of all workers are stored."""
        self._hand_over(Report(metrics, None if checkpoint is None else self._stage(checkpoint)))

    def exchange(self, data: Any) -> Any:
        """Wait until all workers are here; what rank 0 gave."""
        return self._hand_over(Exchange(data if self.context.get_world_rank() == 0 else None))

    def _hand_over(self, report: Report | Exchange) -> Any:
        with self._changed:
            self._report, self._taken = report, False
            self._changed.notify_all()
            while self._report is report:
                self._changed.wait()
            return self._answer

    def get_checkpoint(self) -> Checkpoint | None:
        """What the run goes on from, or what was reported last."""
        return self._checkpoint

    def get_dataset_shard(self, name: str | None) -> Any:
        """The worker's part of a dataset."""
        known = self._setup.datasets
        if name is None:
            name = "train"
            if not known:
                return None
        if name not in known:
            given = ", ".join(repr(each) for each in known) or "none"
            raise KeyError(
                f"There is no dataset {name!r}: the trainer was given {given}. Pass it as `datasets={{{name!r}: ...}}`."
            )
        if name not in self._shards:
            shard = known[name]
            self._shards[name] = mltoolkit.get(shard) if isinstance(shard, mltoolkit.ObjectRef) else shard
        return self._shards[name]

    # The directing process' side

    def next_report(self, stored: str | None, answer: Any = None) -> Report | Exchange | None:
        """Let the function go on, and wait for its next report; None when it has ended.

        Parameters
        ----------
        stored : str or None
            Where the checkpoint of the last report is now.
        answer : object
            What the last exchange gives.
        """
        with self._changed:
            if self._taken:
                if stored is not None and (self._sees_storage() or not self._setup.marker):
                    self._checkpoint = Checkpoint(stored)
                self._report, self._taken, self._answer = None, False, answer
                self._changed.notify_all()
            while self._report is None and not self._ended:
                self._changed.wait()
            if self._report is None:
                return None
            self._taken = True
            return self._report

    def end(self) -> None:
        """The function has returned or failed."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._own_folder is not None:
            if self._setup.change_directory:
                os.chdir("/")
            shutil.rmtree(self._own_folder, ignore_errors=True)

    # Checkpoints on their way

    def _sees_storage(self) -> bool:
        return bool(self._setup.marker) and os.path.exists(self._setup.marker)

    def _stage(self, checkpoint: Checkpoint) -> Any:
        from mltoolkit.tune.execution._checkpoint_io import INCOMING, pack

        with checkpoint.as_directory() as source:
            if not self._sees_storage():
                return pack(source)
            folder = ""
            try:
                folder = tempfile.mkdtemp(prefix=INCOMING, dir=self._setup.incoming)
                shutil.copytree(source, folder, dirs_exist_ok=True)
            except BaseException as error:
                shutil.rmtree(folder, ignore_errors=True)
                if isinstance(error, OSError):
                    raise _unwritable(self._setup.incoming, error) from error
                raise
            return folder

    def _unpacked(self, place: Any) -> Checkpoint | None:
        if place is None or isinstance(place, Checkpoint):
            return place
        if isinstance(place, str):
            return Checkpoint(place)
        from mltoolkit.tune.execution._checkpoint_io import unpack

        folder = os.path.join(self._scratch(), "checkpoint")
        unpack(place, folder)
        return Checkpoint(folder)

    def _scratch(self) -> str:
        """A temporary folder that goes when the function has ended."""
        if self._own_folder is None:
            self._own_folder = tempfile.mkdtemp(prefix=_PACKED_PREFIX)
        return self._own_folder


def _unwritable(folder: str, error: OSError) -> StorageError:
    """What is wrong with the folder, also where `shutil` has made a list of it."""
    causes = error.args[0] if isinstance(error, shutil.Error) else [(None, None, error)]
    return StorageError(
        f"The checkpoint cannot be written to {folder}: {causes[0][-1]}. Make room or give another "
        "`RunConfig(storage_path=...)`; what was kept before is as it was."
    )


class TrainWorker:
    """The actor. Functions run on its main thread; reports and questions about its state are served beside."""

    def __init__(self) -> None:
        self._session: WorkerSession | None = None
        self._session_there = threading.Event()

    def describe(self) -> WorkerInfo:
        """Where this is."""
        from mltoolkit.util import get_node_ip_address

        return WorkerInfo(
            os.getpid(),
            socket.gethostname(),
            mltoolkit.get_runtime_context().get_node_id(),
            get_node_ip_address(),
            tuple(int(each) for each in mltoolkit.get_gpu_ids()),
        )

    def execute(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function on the main thread."""
        return function(*args, **kwargs)

    def begin(self, setup: RunSetup) -> None:
        """Get ready for the training function: from here on its session is there."""
        self._session = WorkerSession(setup)
        set_session(self._session)
        self._session_there.set()

    @mltoolkit.method(concurrency_group="control")
    def next_report(self, stored: str | None = None, answer: Any = None) -> Report | Exchange | None:
        """What the training function reports next; see :meth:`WorkerSession.next_report`."""
        self._session_there.wait()
        assert self._session is not None
        return self._session.next_report(stored, answer)

    @mltoolkit.method(concurrency_group="control")
    def take_events(self, wait_s: float) -> list[tuple[int, Any]] | None:
        """Events of the function that runs; see :class:`~mltoolkit.train._internal.mailbox.Mailbox`."""
        return own_mailbox.take(wait_s)

    @mltoolkit.method(concurrency_group="control")
    def answer(self, number: int, answer: Any, failed: bool = False) -> None:
        """Answer an event."""
        own_mailbox.answer(number, answer, failed=failed)

    @mltoolkit.method(concurrency_group="control")
    def probe(self) -> Probe:
        """What the main thread does right now."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        return Probe(time.process_time(), _in_collective(frame), _where(frame))


_WAITING_PLACES = (
    "/torch/distributed/",
    "/torch/autograd/graph.py",  # a backward pass, which waits for gradients of the others
    "/torch/autograd/__init__.py",
    "/torch/nn/parallel/distributed.py",
    "/torch/nn/modules/_functions.py",  # synchronised batch normalisation
    "/xgboost/core.py",  # calls native code, which computes or waits
    "/xgboost/collective.py",
    "/mltoolkit/lightgbm/_mesh.py",
)


def _in_collective(frame: FrameType | None) -> bool:
    file = "" if frame is None else frame.f_code.co_filename.replace(os.sep, "/")
    return any(place in file for place in _WAITING_PLACES)


def _where(frame: FrameType | None) -> str:
    """The innermost line outside of installed packages."""
    from sysconfig import get_paths

    paths = get_paths()
    installed = tuple(paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
    innermost = frame
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((*installed, own, "<frozen")):
            return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    if innermost is None:
        return "an unknown place"
    return f"{innermost.f_code.co_filename}:{innermost.f_lineno} in {innermost.f_code.co_name}"

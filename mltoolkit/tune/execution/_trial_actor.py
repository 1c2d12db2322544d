"""The process of a trial."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
import tempfile
from typing import IO, Any

import mltoolkit
from mltoolkit.train import Checkpoint
from mltoolkit.tune import registry
from mltoolkit.tune.error import StorageError
from mltoolkit.tune.execution._checkpoint_io import (
    INCOMING,
    PackedFolder,
    StorageMarker,
    appear,
    persist,
    unpack,
)
from mltoolkit.tune.execution._messages import Assignment, Outcome, SavedCheckpoint, SlotInfo
from mltoolkit.tune.execution._scratch import Scratch
from mltoolkit.tune.result import DONE, SHOULD_CHECKPOINT, TRAINING_ITERATION
from mltoolkit.tune.trainable.function_trainable import FunctionTrainable
from mltoolkit.tune.trainable.trainable import Trainable
from mltoolkit.util import seed_everything

__all__ = ["TrialActor"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})
"""Errors that are the storage's, whoever was writing."""


class TrialActor:
    """Runs trials one after another.

    Between two trials it restores working directory, environment and output, so that what a trial did to its process
    does not reach the next one; modules and their state stay, which is what makes the next one start at once.

    Parameters
    ----------
    marker : StorageMarker
        Shows whether this process sees the experiment's folder.
    environments : dict
        What the driver registered with `register_env` and the like.
    driver_pid : int
        In local mode this *is* the driver, whose working directory stays.
    """

    def __init__(self, marker: StorageMarker, environments: dict[str, Any], driver_pid: int, driver_host: str) -> None:
        self._shared = marker.is_visible()
        self._in_driver = (os.getpid(), socket.gethostname()) == (driver_pid, driver_host)
        registry.install(environments)
        self._home = os.getcwd()
        self._environment = dict(os.environ)
        self._streams = (sys.stdout, sys.stderr)
        self._files: list[IO[str]] = []
        self._scratch = Scratch(os.path.dirname(marker.path))
        if not self._shared:
            self._scratch.remove_abandoned()
        self._trainables: dict[str, Any] = {}
        self._trial: Trainable | None = None
        self._task: Assignment | None = None
        self._checkpoint_index = 0

    def hello(self) -> SlotInfo:
        """Tell where this is: the first call, which returns when the process has got its resources."""
        context = mltoolkit.get_runtime_context()
        return SlotInfo(os.getpid(), socket.gethostname(), context.get_node_id(), self._shared)

    def begin(self, task: Assignment) -> Outcome:
        """Start a trial and let it run to its first result."""
        old, self._task = self._trial, task
        self._checkpoint_index = task.checkpoint_index
        self._trial = None
        reused = old is not None and task.reuse and not isinstance(old, FunctionTrainable)
        if old is not None and not reused:
            old.stop()
        self._enter(task)
        config = dict(task.config)
        trainable: Any = self._trainable(task.trainable)
        checkpoint = self._checkpoint_at(task.checkpoint)
        if not isinstance(trainable, type):
            self._trial = FunctionTrainable(
                trainable,
                config,
                metric=task.metric,
                context=task.context,
                persist=self._keep,
                new_folder=self._new_folder,
                checkpoint=checkpoint,
            )
        else:
            if reused and old is not None:
                old._context = task.context
                if old.reset(config):
                    self._trial = old
                else:
                    old.stop()
            if self._trial is None:
                self._trial = _construct(trainable, config, task)
            if checkpoint is not None:
                self._trial.restore(checkpoint)
        if task.progress:
            self._trial._set_progress(task.progress)
        return self.advance()

    def advance(self) -> Outcome:
        """Let the trial run to its next result."""
        trial, task = self._trial, self._task
        assert trial is not None and task is not None, "no trial was begun"
        result = trial.train()
        if isinstance(trial, FunctionTrainable):
            return Outcome(result, trial.reported_checkpoint, trial.has_returned)
        assert result is not None
        from mltoolkit.train._session import plain_metrics

        result = plain_metrics(result)
        frequency, iteration = task.checkpoint_frequency, result[TRAINING_ITERATION]
        due = result.pop(SHOULD_CHECKPOINT, False) or (frequency and iteration % frequency == 0)
        due = due or (task.checkpoint_at_end and result[DONE])
        return Outcome(result, self.save() if due else None)

    def save(self) -> SavedCheckpoint:
        """Save a class trainable that stands between two steps."""
        trial = self._trial
        assert trial is not None and not isinstance(trial, FunctionTrainable)
        if not self._shared:
            folder = self._new_folder()
            try:
                return self._keep(trial.save(folder))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        name, folder = self._next_checkpoint()

        def write(incoming: str) -> None:
            try:
                trial.save(incoming)
            except OSError as error:
                if error.errno in _FULL:
                    raise
                failures.append(error)  # the trial's own, such as a file that it wants to copy and that is missing
                raise

        failures: list[OSError] = []
        try:
            appear(folder, write)
        except OSError as error:
            if error in failures:
                raise
            raise _unwritable(folder, error) from error
        self._checkpoint_index += 1
        return SavedCheckpoint(name)

    def end(self) -> None:
        """End the trial that is there, if one is."""
        trial, self._trial, self._task = self._trial, None, None
        try:
            if trial is not None:
                trial.stop()
        finally:
            self._leave()

    def _trainable(self, ref: mltoolkit.ObjectRef) -> Any:
        key = ref.hex()
        if key not in self._trainables:
            self._trainables[key] = mltoolkit.get(ref)
        return self._trainables[key]

    def _next_checkpoint(self) -> tuple[str, str]:
        assert self._task is not None
        name = f"checkpoint_{self._checkpoint_index:06d}"
        return name, os.path.join(self._task.context.trial_dir, name)

    def _new_folder(self) -> str:
        """A folder to write a checkpoint into, which is removed by somebody else if this process is killed."""
        assert self._task is not None
        return tempfile.mkdtemp(
            prefix=INCOMING, dir=self._task.context.trial_dir if self._shared else self._scratch.folder()
        )

    def _keep(self, checkpoint: Checkpoint, own: bool = False) -> SavedCheckpoint:
        name, folder = self._next_checkpoint()
        try:
            packed = persist(checkpoint, folder, shared=self._shared, own=own)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unwritable(folder, error) from error
        self._checkpoint_index += 1
        return SavedCheckpoint(name, packed)

    def _checkpoint_at(self, place: str | PackedFolder | None) -> Checkpoint | None:
        if place is None:
            return None
        if isinstance(place, PackedFolder):
            folder = os.path.join(self._scratch.folder(), "checkpoint")
            unpack(place, folder)
            return Checkpoint.from_directory(folder)
        if not os.path.isdir(place):
            raise FileNotFoundError(
                f"The checkpoint {place} that the trial should go on from is gone. "
                "Restore with `restart_errored=True` to begin such trials anew."
            )
        return Checkpoint.from_directory(place)

    def _enter(self, task: Assignment) -> None:
        """Make the process the trial's: folder, output files, random seeds."""
        self._leave()
        folder = task.context.trial_dir
        if task.change_directory and not self._in_driver:
            os.environ["TUNE_ORIG_WORKING_DIR"] = self._home
            os.chdir(folder if self._shared and os.path.isdir(folder) else self._scratch.folder())
        if task.context.seed is not None:
            seed_everything(task.context.seed)
        if any(task.log_files):
            self._copy_output(folder if self._shared else self._scratch.folder(), task.log_files)

    def _leave(self) -> None:
        """Undo what a trial did to the process."""
        sys.stdout, sys.stderr = self._streams
        while self._files:
            self._files.pop().close()
        if not self._in_driver:
            try:
                os.chdir(self._home)
            except OSError:
                os.chdir("/")  # the driver's folder was deleted, or is another host's
            for name in os.environ.keys() - self._environment.keys():
                del os.environ[name]
            for name, value in self._environment.items():
                if os.environ.get(name) != value:
                    os.environ[name] = value
        self._scratch.remove()

    def _copy_output(self, folder: str, names: tuple[str | None, str | None]) -> None:
        files: dict[str, IO[str]] = {}
        for name in names:
            if name and name not in files:
                files[name] = open(os.path.join(folder, name), "a", buffering=1)  # noqa: SIM115  # as long as the trial
                self._files.append(files[name])
        out, err = names
        if out:
            sys.stdout = _Tee(self._streams[0], files[out])
        if err:
            sys.stderr = _Tee(self._streams[1], files[err])


class _Tee:
    """Writes to a stream and to a file."""

    def __init__(self, stream: IO[str], file: IO[str]) -> None:
        self._stream = stream
        self._file = file

    def write(self, text: str) -> int:
        self._file.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._file.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _unwritable(folder: str, error: OSError) -> StorageError:
    return StorageError(f"The checkpoint cannot be written to {folder}: {error}.")


def _construct(cls: type[Trainable], config: dict[str, Any], task: Assignment) -> Trainable:
    # The context comes first: `setup`, which the constructor calls, may ask for the trial's folder.
    trial = cls.__new__(cls)
    trial._context = task.context
    trial.__init__(config)  # type: ignore[misc]
    return trial

"""Folders that trials write into before anybody keeps them: none stays, however the trial ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import mltoolkit
from mltoolkit import tune
from mltoolkit.tune.context import TuneContext
from mltoolkit.tune.error import StorageError
from mltoolkit.tune.execution._checkpoint_io import StorageMarker, unpack
from mltoolkit.tune.execution._messages import Assignment
from mltoolkit.tune.execution._scratch import Scratch
from mltoolkit.tune.execution._trial_actor import TrialActor


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def begin(runtime, tmp_path, temporary):
    """Begin a trial in a trial's process, which is this one."""
    actors = []

    def begin(trainable, *, shared):
        (tmp_path / "trial").mkdir()
        marker = StorageMarker.create(tmp_path) if shared else StorageMarker(str(tmp_path / "elsewhere" / ".seen"))
        actor = TrialActor(marker, {}, os.getpid(), socket.gethostname())
        actors.append(actor)
        task = Assignment(
            context=TuneContext("exp", "id", "trial", str(tmp_path / "trial"), None, None),
            trainable=mltoolkit.put(trainable),
            config={},
            metric=None,
            checkpoint=None,
            progress={},
            checkpoint_index=0,
            checkpoint_frequency=0,
            checkpoint_at_end=False,
            log_files=(None, None),
            change_directory=False,
            reuse=False,
        )
        return actor, actor.begin(task)

    yield begin
    for actor in actors:
        actor.end()


class Saved(tune.Trainable):
    def step(self):
        return {"y": 1}

    def save_checkpoint(self, checkpoint_dir):
        Path(checkpoint_dir, "state").write_text(checkpoint_dir)


def test_a_class_writes_into_the_trials_folder(begin, tmp_path, temporary):
    actor, _ = begin(Saved, shared=True)
    assert actor.save().name == "checkpoint_000000"
    assert actor.save().name == "checkpoint_000001"
    assert sorted(os.listdir(tmp_path / "trial")) == ["checkpoint_000000", "checkpoint_000001"]
    written_to = Path((tmp_path / "trial" / "checkpoint_000001" / "state").read_text())
    assert written_to.parent == tmp_path / "trial"
    assert written_to.name.startswith(".incoming-")
    assert not os.listdir(temporary)


def test_a_class_without_shared_storage_writes_into_scratch(begin, tmp_path, temporary):
    actor, _ = begin(Saved, shared=False)
    saved = actor.save()
    unpack(saved.packed, tmp_path / "received")
    (scratch,) = temporary.iterdir()
    assert Path((tmp_path / "received" / "state").read_text()).parent == scratch
    assert not os.listdir(scratch)
    actor.end()
    assert not os.listdir(temporary)
    assert not os.listdir(tmp_path / "trial")


class FullDisk(Saved):
    def save_checkpoint(self, checkpoint_dir):
        Path(checkpoint_dir, "half").touch()
        raise OSError(28, "No space left on device")


class MissingFile(Saved):
    def save_checkpoint(self, checkpoint_dir):
        Path(checkpoint_dir, "half").touch()
        Path("not there").read_text()


@pytest.mark.parametrize(("trainable", "error"), [(FullDisk, StorageError), (MissingFile, FileNotFoundError)])
def test_a_full_disk_is_the_storages_fault_and_other_errors_the_trials(begin, tmp_path, trainable, error):
    actor, _ = begin(trainable, shared=True)
    with pytest.raises(error):
        actor.save()
    assert not os.listdir(tmp_path / "trial")


def write_checkpoint(text):
    with tune.checkpoint_dir(step=0) as folder:
        Path(folder, "x").write_text(text)


def make_and_return(config):
    write_checkpoint("first")
    write_checkpoint("second")
    return {"y": 1}


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
def test_a_checkpoint_dir_goes_with_the_returned_dict_and_the_last_one_counts(begin, tmp_path, temporary, shared):
    actor, outcome = begin(make_and_return, shared=shared)
    assert outcome.checkpoint.name == "checkpoint_000000"
    kept = tmp_path / "trial" / "checkpoint_000000"
    if not shared:
        unpack(outcome.checkpoint.packed, kept)
    assert (kept / "x").read_text() == "second"
    assert os.listdir(tmp_path / "trial") == ["checkpoint_000000"]
    actor.end()
    assert not os.listdir(temporary)


def make_and_return_nothing(config):
    write_checkpoint("nobody takes it")


def make_and_wait(config):
    tune.report(y=1)
    try:
        tune.report(y=2)
    finally:
        write_checkpoint("made while it is stopped")


@pytest.mark.parametrize("trainable", [make_and_return_nothing, make_and_wait])
def test_a_checkpoint_dir_that_goes_with_no_result_is_removed(begin, tmp_path, temporary, trainable):
    actor, _ = begin(trainable, shared=True)
    actor.end()
    assert not os.listdir(tmp_path / "trial")
    assert not os.listdir(temporary)


def test_a_process_killed_in_save_checkpoint_leaves_nothing(runtime, tmp_path):
    marker = tmp_path / "killed"

    class KilledOnce(tune.Trainable):
        def step(self):
            return {"y": 1, "done": True}

        def save_checkpoint(self, checkpoint_dir):
            if not marker.exists():
                marker.write_text(checkpoint_dir)
                os.kill(os.getpid(), signal.SIGKILL)

        def load_checkpoint(self, checkpoint):
            raise AssertionError("there is none to go on from")

    (result,) = tune.Tuner(
        KilledOnce,
        run_config=tune.RunConfig(
            name="exp",
            storage_path=str(tmp_path),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        ),
    ).fit()
    assert result.error is None
    assert Path(marker.read_text()).parent == Path(result.path)
    assert not list(Path(result.path).glob(".incoming-*"))
    assert Path(result.checkpoint.path).parent == Path(result.path)


def test_scratch_of_a_killed_process_is_removed_by_the_next_one(tmp_path, temporary):
    program = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from mltoolkit.tune.execution._scratch import Scratch\n"
        "scratch = Scratch('/experiment'); print(scratch.folder(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(temporary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        folder = Path(process.stdout.readline().strip())
        next_one, of_another_experiment = Scratch("/experiment"), Scratch("/other")
        next_one.remove_abandoned()
        assert folder.is_dir()  # its process lives
        process.kill()
        process.wait()
        of_another_experiment.remove_abandoned()
        assert folder.is_dir()
        next_one.remove_abandoned()
        assert not folder.exists()


def test_scratch_is_made_once_and_again_after_it_was_removed(temporary):
    scratch = Scratch("/experiment")
    first = scratch.folder()
    assert scratch.folder() == first
    Scratch("/experiment").remove_abandoned()
    assert os.path.isdir(first)
    scratch.remove()
    assert not os.listdir(temporary)
    assert os.path.isdir(scratch.folder())
    scratch.remove()

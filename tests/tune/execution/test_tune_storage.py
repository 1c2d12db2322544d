"""What a sweep keeps on disk beside its journal: complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mltoolkit.train import Checkpoint, CheckpointConfig
from mltoolkit.tune.error import StorageError
from mltoolkit.tune.execution._checkpoint_io import StorageMarker, install
from mltoolkit.tune.execution._messages import SavedCheckpoint
from mltoolkit.tune.execution._storage import TrialStorage
from mltoolkit.tune.execution.history import load_trials
from mltoolkit.tune.execution.journal import read_events
from mltoolkit.tune.experiment.trial import Trial


@pytest.fixture
def storage(tmp_path):
    made = TrialStorage(tmp_path, CheckpointConfig(num_to_keep=1))
    yield made
    made.close()


def a_trial(tmp_path, storage):
    trial = Trial("id", "f", {"x": 1}, experiment_path=tmp_path, dirname="trial")
    storage.note_created(trial)
    return trial


def a_restored_trial(tmp_path):
    """One that this storage has not seen being created."""
    trial = Trial("id", "f", {"x": 1}, experiment_path=tmp_path, dirname="trial")
    Path(trial.path).mkdir()
    return trial


def give(storage, trial, **files):
    """A checkpoint as a trial's process leaves it."""
    name = f"checkpoint_{storage.next_checkpoint_index(trial):06d}"
    folder = Path(trial.path, name)
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text)
    storage.keep_checkpoint(trial, SavedCheckpoint(name))
    return folder


def test_a_checkpoint_is_named_before_the_one_it_replaces_is_deleted(tmp_path, storage):
    trial = a_trial(tmp_path, storage)
    first, second = give(storage, trial, a="1"), give(storage, trial, a="2")
    assert not first.exists()
    assert (second / "a").read_text() == "2"
    assert [e["event"] for e in read_events(tmp_path)] == ["trial", "checkpoint", "checkpoint", "removed"]
    (restored,) = load_trials(tmp_path)
    assert [c.path for c, _ in restored.checkpoints] == [str(second)]


def test_numbers_are_never_used_again(tmp_path, storage):
    trial = a_restored_trial(tmp_path)
    Path(trial.path, "checkpoint_000007").mkdir()  # of a process that died before it was noted down
    Path(trial.path, "checkpoint_other").mkdir()
    assert storage.next_checkpoint_index(trial) == 8
    give(storage, trial)
    assert storage.next_checkpoint_index(trial) == 9


def test_what_killed_processes_left_is_cleared(tmp_path, storage):
    trial = a_restored_trial(tmp_path)
    torn = Path(trial.path, ".incoming-abc")
    torn.mkdir()
    (torn / "large").write_bytes(b"x" * 1000)
    storage.next_checkpoint_index(trial)
    assert not torn.exists()
    old = StorageMarker.create(tmp_path)
    new = StorageMarker.create(tmp_path)
    assert (old.is_visible(), new.is_visible()) == (False, True)
    new.remove()
    new.remove()
    assert not list(tmp_path.glob(".seen-*"))


def test_an_adopted_checkpoint_is_a_copy_that_outlives_its_donor(tmp_path, storage):
    trial = a_trial(tmp_path, storage)
    source = tmp_path / "donor"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a").write_text("1")
    storage.adopt_checkpoint(trial, Checkpoint(str(source)), {"training_iteration": 3, "config": {"not": "kept"}})
    (source / "deep" / "a").unlink()
    assert Path(trial.checkpoint.path, "deep", "a").read_text() == "1"
    (restored,) = load_trials(tmp_path)
    assert restored.checkpoints[-1][1] == {"training_iteration": 3}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("a")
    (source / "sub" / "dangling").symlink_to(tmp_path / "nowhere")
    install(source, target)
    assert (target / "a").read_text() == "a"
    assert (target / "sub" / "dangling").is_symlink()
    (source / "pipe").symlink_to(tmp_path / "nowhere")  # a file that cannot be read
    with pytest.raises(OSError):
        install(source, tmp_path / "deep" / "second")
    assert os.listdir(tmp_path / "deep") == ["target"]


def test_what_cannot_be_written_names_the_place(tmp_path, storage):
    trial = Trial("id", "f", {}, experiment_path=tmp_path, dirname="trial")
    (tmp_path / "trial").touch()
    with pytest.raises(StorageError, match=f"{tmp_path}/trial cannot be written.*Tuner.restore"):
        storage.note_created(trial)

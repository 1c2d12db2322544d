"""Checkpoints: local and remote folders, metadata, the older dicts, and folders that are damaged or gone."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import tempfile
from pathlib import Path

import fsspec
import pytest

from mltoolkit.train import Checkpoint
from mltoolkit.train._trust import UntrustedFileError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "checkpoint_000000"
    (folder / "layers").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"abc")
    (folder / "layers" / "0.bin").write_bytes(b"0")
    return folder


@pytest.fixture
def remote(folder):
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(folder), "/bucket/checkpoint", recursive=True)
    yield "memory://bucket/checkpoint"
    filesystem.rm("/bucket", recursive=True)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


DATA = {"model.bin": b"abc", "layers/0.bin": b"0"}


def test_local_folder_is_used_as_it_is(folder):
    checkpoint = Checkpoint.from_directory(folder)
    with checkpoint.as_directory() as path:
        assert path == str(folder) == checkpoint.path
    assert contents(folder) == DATA
    assert repr(checkpoint) == f"Checkpoint(filesystem=local, path={folder})"
    assert checkpoint.filesystem.cat_file(f"{folder}/model.bin") == b"abc"


def test_relative_paths_stay_valid_when_the_program_moves(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder.parent)
    checkpoint = Checkpoint.from_directory(folder.name)
    monkeypatch.chdir("/")
    assert checkpoint.path == str(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Checkpoint("~/x").path == str(tmp_path / "x")


@pytest.mark.parametrize("given", [str, lambda path: f"file://{path}", Path], ids=["text", "url", "path"])
def test_ways_to_name_a_local_folder(folder, given):
    assert Checkpoint(given(folder)) == Checkpoint.from_directory(folder)


def test_to_directory_copies(folder, tmp_path):
    checkpoint = Checkpoint(folder)
    target = tmp_path / "new" / "deep"
    assert checkpoint.to_directory(target) == str(target)
    assert contents(target) == DATA
    (target / "other").write_bytes(b"kept")
    checkpoint.to_directory(str(target))
    assert contents(target) == DATA | {"other": b"kept"}
    assert checkpoint.to_directory(folder) == str(folder)
    assert contents(folder) == DATA


def test_to_directory_without_a_target(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = Checkpoint(folder).to_directory()
    assert Path(target).parent == tmp_path
    assert contents(target) == DATA


def test_remote_folder_is_copied_for_the_block_alone(remote):
    checkpoint = Checkpoint(remote)
    with checkpoint.as_directory() as path:
        assert contents(path) == DATA
    assert not os.path.exists(path)
    assert repr(checkpoint) == "Checkpoint(filesystem=memory, path=/bucket/checkpoint)"


def test_remote_copy_goes_when_the_block_raises(remote):
    with pytest.raises(ZeroDivisionError), Checkpoint(remote).as_directory() as path:
        raise ZeroDivisionError
    assert not os.path.exists(path)


def test_remote_by_filesystem(remote, tmp_path):
    checkpoint = Checkpoint("/bucket/checkpoint", filesystem=fsspec.filesystem("memory"))
    assert checkpoint == Checkpoint(remote) and hash(checkpoint) == hash(Checkpoint(remote))
    assert checkpoint != Checkpoint("/bucket/checkpoint"), "the same path on another filesystem"
    assert contents(checkpoint.to_directory(tmp_path / "copy")) == DATA
    with pytest.raises(ValueError, match=r"must not be a URL when `filesystem` is given"):
        Checkpoint(remote, filesystem=fsspec.filesystem("memory"))


def test_a_copy_that_breaks_off_leaves_nothing(remote, tmp_path, monkeypatch):
    checkpoint = Checkpoint(remote)
    get_file = checkpoint.filesystem.get_file
    calls = []

    def break_off(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        get_file(source, target)

    monkeypatch.setattr(checkpoint.filesystem, "get_file", break_off)
    target = tmp_path / "copy"
    with pytest.raises(OSError, match="No space left"):
        checkpoint.to_directory(target)
    assert not target.exists()


def test_pyarrows_local_filesystem_is_the_local_disk():
    # pyarrow is not among the dependencies: what counts is where the class comes from and what it calls itself.
    lookalike = type("LocalFileSystem", (), {"type_name": "local", "__module__": "pyarrow._fs"})
    assert Checkpoint("/x", filesystem=lookalike()) == Checkpoint("/x")


def test_local_fsspec_filesystem_is_the_local_disk(folder):
    checkpoint = Checkpoint(folder, filesystem=fsspec.filesystem("file"))
    with checkpoint.as_directory() as path:
        assert path == str(folder)


def test_unknown_filesystems():
    with pytest.raises(TypeError, match="must be one of fsspec or pyarrow, got 3"):
        Checkpoint("/x", filesystem=3)
    with pytest.raises(ValueError, match="Cannot reach the checkpoint at 'nosuch://x/y'.*nosuch"):
        Checkpoint("nosuch://x/y")
    for bad in (None, "", 3):
        with pytest.raises(TypeError, match="must be a folder or a URL"):
            Checkpoint(bad)
    with pytest.raises(ValueError, match=r"takes a local folder, got 'memory://a'. Use `Checkpoint\(path\)`"):
        Checkpoint.from_directory("memory://a")


def test_references_compare_hash_and_pickle(folder, remote):
    for checkpoint in (Checkpoint(folder), Checkpoint(remote)):
        again = pickle.loads(pickle.dumps(checkpoint))
        assert again == checkpoint and len({again, checkpoint}) == 1
        with again.as_directory() as path:
            assert contents(path) == DATA
    assert Checkpoint(folder) != str(folder)
    with pytest.raises(TypeError, match="as_directory"):
        os.fspath(Checkpoint(folder))


@pytest.mark.parametrize("where", ["folder", "remote"])
def test_metadata(where, request):
    checkpoint = Checkpoint(request.getfixturevalue(where))
    assert checkpoint.get_metadata() == {}
    checkpoint.set_metadata({"a": 1, "b": [1, {"c": None}]})
    checkpoint.update_metadata({"a": 2, "d": "text"})
    assert Checkpoint(request.getfixturevalue(where)).get_metadata() == {"a": 2, "b": [1, {"c": None}], "d": "text"}
    checkpoint.set_metadata({"e": 1})
    assert checkpoint.get_metadata() == {"e": 1}
    with checkpoint.as_directory() as path:
        assert sorted(contents(path)) == [".metadata.json", "layers/0.bin", "model.bin"]


def test_metadata_must_be_json(folder):
    checkpoint = Checkpoint(folder)
    checkpoint.set_metadata({"a": 1})
    with pytest.raises(TypeError, match="key 'b' has <object"):
        checkpoint.update_metadata({"b": object()})
    with pytest.raises(TypeError, match=r"`metadata` must be a dict, got \[1\]"):
        checkpoint.set_metadata([1])
    assert checkpoint.get_metadata() == {"a": 1}


@pytest.mark.parametrize("text", ['{"a": ', "[1]", "\xff"])
def test_damaged_metadata(folder, text):
    (folder / ".metadata.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"The metadata of Checkpoint\(.*\) are damaged"):
        Checkpoint(folder).get_metadata()


def test_a_folder_that_is_gone(tmp_path, remote):
    file = tmp_path / "file"
    file.touch()
    gone = [
        (Checkpoint(tmp_path / "gone"), "gone is not there"),
        (Checkpoint(file), "file is not a folder"),
        (Checkpoint("memory://bucket/gone"), "/bucket/gone is not a folder, or not there"),
    ]
    for checkpoint, text in gone:
        for use in (
            checkpoint.to_directory,
            lambda c=checkpoint: c.as_directory().__enter__(),
            checkpoint.get_metadata,
        ):
            with pytest.raises(FileNotFoundError, match=text):
                use()
        with pytest.raises(FileNotFoundError, match=text):
            checkpoint.set_metadata({})


def test_dict_round_trip_and_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = {"epoch": 3, "weights": [1.0, 2.0], "make": lambda: 5}
    checkpoint = Checkpoint.from_dict(data)
    again = checkpoint.to_dict()
    assert (again["epoch"], again["weights"], again["make"]()) == (3, [1.0, 2.0], 5)
    assert len(os.listdir(tmp_path)) == 1
    kept = Checkpoint(checkpoint.to_directory(tmp_path / "kept"))
    del checkpoint
    gc.collect()
    assert os.listdir(tmp_path) == ["kept"]
    assert kept.to_dict()["epoch"] == 3


def test_dict_checkpoint_travels_by_value(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    checkpoint = Checkpoint.from_dict({"epoch": 3})
    sent = pickle.dumps(checkpoint)
    del checkpoint
    gc.collect()
    assert os.listdir(tmp_path) == []
    received = pickle.loads(sent)
    assert received.to_dict() == {"epoch": 3}
    assert pickle.loads(pickle.dumps(received)).to_dict() == {"epoch": 3}
    del received
    gc.collect()
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_fork_leaves_the_folder_of_a_dict_alone():
    checkpoint = Checkpoint.from_dict({"epoch": 3})
    child = os.fork()
    if child == 0:
        del checkpoint
        gc.collect()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert checkpoint.to_dict() == {"epoch": 3}


def test_dict_of_a_remote_checkpoint():
    filesystem = fsspec.filesystem("memory")
    local = Checkpoint.from_dict({"epoch": 4})
    filesystem.put(local.path, "/dicts/a", recursive=True)
    try:
        assert Checkpoint("memory://dicts/a").to_dict() == {"epoch": 4}
    finally:
        filesystem.rm("/dicts", recursive=True)


def test_dict_refuses(folder, tmp_path):
    with pytest.raises(TypeError, match=r"`from_dict` takes a dict, got 3"):
        Checkpoint.from_dict(3)
    with pytest.raises(ValueError, match=r"was not made by `Checkpoint.from_dict`: it holds \['layers', 'model.bin'\]"):
        Checkpoint(folder).to_dict()
    checkpoint = Checkpoint(Checkpoint.from_dict({"a": 1}).to_directory(tmp_path / "dict"))
    file = tmp_path / "dict" / "dict_checkpoint.pkl"
    file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(ValueError, match="dict_checkpoint.pkl is cut off"):
        checkpoint.to_dict()
    file.write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="does not hold a dict, but a list"):
        checkpoint.to_dict()
    file.chmod(0o666)
    with pytest.raises(UntrustedFileError, match="may be written by all users"):
        checkpoint.to_dict()

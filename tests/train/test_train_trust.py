"""Pickles from disk are read only where nobody else could have written them."""

from __future__ import annotations

import os
import pickle
import types

import pytest

from mltoolkit.train import _trust
from mltoolkit.train._trust import UntrustedFileError, dump_pickle, load_pickle

STRANGER = 54321


@pytest.fixture
def seen_as(monkeypatch):
    """Make a file or folder look as if it had another owner, group or mode."""
    check = _trust._check

    def see(path, **changes):
        def check_changed(seen, status, kind):
            fields = {name: getattr(status, name) for name in ("st_uid", "st_gid", "st_mode")}
            if seen == str(path):
                fields.update(changes)
            check(seen, types.SimpleNamespace(**fields), kind)

        monkeypatch.setattr(_trust, "_check", check_changed)

    return see


@pytest.fixture
def file(tmp_path):
    tmp_path.chmod(0o755)
    path = tmp_path / "state.pkl"
    dump_pickle({"a": 1}, path)
    return path


def test_round_trip_is_private_and_leaves_nothing_else(file, tmp_path):
    assert load_pickle(file) == {"a": 1}
    assert file.stat().st_mode & 0o777 == 0o600
    dump_pickle(lambda: 3, file)
    assert load_pickle(str(file))() == 3
    assert os.listdir(tmp_path) == ["state.pkl"]


def test_a_failed_write_keeps_the_old_file(file, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(_trust.os, "replace", full)
        dump_pickle({"a": 2}, file)
    assert load_pickle(file) == {"a": 1}
    assert os.listdir(tmp_path) == ["state.pkl"]


def test_a_pickle_that_is_refused_does_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "payload.pkl"
    path.write_bytes(pickle.dumps(Payload()))
    path.chmod(0o646)
    with pytest.raises(
        UntrustedFileError, match=r"payload.pkl, which belongs to user .*, may be written by all users.*chmod go-w"
    ):
        load_pickle(path)
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_others_may_write(file, tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(UntrustedFileError, match=f"The folder {tmp_path}, .* may be written by all users"):
        load_pickle(file)
    tmp_path.chmod(0o1777)  # as /tmp: others may add files, not replace this one
    assert load_pickle(file) == {"a": 1}


def test_a_link_is_judged_by_where_it_leads(file, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link = elsewhere / "link.pkl"
    link.symlink_to(file)
    assert load_pickle(link) == {"a": 1}
    tmp_path.chmod(0o777)
    with pytest.raises(UntrustedFileError, match=f"The folder {tmp_path},"):
        load_pickle(link)


def test_a_file_of_somebody_else(file, tmp_path, seen_as):
    seen_as(file, st_uid=STRANGER)
    with pytest.raises(UntrustedFileError, match=f"The file {file} belongs to user {STRANGER}, not to .*cp -r"):
        load_pickle(file)


def test_a_folder_of_somebody_else(file, tmp_path, seen_as):
    seen_as(tmp_path, st_uid=STRANGER)
    with pytest.raises(UntrustedFileError, match=f"The folder {tmp_path} belongs to user {STRANGER}"):
        load_pickle(file)


def test_the_superuser_is_trusted(file, seen_as):
    seen_as(file, st_uid=0)
    assert load_pickle(file) == {"a": 1}


@pytest.mark.parametrize(
    ("group", "members", "primary", "trusted"),
    [
        ("ann", [], STRANGER, True),
        ("ann", ["ann"], STRANGER, True),
        ("ann", ["ann", "bob"], STRANGER, False),
        ("staff", [], STRANGER, False),
        ("ann", [], STRANGER + 1, False),
    ],
)
def test_a_group_may_write_if_it_is_the_users_own(file, seen_as, monkeypatch, group, members, primary, trusted):
    import grp
    import pwd

    seen_as(file, st_gid=STRANGER, st_mode=0o100664)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: types.SimpleNamespace(pw_name="ann", pw_gid=primary))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: types.SimpleNamespace(gr_name=group, gr_mem=members))
    if trusted:
        assert load_pickle(file) == {"a": 1}
    else:
        with pytest.raises(UntrustedFileError, match=rf"may be written by group {group} \({STRANGER}\)"):
            load_pickle(file)


@pytest.mark.parametrize("length", [0, 1, 7, -1])
def test_a_torn_file(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"state.pkl is cut off or not a pickle"):
        load_pickle(file)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_pickle(tmp_path / "none.pkl")

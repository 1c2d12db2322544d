"""The journal: what is written comes back, exactly, whatever became of its writer."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import script_env

from mltoolkit import tune
from mltoolkit.tune.error import StorageError, TuneError
from mltoolkit.tune.execution.history import load_trials, read_results
from mltoolkit.tune.execution.journal import FILE_NAME, Journal, decode_config, encode_config, read_events, to_json


@pytest.fixture
def write(tmp_path):
    """Open the journal of the test's folder; closed at the end."""
    opened = []

    def open_journal(folder=tmp_path):
        opened.append(Journal(folder))
        return opened[-1]

    yield open_journal
    for journal in opened:
        journal.close()


def names(folder):
    return [event["event"] for event in read_events(folder)]


def test_events_come_back_in_order_and_are_readable_at_once(tmp_path, write):
    journal = write()
    journal.append("result", trial_id="a", result={"y": 1.5, "deep": {"z": [1, None, True, "ü\n"]}})
    assert next(read_events(tmp_path))["result"] == {"y": 1.5, "deep": {"z": [1, None, True, "ü\n"]}}
    journal.append("end", trial_id="a")
    journal.close()
    journal.close()
    assert names(tmp_path) == ["result", "end"]
    assert os.stat(tmp_path / FILE_NAME).st_mode & 0o077 == 0  # a restored sweep runs what is in it


def test_a_torn_last_line_is_skipped_by_readers_and_cut_off_by_writers(tmp_path, write):
    journal = write()
    journal.append("one")
    journal.append("two", text="x" * 200_000)
    journal.close()
    path = tmp_path / FILE_NAME
    complete = path.stat().st_size
    for torn in (b'{"event": "thr', b'{"event": "three"}', b"x" * 200_000, b"\x00" * 10):
        with open(path, "ab") as file:
            file.write(torn)
        assert names(tmp_path) == ["one", "two"]
        write().close()
        assert path.stat().st_size == complete
    write().append("three")
    assert names(tmp_path) == ["one", "two", "three"]


@pytest.mark.parametrize("content", [b"", b"{", b"no line at all"])
def test_a_file_without_a_whole_line_is_an_empty_journal(tmp_path, content, write):
    (tmp_path / FILE_NAME).write_bytes(content)
    assert names(tmp_path) == []
    journal = write()
    assert journal.position == 0
    journal.append("one")
    assert names(tmp_path) == ["one"]


def test_damaged_lines_in_the_middle_cost_only_themselves(tmp_path, write):
    journal = write()
    journal.append("one")
    with open(journal.path, "ab") as file:
        file.write(b'{"event": "tor\n\n[1, 2]\n"text"\n{"no": "event"}\n\xff\xfe\n' + b"\x00" * 100 + b"\n")
    journal.append("two")
    assert names(tmp_path) == ["one", "two"]


def test_positions_divide_what_a_snapshot_has_seen_from_what_came_later(tmp_path, write):
    journal = write()
    positions = [journal.position]
    for i in range(5):
        journal.append("result", number=i, text="ü" * i)
        positions.append(journal.position)
    for i, position in enumerate(positions):
        assert [e["number"] for e in read_events(tmp_path, 0, position)] == list(range(i))
        assert [e["number"] for e in read_events(tmp_path, position)] == list(range(i, 5))
        for j in range(i, 6):
            assert [e["number"] for e in read_events(tmp_path, position, positions[j])] == list(range(i, j))


EXACT = {
    "tuple": (1, (2, 3)),
    "integer keys": {1: "a", 2: {3: "b"}},
    "infinity": [math.inf, -math.inf],
    "texts": "ü\n\ud800",
    "large": 10**40,
    "true is not one": [True, 1, 1.0, None],
    "set": {1, 2},
    "bytes": b"\x00\xff",
    "complex": 1j,
    "array": np.array([1.5]),
    "empty array": np.array([]),
    "matrix": np.eye(3, dtype=np.float32),
    "numpy scalars": [np.float64(0.5), np.int64(5), np.bool_(True), np.float32(0.1)],
    "empty": [{}, [], (), ""],
}


@pytest.mark.parametrize("value", EXACT.values(), ids=EXACT)
def test_configurations_come_back_exactly(tmp_path, value, write):
    def same(a, b):
        assert type(a) is type(b)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        elif isinstance(a, dict):
            assert list(a) == list(b)
            assert [type(k) for k in a] == [type(k) for k in b]
            for key in a:
                same(a[key], b[key])
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b)
            for x, y in zip(a, b, strict=True):
                same(x, y)
        else:
            assert a == b

    config = {"x": value, "deep": {"er": [value]}}
    journal = write()
    journal.append("trial", trial_id="a", **encode_config(config))
    (event,) = read_events(tmp_path)
    same(decode_config(event, trusted=True), config)
    json.dumps(decode_config(event, trusted=False))  # and a readable form for those who run nothing


def test_not_a_number_and_functions_come_back(tmp_path):
    offset = 3
    config = {"nan": math.nan, "f": lambda x: x + offset, "class": np.float32}
    event = json.loads(to_json({"trial_id": "a", **encode_config(config)}))
    back = decode_config(event, trusted=True)
    assert math.isnan(back["nan"])
    assert back["f"](1) == 4
    assert back["class"] is np.float32
    assert "pickle" not in str(decode_config(event, trusted=False))


def test_tensors_are_readable_and_exact():
    torch = pytest.importorskip("torch")
    config = {"weights": torch.tensor([1.0, 2.0]), "dtype": torch.float32, "many": torch.zeros(5000)}
    event = json.loads(to_json({"trial_id": "a", **encode_config(config)}))
    assert decode_config(event, trusted=False)["weights"] == [1.0, 2.0]
    back = decode_config(event, trusted=True)
    assert torch.equal(back["weights"], config["weights"])
    assert back["dtype"] is torch.float32


def test_plain_configurations_need_no_pickle():
    assert encode_config({"lr": 0.1, "layers": [1, 2], "deep": {"on": True}}).keys() == {"config"}


def test_what_no_file_can_keep_is_said_when_the_sweep_is_restored():
    import threading

    event = {"trial_id": "t7", **encode_config({"lock": threading.Lock()})}
    assert "lock" in decode_config(event, trusted=False)
    with pytest.raises(TuneError, match=r"t7.*with_parameters"):
        decode_config(event, trusted=True)


def test_untrusted_reading_runs_nothing(tmp_path, write):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    journal = write()
    fields = {"trainable": "f", "index": 0, "evaluated_params": {}, "experiment_tag": "0", "dirname": "d"}
    journal.append("trial", trial_id="a", **fields, **encode_config({"bomb": Bomb()}))
    journal.append("result", trial_id="a", result={"y": 1})
    (trial,) = load_trials(tmp_path)
    assert trial.last_result["y"] == 1
    assert read_results(tmp_path) == {"a": [{"y": 1}]}
    assert not (tmp_path / "exploded").exists()


def test_one_writer_at_a_time_and_the_next_one_after_it(tmp_path, write):
    journal = write()
    source = f"from mltoolkit.tune.execution.journal import Journal; Journal({str(tmp_path)!r}).append('other')"
    command = [sys.executable, "-c", source]
    refused = subprocess.run(command, env=script_env(), capture_output=True, text=True, timeout=60)
    assert "TuneError" in refused.stderr
    assert "run by another sweep" in refused.stderr
    with pytest.raises(TuneError, match="run by another sweep"):  # another sweep of the same program as well
        write()
    journal.append("mine")
    journal.close()
    subprocess.run(command, env=script_env(), check=True, timeout=60)
    assert names(tmp_path) == ["mine", "other"]


def test_beginning_anew_keeps_every_earlier_journal(tmp_path, write):
    for i in range(4):
        journal = write()
        journal.begin_anew()
        journal.begin_anew()  # an empty one is not worth keeping
        journal.append("run", number=i)
        os.utime(journal.path, (1, 1))  # all in the same second
        journal.close()
    assert [e["number"] for e in read_events(tmp_path)] == [3]
    older = sorted(tmp_path.glob("experiment_state-*.jsonl"))
    assert [json.loads(path.read_text())["number"] for path in older] == [0, 1, 2]


def test_a_file_that_may_not_grow_stops_the_writer_and_loses_nothing(tmp_path, write):
    source = f"""
import resource, signal
from mltoolkit.tune.error import StorageError
from mltoolkit.tune.execution.journal import Journal

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
journal = Journal({str(tmp_path)!r})
try:
    for i in range(100):
        journal.append("result", number=i, text="x" * 60)
except StorageError as error:
    print(i, error)
"""
    out = subprocess.run(
        [sys.executable, "-c", source], env=script_env(), capture_output=True, text=True, check=True, timeout=60
    ).stdout
    number, _, message = out.partition(" ")
    assert str(tmp_path) in message
    assert "Tuner.restore" in message
    assert (tmp_path / FILE_NAME).stat().st_size == 1000  # a part of the last event was still written
    assert [e["number"] for e in read_events(tmp_path)] == list(range(int(number)))
    write().append("result", number=int(number))
    assert [e["number"] for e in read_events(tmp_path)] == list(range(int(number) + 1))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_named(tmp_path, write):
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device") as caught:
        write().append("one")
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, tune.TuneError)


def test_a_folder_that_is_deleted_or_missing_is_an_error(tmp_path, write):
    folder = tmp_path / "exp"
    with pytest.raises(StorageError, match="exp"):
        write(folder)
    folder.mkdir()
    journal = write(folder)
    journal.append("one")
    shutil.rmtree(folder)
    with pytest.raises(StorageError, match="deleted"):
        journal.append("two")
    with pytest.raises(FileNotFoundError):
        list(read_events(folder))

import csv
import errno
import io
import json
import os
import pickle

import numpy as np
import pytest

from mltoolkit.tune.error import StorageError
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.logger import CSVLoggerCallback, JsonLoggerCallback, LoggerCallback, _files, pretty_print


@pytest.fixture
def trial(tmp_path):
    config = {"lr": 0.1, "model": {"width": 8}}
    return Trial("abc_00000", "train", config, experiment_path=tmp_path, dirname="trial_0")


def report(logger, trial, **metrics):
    logger.on_trial_result(iteration=1, trials=[trial], trial=trial, result={**metrics, "config": trial.config})


def complete(logger, trial):
    logger.on_trial_complete(iteration=1, trials=[trial], trial=trial)


def rows(trial):
    with open(os.path.join(trial.path, "progress.csv"), newline="") as file:
        return list(csv.DictReader(file))


def lines(trial):
    with open(os.path.join(trial.path, "result.json")) as file:
        return [json.loads(line) for line in file]


def test_the_base_class_turns_hooks_into_logs(trial):
    calls = []

    class Recorder(LoggerCallback):
        def log_trial_start(self, trial):
            calls.append("start")

        def log_trial_restore(self, trial):
            calls.append("restore")

        def log_trial_save(self, trial):
            calls.append("save")

        def log_trial_result(self, iteration, trial, result):
            calls.append((iteration, result))

        def log_trial_end(self, trial, failed=False):
            calls.append(failed)

    logger = Recorder()
    info = {"iteration": 3, "trials": [trial], "trial": trial}
    logger.on_trial_start(**info)
    logger.on_trial_restore(**info)
    logger.on_trial_save(**info)
    logger.on_trial_result(**info, result={"loss": 1})
    logger.on_trial_complete(**info)
    logger.on_trial_error(**info)
    assert calls == ["start", "restore", "save", (3, {"loss": 1}), False, True]


def test_csv_has_the_columns_of_the_first_result(trial):
    logger = CSVLoggerCallback()
    report(logger, trial, loss=0.5, nested={"a": 1, "deep": {"b": 2}}, note="one,\n two", training_iteration=1)
    report(logger, trial, loss=0.25, training_iteration=2, later=7)
    complete(logger, trial)
    assert rows(trial) == [
        {"loss": "0.5", "note": "one,\n two", "training_iteration": "1", "nested/a": "1", "nested/deep/b": "2"},
        {"loss": "0.25", "note": "", "training_iteration": "2", "nested/a": "", "nested/deep/b": ""},
    ]


@pytest.mark.parametrize("torn", ["", "0.12", '0.2,"half of a\nquoted no', '0.2,"half of\n'])
def test_csv_goes_on_under_the_header_it_finds(trial, torn):
    logger = CSVLoggerCallback()
    report(logger, trial, loss=0.5, note='a "quoted"\nnote')
    complete(logger, trial)
    with open(os.path.join(trial.path, "progress.csv"), "a") as file:
        file.write(torn)

    resumed = CSVLoggerCallback()
    report(resumed, trial, note="later", loss=0.25, other=1)
    assert rows(trial) == [{"loss": "0.5", "note": 'a "quoted"\nnote'}, {"loss": "0.25", "note": "later"}]


def test_csv_with_half_a_header_begins_anew(trial):
    os.makedirs(trial.path)
    with open(os.path.join(trial.path, "progress.csv"), "w") as file:
        file.write("loss,no")
    report(CSVLoggerCallback(), trial, loss=0.5, note="x")
    assert rows(trial) == [{"loss": "0.5", "note": "x"}]


def test_json_writes_configuration_and_results(trial):
    logger = JsonLoggerCallback()
    logger.on_trial_start(iteration=1, trials=[trial], trial=trial)
    report(logger, trial, loss=0.5, nested={"a": 1})
    report(logger, trial, loss=float("nan"), what=print, array=np.arange(3), scalar=np.float32(0.5), **{"1": {2: 3}})
    complete(logger, trial)

    with open(os.path.join(trial.path, "params.json")) as file:
        assert json.load(file) == trial.config
    with open(os.path.join(trial.path, "params.pkl"), "rb") as file:
        assert pickle.load(file) == trial.config
    first, second = lines(trial)
    assert first == {"loss": 0.5, "nested": {"a": 1}, "config": trial.config}
    assert second["loss"] != second["loss"]
    assert second["what"] == str(print)
    assert second["array"] == [0, 1, 2]
    assert second["scalar"] == 0.5
    assert second["1"] == {"2": 3}


def test_json_takes_keys_and_cycles_that_it_cannot_express(trial):
    cycle = {"a": 1}
    cycle["self"] = cycle
    report(JsonLoggerCallback(), trial, by_pair={(1, 2): "x"}, cycle=cycle)
    assert lines(trial)[0]["by_pair"] == {"(1, 2)": "x"}
    assert lines(trial)[0]["cycle"] == {"a": 1, "self": "..."}


def test_a_configuration_that_cannot_be_pickled_costs_one_file(trial, caplog):
    trial.config = {"stream": io.TextIOWrapper(io.BytesIO())}
    JsonLoggerCallback().log_trial_start(trial)
    assert sorted(os.listdir(trial.path)) == ["params.json"]
    assert "no params.pkl" in caplog.text


def test_json_goes_on_after_a_torn_line(trial):
    logger = JsonLoggerCallback()
    report(logger, trial, step=1)
    complete(logger, trial)
    with open(os.path.join(trial.path, "result.json"), "a") as file:
        file.write('{"step": 2, "lo')
    report(JsonLoggerCallback(), trial, step=2)
    assert [line["step"] for line in lines(trial)] == [1, 2]


def test_a_mutated_configuration_replaces_the_old_one(trial):
    logger = JsonLoggerCallback()
    logger.log_trial_start(trial)
    trial.config = {"lr": 0.2}
    logger.log_trial_start(trial)
    with open(os.path.join(trial.path, "params.json")) as file:
        assert json.load(file) == {"lr": 0.2}
    assert sorted(os.listdir(trial.path)) == ["params.json", "params.pkl"]


@pytest.mark.parametrize("make", [CSVLoggerCallback, JsonLoggerCallback])
def test_few_files_are_open_however_many_trials_live(tmp_path, make):
    logger = make()
    trials = [Trial(f"t_{i:05d}", "train", {}, experiment_path=tmp_path, dirname=f"trial_{i}") for i in range(150)]
    before = len(os.listdir("/proc/self/fd"))
    for step in (1, 2):
        for trial in trials:
            report(logger, trial, step=step)
    assert len(os.listdir("/proc/self/fd")) - before <= 64
    logger.on_experiment_end(trials=trials)
    assert len(os.listdir("/proc/self/fd")) == before
    read = rows if make is CSVLoggerCallback else lines
    assert all([int(entry["step"]) for entry in read(trial)] == [1, 2] for trial in trials)


@pytest.mark.parametrize("make", [CSVLoggerCallback, JsonLoggerCallback])
def test_a_folder_that_is_gone_is_noticed(trial, make):
    logger = make()
    report(logger, trial, loss=1)
    for name in os.listdir(trial.path):
        os.unlink(os.path.join(trial.path, name))
    os.rmdir(trial.path)
    with pytest.raises(StorageError, match=r"Cannot write '.*trial_0.*deleted") as raised:
        report(logger, trial, loss=2)
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize("make", [CSVLoggerCallback, JsonLoggerCallback])
def test_a_folder_that_cannot_be_made_is_an_error_of_storage(trial, make):
    trial.experiment_path.joinpath("trial_0").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="Cannot write"):
        report(make(), trial, loss=1)


@pytest.mark.parametrize("make", [CSVLoggerCallback, JsonLoggerCallback])
def test_a_full_disk_is_an_error_of_storage(trial, make, monkeypatch):
    monkeypatch.setattr(_files.io, "FileIO", lambda path, mode, make=io.FileIO: make("/dev/full", mode))
    with pytest.raises(StorageError, match="No space left on device") as raised:
        report(make(), trial, loss=1)
    assert raised.value.__cause__.errno == errno.ENOSPC


def test_loggers_can_be_pickled_while_files_are_open(trial):
    logger = pickle.loads(pickle.dumps(JsonLoggerCallback()))
    report(logger, trial, step=1)
    copy = pickle.loads(pickle.dumps(logger))
    report(copy, trial, step=2)
    assert [line["step"] for line in lines(trial)] == [1, 2]


def test_pretty_print_is_yaml_without_configuration_and_empty_entries():
    text = pretty_print(
        {"b": {"y": np.float64(1.5), "x": [1, 2]}, "a": None, "config": {"lr": 1}, "hist_stats": {}, "skip": 1},
        exclude={"skip"},
    )
    assert text == "b:\n  x:\n  - 1\n  - 2\n  y: 1.5\n"

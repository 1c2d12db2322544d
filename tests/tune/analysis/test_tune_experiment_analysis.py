"""Experiments read from a journal, from Ray's own files and from memory; the tables are compared with Ray's."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mltoolkit.train import Checkpoint, Result
from mltoolkit.tune.analysis import ExperimentAnalysis
from mltoolkit.tune.error import MissingMetricError, TuneError
from mltoolkit.tune.execution.journal import Journal, encode_config
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.result_grid import ResultGrid

DATA = Path(__file__).parent / "data"
# What Ray 2.60 answered about the experiment in `ray_experiment`, in the process that ran it.
RAY = json.loads((DATA / "ray_tables.json").read_text())


def records(frame):
    return json.loads(frame.to_json(orient="records"))


@pytest.fixture(scope="module")
def ray_made():
    return ExperimentAnalysis(DATA / "ray_experiment", default_metric="loss", default_mode="min")


# ---- Ray's own files


def test_ray_trials(ray_made):
    assert [trial.trial_id for trial in ray_made.trials] == RAY["order"]
    assert [trial.index for trial in ray_made.trials] == [0, 1, 2, 3]
    assert {trial.trial_id: trial.status for trial in ray_made.trials} == RAY["statuses"]
    assert [trial.evaluated_params for trial in ray_made.trials][1] == {"lr": 0.3, "model/h/0": 5}
    assert [trial.experiment_tag for trial in ray_made.trials][3] == "3_lr=0.3000,0=9"
    error = ray_made.trials[2].error
    assert isinstance(error, TuneError) and "ValueError: boom" in str(error)


@pytest.mark.parametrize(("args", "expected"), [((), "df"), (("eval/acc", "max"), "df2")])
def test_ray_dataframe(ray_made, args, expected):
    frame = ray_made.dataframe(*args)
    drawn = "config/model/h/0"  # Ray gives the list alone
    assert [column for column in frame.columns if column != drawn] == RAY["cols"]
    assert {column: str(frame[column].dtype) for column in RAY["cols"]} == RAY["dtypes"]
    assert list(frame[drawn]) == [5, 5, 9, 9]
    assert list(frame["logdir"]) == [trial.path for trial in ray_made.trials]  # Ray 2.60 gives the trial's id
    ours = records(frame.drop(columns=[drawn, "logdir"]))
    assert ours == [{name: value for name, value in row.items() if name != "logdir"} for row in RAY[expected]]


def test_ray_other_tables(ray_made):
    frames = ray_made.trial_dataframes
    assert {name: list(frame.columns) for name, frame in frames.items()} == RAY["tdf"]
    assert [len(frames[name]) for name in RAY["order"]] == [4, 4, 2, 2]
    assert list(frames[RAY["order"][0]]["loss"]) == [1.0, 0.0, 1.0, 4.0]
    results = ray_made.results_df
    assert set(results.columns) == set(RAY["rdf"]) and results.index.name == "trial_id"
    assert records(results.reset_index()) == RAY["results_df"]
    assert set(ray_made.best_result_df.columns) == set(RAY["brdf"])
    assert list(ray_made.best_result_df.index) == [RAY["best"]]
    configs = ray_made.get_all_configs(prefix=True)
    assert {name: {k: v for k, v in c.items() if k != "config/model/h/0"} for name, c in configs.items()} == RAY["cfg"]


def test_ray_best(ray_made):
    assert ray_made.best_trial.trial_id == RAY["best"]
    assert ray_made.get_best_trial("loss", "min", "all").trial_id == RAY["best_all"]
    assert ray_made.get_best_trial("loss", "min", "avg").trial_id == RAY["avg"]
    assert ray_made.best_config == {"lr": 0.3, "model": {"h": [5, 7], "act": "relu"}, "drop": None}
    grid = ResultGrid(ray_made)
    best = grid.get_best_result().get_best_checkpoint("eval/acc", "max")
    assert best.path.endswith(RAY["best_ckpt"])
    assert Path(best.path, "w.txt").read_text() == "3"
    assert (grid.num_errors, grid.num_terminated) == (RAY["nerr"], RAY["nterm"])
    assert len(grid.errors) == len(RAY["errs"])


def test_ray_moments(ray_made):
    stats = ray_made.stats()
    assert stats["start_time"] < stats["timestamp"]
    data = ray_made.runner_data()
    assert data["_metric"] == "loss" and data["_has_errored"] and 0 < data["_total_time"] < 1


@pytest.fixture
def ray_folder(tmp_path):
    return Path(shutil.copytree(DATA / "ray_experiment", tmp_path / "moved"))


def trial_folder(folder, number):
    return next(folder.glob(f"train_fn_*_0000{number}_*"))


def test_ray_without_its_state_file(ray_folder):
    next(ray_folder.glob("experiment_state-*")).unlink()
    analysis = ExperimentAnalysis(ray_folder)
    assert [trial.trial_id for trial in analysis.trials] == RAY["order"]
    assert {trial.trial_id: trial.status for trial in analysis.trials} == RAY["statuses"]
    assert [trial.experiment_tag for trial in analysis.trials][3] == "3_lr=0.3000,0=9"
    assert {trial.trainable_name for trial in analysis.trials} == {"train_fn"}
    assert list(analysis.dataframe().columns) == RAY["cols"]


@pytest.mark.parametrize(
    "text", ["", '{"trial_data": [["{", "{}"]]}', '{"trial_data": [3, ["{}", "{}"]]}', "[]", '{"tria']
)
def test_ray_with_a_damaged_state_file(ray_folder, text):
    next(ray_folder.glob("experiment_state-*")).write_text(text)
    assert [trial.trial_id for trial in ExperimentAnalysis(ray_folder).trials] == RAY["order"]


def test_ray_with_a_torn_last_line(ray_folder):
    file = trial_folder(ray_folder, 0) / "result.json"
    file.write_bytes(file.read_bytes()[:-30])
    frames = ExperimentAnalysis(ray_folder).trial_dataframes
    assert [len(frames[name]) for name in RAY["order"]] == [3, 4, 2, 2]


def test_ray_with_a_damaged_line_says_which(ray_folder, caplog):
    file = trial_folder(ray_folder, 0) / "result.json"
    lines = file.read_text().split("\n")
    file.write_text("\n".join([lines[0], lines[1][:50], *lines[2:]]))
    frame = ExperimentAnalysis(ray_folder).trial_dataframes[RAY["order"][0]]
    assert list(frame["training_iteration"]) == [1, 3, 4]
    [record] = caplog.records
    assert record.getMessage().startswith(f"Line 2 of {file} is damaged and left out")


def test_ray_csv_where_json_is_missing(ray_folder):
    expected = records(ExperimentAnalysis(ray_folder).trial_dataframes[RAY["order"][0]])
    (trial_folder(ray_folder, 0) / "result.json").unlink()
    frame = ExperimentAnalysis(ray_folder).trial_dataframes[RAY["order"][0]]
    rows = [{k: v for k, v in row.items() if not k.startswith(("config", "should", "hist"))} for row in expected]
    assert records(frame[list(rows[0])]) == rows
    assert set(frame.columns) >= {"config/lr", "config/model/h"}


def test_ray_trial_that_never_reported(ray_folder):
    folder = trial_folder(ray_folder, 1)
    for name in ("result.json", "progress.csv"):
        (folder / name).unlink()
    (folder / "result.json").touch()
    analysis = ExperimentAnalysis(ray_folder)
    assert analysis.trial_dataframes[RAY["order"][1]].empty
    assert list(analysis.dataframe()["trial_id"]) == [RAY["order"][number] for number in (0, 2, 3)]


def test_reading_runs_nothing(tmp_path):
    """Pickles lie wherever Ray puts them; each would leave a file behind if it were read."""

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    folder = shutil.copytree(DATA / "ray_experiment", tmp_path / "experiment")
    payload = pickle.dumps(Payload())
    for number in range(4):
        for name in ("params.pkl", "error.pkl"):
            (trial_folder(folder, number) / name).write_bytes(payload)
    state = next(folder.glob("experiment_state-*"))
    text = state.read_text()
    assert "80054e2e" in text
    state.write_text(text.replace("80054e2e", payload.hex()))
    analysis = ExperimentAnalysis(folder, default_metric="loss", default_mode="min")
    grid = ResultGrid(analysis)
    assert len(grid.get_dataframe()) == 4 and len(grid.errors) == 2
    for result in grid:
        Result.from_path(result.path)
    assert not (tmp_path / "ran").exists()


# ---- a journal


def make_trial(journal, number, losses, *, status="TERMINATED"):
    trial_id = f"abc_0000{number}"
    config = {"lr": number / 10, "layers": [number, 3]}
    journal.append(
        "trial",
        trial_id=trial_id,
        trainable="fit",
        index=number,
        evaluated_params={"lr": number / 10, "layers/0": number},
        experiment_tag=f"{number}_lr={number / 10}",
        dirname=f"fit_{trial_id}",
        **encode_config(config),
    )
    journal.append("start", trial_id=trial_id, iteration=0, location="host:1", time=100.0 + number)
    for iteration, loss in enumerate(losses, 1):
        result = {"loss": loss, "eval": {"acc": -loss}, "training_iteration": iteration, "trial_id": trial_id}
        journal.append("result", trial_id=trial_id, result=result)
    if status is not None:
        journal.append("end", trial_id=trial_id, status=status, reason="done", error="boom", time=200.0 + number)
    return trial_id


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    return folder


@pytest.fixture
def journal(folder):
    journal = Journal(folder)
    yield journal
    journal.close()


@pytest.fixture
def stored(folder, journal):
    make_trial(journal, 0, [3.0, 1.0, 2.0])
    make_trial(journal, 1, [9.0, 0.5, 5.0], status="ERROR")
    make_trial(journal, 2, [2.5, 2.5, math.nan])
    make_trial(journal, 3, [])
    for name in ("checkpoint_000000", "checkpoint_000001"):
        path = folder / "fit_abc_00000" / name
        path.mkdir(parents=True)
        (path / "w.txt").write_text(name)
        journal.append(
            "checkpoint",
            trial_id="abc_00000",
            name=name,
            metrics={"loss": 1.0 + int(name[-1]), "training_iteration": int(name[-1])},
        )
    journal.close()
    return folder


def test_journal(stored):
    analysis = ExperimentAnalysis(stored, default_metric="loss", default_mode="min")
    assert [trial.trial_id for trial in analysis.trials] == [f"abc_0000{number}" for number in range(4)]
    assert analysis.experiment_path == str(stored)
    frame = analysis.dataframe()
    assert list(frame["trial_id"]) == ["abc_00000", "abc_00001", "abc_00002"]
    assert list(frame["loss"])[:2] == [2.0, 5.0] and math.isnan(frame["loss"][2])
    assert list(frame["eval/acc"])[:2] == [-2.0, -5.0]
    assert list(frame["config/lr"]) == [0.0, 0.1, 0.2]
    assert list(frame["config/layers"]) == [[0, 3], [1, 3], [2, 3]]
    assert list(frame["config/layers/0"]) == [0, 1, 2]
    assert "config/layers/1" not in frame, "what was not drawn is the same in all trials"
    assert frame["logdir"][1] == str(stored / "fit_abc_00001")


@pytest.mark.parametrize(
    "path", [str, Path, lambda folder: folder / "experiment_state.jsonl", lambda folder: os.path.relpath(folder)]
)
def test_ways_to_name_an_experiment(stored, path):
    assert len(ExperimentAnalysis(path(stored)).trials) == 4


def test_journal_dataframe_of_the_best_results(stored):
    analysis = ExperimentAnalysis(stored)
    assert list(analysis.dataframe("loss", "min")["loss"]) == [1.0, 0.5, 2.5]
    assert list(analysis.dataframe("loss", "max")["training_iteration"]) == [1, 1, 1]
    assert list(analysis.dataframe("eval/acc", "max")["loss"]) == [1.0, 0.5, 2.5]
    assert list(analysis.dataframe("loss")["loss"])[:2] == [2.0, 5.0], "without a mode, the last ones"
    with pytest.raises(ValueError, match="needs a `metric`"):
        analysis.dataframe(mode="min")
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max', got 'low'"):
        analysis.dataframe("loss", "low")
    with pytest.raises(
        MissingMetricError,
        match="No trial reported a number as 'los'. Reported were: eval/acc, loss, training_iteration",
    ):
        analysis.dataframe("los", "min")


def test_journal_trial_dataframes(stored):
    frames = ExperimentAnalysis(stored).trial_dataframes
    assert list(frames) == [f"abc_0000{number}" for number in range(4)]
    assert list(frames["abc_00001"]["loss"]) == [9.0, 0.5, 5.0]
    assert list(frames["abc_00001"]["config/lr"]) == [0.1] * 3
    assert list(frames["abc_00001"]["config/layers"]) == [[1, 3]] * 3
    assert frames["abc_00003"].empty
    assert frames["abc_00001"] is frames["abc_00001"] and len(frames) == 4 and "abc_00004" not in frames
    with pytest.raises(KeyError):
        frames["abc_00004"]


def test_configuration_that_a_scheduler_changed(folder, journal):
    trial_id = make_trial(journal, 0, [3.0, 1.0], status=None)
    journal.append("reset", trial_id=trial_id, experiment_tag="0_x", **encode_config({"lr": 7.0}))
    journal.append("result", trial_id=trial_id, result={"loss": 2.0, "training_iteration": 3})
    make_trial(journal, 1, [3.0])
    analysis = ExperimentAnalysis(folder)
    assert list(analysis.trial_dataframes[trial_id]["config/lr"]) == [0.0, 0.0, 7.0]
    assert list(analysis.dataframe()["config/lr"]) == [7.0, 0.1]
    assert list(analysis.dataframe("loss", "min")["config/lr"]) == [0.0, 0.1], "the one that the best result came from"
    assert list(analysis.dataframe()["config/layers/0"])[1] == 1


@pytest.mark.parametrize(
    ("scope", "mode", "best"),
    [
        ("last", "min", 0),
        ("last", "max", 1),
        ("all", "min", 1),
        ("all", "max", 1),
        ("avg", "min", 0),
        ("avg", "max", 1),
        ("last-5-avg", "min", 0),
        ("last-10-avg", "max", 1),
    ],
)
def test_best_trial(stored, scope, mode, best):
    analysis = ExperimentAnalysis(stored)
    trial = analysis.get_best_trial("loss", mode, scope)
    assert trial is analysis.trials[best]
    assert analysis.get_best_config("loss", mode, scope) == trial.config
    assert analysis.get_best_logdir("loss", mode, scope) == trial.path


def test_best_trial_and_values_that_are_not_finite(folder, journal, caplog):
    for number, loss in enumerate((1.0, -math.inf, math.nan)):
        make_trial(journal, number, [loss])
    analysis = ExperimentAnalysis(folder, default_metric="loss", default_mode="min")
    assert analysis.best_trial is analysis.trials[0]
    assert analysis.get_best_trial(filter_nan_and_inf=False) is analysis.trials[1]
    assert analysis.get_best_trial("accuracy", "max") is None
    assert "No trial reported a finite number as 'accuracy'. Reported were: eval/acc, loss" in caplog.text


def test_best_trial_refuses(stored):
    analysis = ExperimentAnalysis(stored)
    with pytest.raises(ValueError, match="`scope` must be one of 'all', 'last', .*, got 'best'"):
        analysis.get_best_trial("loss", "min", "best")
    with pytest.raises(ValueError, match="No `metric` was given"):
        analysis.get_best_trial(mode="min")
    with pytest.raises(ValueError, match="No `mode` was given"):
        analysis.get_best_trial("loss")
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max', got 'low'"):
        analysis.get_best_trial("loss", "low")
    for name in (
        "best_trial",
        "best_config",
        "best_result",
        "best_logdir",
        "best_checkpoint",
        "best_dataframe",
        "best_result_df",
    ):
        with pytest.raises(ValueError, match=f"`{name}` needs to know what is best"):
            getattr(analysis, name)
    with pytest.raises(ValueError, match="No trial is the best: none reported a finite number as 'los'"):
        _ = ExperimentAnalysis(stored, default_metric="los", default_mode="min").best_trial


def test_mode_alone_stands_for_the_bare_number(folder, journal):
    for number in range(2):
        trial_id = make_trial(journal, number, [])
        journal.append("result", trial_id=trial_id, result={"_metric": float(number), "training_iteration": 1})
    analysis = ExperimentAnalysis(folder, default_mode="max")
    assert analysis.best_trial is analysis.trials[1]


def test_best_properties(stored):
    analysis = ExperimentAnalysis(stored, default_metric="loss", default_mode="min")
    assert analysis.best_trial is analysis.trials[0]
    assert analysis.best_config == {"lr": 0.0, "layers": [0, 3]}
    assert analysis.best_result["loss"] == 2.0
    assert analysis.best_result == analysis.results["abc_00000"]
    assert analysis.best_logdir == str(stored / "fit_abc_00000")
    assert list(analysis.best_dataframe["loss"]) == [3.0, 1.0, 2.0]
    assert analysis.best_result_df.loc["abc_00000", "config/lr"] == 0.0
    assert list(analysis.results_df.index) == ["abc_00000", "abc_00001", "abc_00002"]


def test_checkpoints(stored, caplog):
    analysis = ExperimentAnalysis(stored, default_metric="loss", default_mode="min")
    trial = analysis.trials[0]
    first, last = (Checkpoint(stored / "fit_abc_00000" / f"checkpoint_00000{number}") for number in (0, 1))
    assert analysis.best_checkpoint == first
    for named in (trial, trial.trial_id, trial.path):
        assert analysis.get_best_checkpoint(named) == first
        assert analysis.get_best_checkpoint(named, mode="max") == last
        assert analysis.get_last_checkpoint(named) == last
        assert analysis.get_trial_checkpoints_paths(named) == [(first.path, 1.0), (last.path, 2.0)]
        assert analysis.get_trial_checkpoints_paths(named, "none") == [(first.path, None), (last.path, None)]
    assert analysis.get_last_checkpoint() == last
    assert analysis.get_best_checkpoint(trial, "none") is None
    assert "has no checkpoint that was reported with a number for 'none'" in caplog.text
    assert analysis.get_best_checkpoint(analysis.trials[1]) is None
    assert analysis.get_last_checkpoint(analysis.trials[1]) is None
    with pytest.raises(ValueError, match="There is no trial 'abc'"):
        analysis.get_best_checkpoint("abc")


def test_a_moved_experiment(stored, tmp_path):
    moved = shutil.move(stored, tmp_path / "elsewhere")
    analysis = ExperimentAnalysis(moved, default_metric="loss", default_mode="min")
    with analysis.best_checkpoint.as_directory() as path:
        assert Path(path, "w.txt").read_text() == "checkpoint_000000"


def test_no_experiment(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone is not a folder. Give the folder `<storage_path>/<name>`"):
        ExperimentAnalysis(tmp_path / "gone")
    with pytest.raises(
        FileNotFoundError, match="holds no experiment: neither experiment_state.jsonl nor folders of trials"
    ):
        ExperimentAnalysis(tmp_path)
    with pytest.raises(ValueError, match="needs the folder of an experiment, or its `trials`"):
        ExperimentAnalysis()
    with pytest.raises(ValueError, match="`default_mode` must be 'min' or 'max', got 'low'"):
        ExperimentAnalysis(tmp_path, default_mode="low")
    with pytest.raises(NotImplementedError, match="`remote_storage_path='s3://x'` is not supported"):
        ExperimentAnalysis(tmp_path, remote_storage_path="s3://x")


def test_analysis_pickles(stored):
    analysis = ExperimentAnalysis(stored, default_metric="loss", default_mode="min")
    again = pickle.loads(pickle.dumps(analysis))
    assert again.best_config == analysis.best_config
    assert records(again.dataframe()) == records(analysis.dataframe())
    assert repr(again) == f"ExperimentAnalysis(4 trials, path={str(stored)!r})"


# ---- memory


def in_memory(*histories):
    trials = []
    for number, losses in enumerate(histories):
        trial = Trial(f"t{number}", "fit", {"lr": number}, status=Trial.TERMINATED)
        for loss in losses:
            trial.update_last_result({"loss": loss, "trial_id": trial.trial_id, "config": trial.config})
        trials.append(trial)
    return trials


def test_memory_has_the_last_results():
    analysis = ExperimentAnalysis(trials=in_memory([3.0, 2.0], [1.0], []), default_metric="loss", default_mode="min")
    assert analysis.best_config == {"lr": 1}
    assert analysis.experiment_path is None
    assert records(analysis.dataframe()) == [
        {"loss": 2.0, "trial_id": "t0", "config/lr": 0, "logdir": None},
        {"loss": 1.0, "trial_id": "t1", "config/lr": 1, "logdir": None},
    ]
    assert list(analysis.trial_dataframes["t0"]["loss"]) == [2.0]
    assert analysis.get_best_trial(scope="avg") is analysis.trials[1]


def test_memory_gives_earlier_results_only_where_they_are_the_last():
    analysis = ExperimentAnalysis(trials=in_memory([3.0, 2.0], [1.0], []))
    assert list(analysis.dataframe("loss", "min")["loss"]) == [2.0, 1.0]
    with pytest.raises(
        ValueError, match=r"kept in memory, with last results alone: the best one of trial fit_t0 came before"
    ):
        analysis.dataframe("loss", "max")


def test_pandas_is_loaded_with_the_first_table_only(stored):
    script = (
        "import sys; from mltoolkit.tune.analysis import ExperimentAnalysis; from mltoolkit.tune.result_grid import ResultGrid\n"
        f"grid = ResultGrid(ExperimentAnalysis({str(stored)!r})); grid.get_best_result('loss', 'min')\n"
        "print('pandas' in sys.modules, 'fsspec' in sys.modules, 'numpy' in sys.modules)\n"
        "sys.modules['pandas'] = None\n"
        "try: grid.get_dataframe()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "False False False"
    assert second == 'A dataframe of results needs pandas, which is not installed. Run `pip install "mltoolkit[tune]"`.'

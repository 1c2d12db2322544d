"""Result and ResultGrid."""

from __future__ import annotations

import math
import pickle

import pytest

from mltoolkit.train import Checkpoint, Result
from mltoolkit.tune.analysis import ExperimentAnalysis
from mltoolkit.tune.error import TuneError
from mltoolkit.tune.execution.journal import Journal, encode_config
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.result_grid import ResultGrid

LOSSES = {"a": [3.0, 1.0], "b": [4.0, 0.5, 2.0], "c": [math.nan]}


@pytest.fixture
def folder(tmp_path):
    journal = Journal(tmp_path)
    for index, (trial_id, losses) in enumerate(LOSSES.items()):
        fields = {
            "trainable": "fit",
            "index": index,
            "evaluated_params": {"lr": index},
            "experiment_tag": f"{index}_lr={index}",
        }
        journal.append("trial", trial_id=trial_id, dirname=f"fit_{trial_id}", **fields, **encode_config({"lr": index}))
        (tmp_path / f"fit_{trial_id}").mkdir()
        for iteration, loss in enumerate(losses, 1):
            result = {"loss": loss, "eval": {"acc": -loss}, "training_iteration": iteration, "trial_id": trial_id}
            journal.append("result", trial_id=trial_id, result=result)
            name = f"checkpoint_{iteration:06d}"
            (tmp_path / f"fit_{trial_id}" / name).mkdir()
            journal.append("checkpoint", trial_id=trial_id, name=name, metrics=result)
        status = "ERROR" if trial_id == "b" else "TERMINATED"
        journal.append("end", trial_id=trial_id, status=status, reason="done", error="boom", time=1.0)
    journal.close()
    return tmp_path


@pytest.fixture
def grid(folder):
    return ResultGrid(ExperimentAnalysis(folder, default_metric="loss", default_mode="min"))


def test_sequence(grid, folder):
    assert len(grid) == 3
    assert [result.config for result in grid] == [{"lr": 0}, {"lr": 1}, {"lr": 2}]
    assert grid[-1] is grid[2] and grid[:2] == [grid[0], grid[1]]
    with pytest.raises(IndexError):
        grid[3]
    assert grid.experiment_path == str(folder)
    assert grid.filesystem.exists(grid[0].path)


def test_results(grid, folder):
    result = grid[1]
    assert result.metrics["loss"] == 2.0 and result.metrics["training_iteration"] == 3
    assert result.path == str(folder / "fit_b")
    assert result.checkpoint == Checkpoint(folder / "fit_b" / "checkpoint_000003")
    assert [metrics["loss"] for _, metrics in result.best_checkpoints] == [4.0, 0.5, 2.0]
    assert list(result.metrics_dataframe["loss"]) == [4.0, 0.5, 2.0]
    assert list(result.metrics_dataframe["config/lr"]) == [1] * 3
    assert result.filesystem.exists(result.checkpoint.path)


def test_errors(grid):
    assert (grid.num_errors, grid.num_terminated) == (1, 2)
    [error] = grid.errors
    assert isinstance(error, TuneError) and "boom" in str(error)
    assert [result.error is None for result in grid] == [True, False, True]


@pytest.mark.parametrize(
    ("args", "best"),
    [
        ({}, "a"),
        ({"mode": "max"}, "b"),
        ({"scope": "all"}, "b"),
        ({"scope": "avg"}, "a"),
        ({"metric": "eval/acc", "mode": "max"}, "a"),
        ({"metric": "training_iteration", "mode": "max"}, "b"),
    ],
)
def test_best_result(grid, args, best):
    assert grid.get_best_result(**args).metrics["trial_id"] == best


def test_best_result_refuses(grid, folder):
    with pytest.raises(
        RuntimeError,
        match=r"none reported a finite number as 'accuracy'. Reported were: eval/acc, loss.*filter_nan_and_inf=False",
    ):
        grid.get_best_result("accuracy", "max")
    plain = ResultGrid(ExperimentAnalysis(folder))
    with pytest.raises(ValueError, match="No `metric` was given"):
        plain.get_best_result(mode="min")
    with pytest.raises(ValueError, match="No `mode` was given"):
        plain.get_best_result("loss")


def test_the_only_trial_is_the_best():
    trial = Trial("a", "fit", {"lr": 1}, status=Trial.TERMINATED)
    grid = ResultGrid(ExperimentAnalysis(trials=[trial]))
    assert grid.get_best_result() is grid[0]


def test_dataframes(grid):
    assert list(grid.get_dataframe()["loss"])[:2] == [1.0, 2.0]
    assert list(grid.get_dataframe(filter_metric="loss", filter_mode="min")["loss"])[:2] == [1.0, 0.5]


def test_memory():
    trial = Trial("a", "fit", {"lr": 1}, status=Trial.RUNNING)
    trial.update_last_result({"loss": 1.0, "config": trial.config})
    trial.error = ValueError("x")
    grid = ResultGrid(ExperimentAnalysis(trials=[trial]))
    assert grid.experiment_path is None and grid[0].path is None
    assert (grid.num_errors, grid.num_terminated) == (0, 0)
    assert grid[0].config == {"lr": 1} and grid[0].checkpoint is None
    grid[0].metrics["loss"] = 2.0
    assert trial.last_result["loss"] == 1.0


def test_best_checkpoint(grid):
    result = grid[1]
    assert result.get_best_checkpoint("loss", "min").path.endswith("checkpoint_000002")
    assert result.get_best_checkpoint("eval/acc", "min").path.endswith("checkpoint_000001")
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max', got 'low'"):
        result.get_best_checkpoint("loss", "low")
    with pytest.raises(
        RuntimeError, match="with the metric 'accuracy'. There are: eval, loss, training_iteration, trial_id"
    ):
        result.get_best_checkpoint("accuracy", "max")
    with pytest.raises(RuntimeError, match="with the metric 'loss'"):
        grid[2].get_best_checkpoint("loss", "max")
    with pytest.raises(RuntimeError, match="No checkpoint was kept"):
        Result({"loss": 1.0}).get_best_checkpoint("loss", "max")


def test_representation(grid, folder):
    folder_of_a = folder / "fit_a"
    assert repr(grid[0]) == (
        "Result(\n"
        "  metrics={'loss': 1.0, 'eval': {'acc': -1.0}},\n"
        f"  path={str(folder_of_a)!r},\n"
        f"  checkpoint=Checkpoint(filesystem=local, path={folder_of_a / 'checkpoint_000002'})\n"
        ")"
    )
    assert "  error='TuneError',\n  metrics=" in repr(grid[1])
    assert repr(grid).startswith("ResultGrid<[\n  Result(\n    metrics=") and repr(grid).endswith("\n  )\n]>")


def test_a_pickled_result_brings_its_own_results_alone(grid):
    result = grid[1]
    sent = pickle.dumps(result)
    assert b"fit_a" not in sent
    again = pickle.loads(sent)
    assert list(again.metrics_dataframe["loss"]) == [4.0, 0.5, 2.0]
    assert again.metrics == result.metrics and again.checkpoint == result.checkpoint


def test_from_path_of_a_journal(grid, folder):
    result = Result.from_path(folder / "fit_b")
    assert result.metrics == grid[1].metrics and result.config == {"lr": 1}
    assert isinstance(result.error, TuneError)
    assert list(result.metrics_dataframe["loss"]) == [4.0, 0.5, 2.0]
    assert result.get_best_checkpoint("loss", "min").path.endswith("fit_b/checkpoint_000002")


def test_from_path_of_a_folder_alone(tmp_path):
    folder = tmp_path / "trial"
    (folder / "checkpoint_000000").mkdir(parents=True)
    (folder / "params.json").write_text('{"lr": 0.5}')
    (folder / "progress.csv").write_text(
        "loss,checkpoint_dir_name,eval/acc,done\n3.0,,0.1,False\n1.0,checkpoint_000000,nan,True\n"
    )
    result = Result.from_path(str(folder))
    assert result.metrics["loss"] == 1.0 and result.metrics["done"] is True and math.isnan(result.metrics["eval/acc"])
    assert result.config == {"lr": 0.5} and result.error is None
    assert result.get_best_checkpoint("loss", "min") == Checkpoint(folder / "checkpoint_000000") == result.checkpoint
    assert list(result.metrics_dataframe["loss"]) == [3.0, 1.0]
    (folder / "error.txt").write_text("Traceback ...\nValueError: boom")
    assert "ValueError: boom" in str(Result.from_path(folder).error)


def test_from_path_refuses(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"No results of a trial: .*gone is not there; a trial's folder holds result.json or"
    ):
        Result.from_path(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"holds neither result.json nor progress.csv"):
        Result.from_path(tmp_path)
    with pytest.raises(NotImplementedError, match="`storage_filesystem="):
        Result.from_path(tmp_path, storage_filesystem="s3")

"""Results of an algorithm by itself as CSV, JSON and TensorBoard events."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from mltoolkit.rllib.utils.result_logging import ResultLog
from mltoolkit.tune.error import StorageError


def rows(folder):
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def lines(folder):
    return [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]


def result(iteration, **more):
    return {
        "training_iteration": iteration,
        "timesteps_total": 100 * iteration,
        "env_runners": {"episode_return_mean": float(iteration)},
        "hist_stats": {"episode_reward": [1.0, 2.0]},
        "config": {"lr": 0.1},
        **more,
    }


def test_every_format_is_written(tmp_path):
    folder = tmp_path / "new" / "run"
    with ResultLog(folder, {"lr": 0.1, "model": {"fcnet_hiddens": [8, 8]}}) as log:
        log.write(result(1, loss=np.float32(0.5)))
        log.write(result(2, loss=np.float32(0.25)))
    assert [row["env_runners/episode_return_mean"] for row in rows(folder)] == ["1.0", "2.0"]
    assert [line["loss"] for line in lines(folder)] == [0.5, 0.25]
    assert "config" not in lines(folder)[0]
    assert json.loads((folder / "params.json").read_text())["model"] == {"fcnet_hiddens": [8, 8]}
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_metrics_are_scalars_of_tensorboard(tmp_path):
    with ResultLog(tmp_path, {}) as log:
        log.write(result(3))
    data = next(tmp_path.glob("events.out.tfevents.*")).read_bytes()
    assert b"ray/tune/env_runners/episode_return_mean" in data and b"ray/tune/hist_stats/episode_reward" in data


def test_columns_that_come_later_are_added(tmp_path):
    with ResultLog(tmp_path, {}) as log:
        log.write(result(1, note='said "a,\nb"'))
        log.write(result(2))
        log.write(result(3, evaluation={"episode_reward_mean": 7.0}))
        log.write(result(4))
        log.write(result(5, evaluation={"episode_reward_mean": 8.0}, other=1))
    table = rows(tmp_path)
    assert [row["evaluation/episode_reward_mean"] for row in table] == ["", "", "7.0", "", "8.0"]
    assert [row["note"] for row in table] == ['said "a,\nb"', "", "", "", ""]
    assert [row["training_iteration"] for row in table] == ["1", "2", "3", "4", "5"]
    assert table[-1]["other"] == "1" and None not in table[0]


def test_a_folder_is_continued(tmp_path):
    for iteration in (1, 2, 3):
        with ResultLog(tmp_path, {}) as log:
            log.write(result(iteration, **({"extra": 1} if iteration == 2 else {})))
    assert [row["training_iteration"] for row in rows(tmp_path)] == ["1", "2", "3"]
    assert [row["extra"] for row in rows(tmp_path)] == ["", "1", ""]
    assert len(lines(tmp_path)) == 3


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"`log_dir` must be a folder that can be written, got '.*file/run'"):
        ResultLog(tmp_path / "file" / "run", {})


def test_closing_twice_is_harmless(tmp_path):
    log = ResultLog(tmp_path, {})
    log.write(result(1))
    log.close()
    log.close()

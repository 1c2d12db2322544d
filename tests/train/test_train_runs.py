"""What comes back from a run, where its workers work, and runs that go on where one has ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mltoolkit import train, tune
from mltoolkit.train import DataParallelTrainer, collective

HALF = {"CPU": 0.5}


def make(loop, folder, workers=2, run=None, **options):
    return DataParallelTrainer(
        loop,
        scaling_config=train.ScalingConfig(num_workers=workers, resources_per_worker=HALF),
        run_config=train.RunConfig(storage_path=folder, verbose=0, **(run or {})),
        **options,
    )


def test_rank_zero_s_return_value_comes_back(runtime, tmp_path):
    def loop():
        return {"rank": train.get_context().get_world_rank(), "large": b"x" * 300_000}

    result = make(loop, tmp_path).fit()
    assert result.return_value["rank"] == 0 and len(result.return_value["large"]) == 300_000
    assert make(lambda: None, tmp_path).fit().return_value is None
    assert make(lambda: 7, tmp_path, workers=0).fit().return_value == 7
    with pytest.raises(train.TrainingFailedError, match="lock"):
        make(lambda: __import__("threading").Lock(), tmp_path).fit()


def test_workers_are_in_the_folder_of_their_trial(runtime, tmp_path, monkeypatch):
    def loop(config):
        Path(f"model-{train.get_context().get_world_rank()}").write_text(str(config["x"]))
        collective.barrier()
        train.report({"x": config["x"]}, train.Checkpoint(os.getcwd()))

    results = tune.Tuner(make(loop, tmp_path), param_space={"train_loop_config": {"x": tune.grid_search([1, 2])}}).fit()
    for result in results:
        for rank in range(2):
            assert Path(result.path, f"model-{rank}").read_text() == str(result.metrics["x"])
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    assert make(os.getcwd, tmp_path).fit().return_value == os.getcwd()


def test_context_knows_where_the_run_is_kept(runtime, tmp_path):
    def loop():
        storage = train.get_context().get_storage()
        assert storage.storage_filesystem.isdir(storage.trial_fs_path) and os.path.samefile(
            storage.local_working_directory, storage.trial_fs_path if config["workers"] else "."
        )
        return storage.experiment_fs_path, storage.trial_fs_path

    for workers in (2, 0):
        config = {"workers": workers}
        result = make(loop, tmp_path, workers=workers, run={"name": f"kept-{workers}"}).fit()
        assert result.return_value == (str(tmp_path / f"kept-{workers}"), result.path)


def test_without_workers_checkpoints_are_kept_as_told(tmp_path):
    def loop():
        for step, score in enumerate([5, 1, 9, 2]):
            folder = tmp_path / "made"
            folder.mkdir(exist_ok=True)
            (folder / "step").write_text(str(step))
            train.report({"score": score}, train.Checkpoint(folder))

    kept = train.CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="score")
    result = make(loop, tmp_path, workers=0, run={"checkpoint_config": kept}).fit()
    assert Path(result.checkpoint.path, "step").read_text() == "3", "the latest one stays"
    assert Path(result.get_best_checkpoint("score", "max").path, "step").read_text() == "2"
    assert len(list(Path(result.path).glob("checkpoint_*"))) == len(result.best_checkpoints) <= 3
    with pytest.raises(NotImplementedError, match=r"`RunConfig\.stop` is not supported with `num_workers=0`"):
        make(loop, tmp_path, workers=0, run={"stop": {"score": 3}}).fit()


def test_ranks_meet_and_hear_from_rank_zero(runtime, tmp_path):
    def loop():
        rank = train.get_context().get_world_rank()
        first = collective.broadcast_from_rank_zero({"from": rank})
        train.report({"heard": first["from"]})
        collective.barrier()
        return collective.broadcast_from_rank_zero(f"rank {rank}")

    result = make(loop, tmp_path).fit()
    assert (
        result.return_value == "rank 0" and result.metrics["heard"] == 0 and result.metrics["training_iteration"] == 1
    )
    assert make(loop, tmp_path, workers=0).fit().return_value == "rank 0"

    def apart():
        if train.get_context().get_world_rank():
            collective.barrier()
        else:
            train.report({"x": 1})

    with pytest.raises(train.WorkerGroupError, match="(?s)Rank 1 of 2.*but rank 0 has called `train.report`"):
        make(apart, tmp_path).fit()
    with pytest.raises(RuntimeError, match="only in the training function"):
        collective.barrier()


def counting(config):
    """Counts to `until`, from where the checkpoint stands; fails at `fails_at`."""
    checkpoint, start = train.get_checkpoint(), 0
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = int(Path(folder, "step").read_text()) + 1
    for step in range(start, config["until"]):
        if step == config.get("fails_at"):
            raise ValueError("on purpose")
        if train.get_context().get_world_rank() == 0:
            Path("own").mkdir(exist_ok=True)
            Path("own", "step").write_text(str(step))
            train.report({"step": step}, train.Checkpoint("own"))
        else:
            train.report({"step": step})
    return start


def test_a_run_of_the_same_name_goes_on(runtime, tmp_path, caplog):
    named = {"run": {"name": "again"}}
    with pytest.raises(train.TrainingFailedError, match="on purpose"):
        make(counting, tmp_path, train_loop_config={"until": 4, "fails_at": 2}, **named).fit()
    second = make(counting, tmp_path, train_loop_config={"until": 4}, **named).fit()
    assert second.return_value == 2 and second.metrics["step"] == 3
    assert "The run 'again' goes on from" in caplog.text
    third = make(counting, tmp_path, train_loop_config={"until": 4}, **named).fit()
    assert third.return_value == 4 and third.checkpoint == second.checkpoint
    anew = make(counting, tmp_path, train_loop_config={"until": 4}, run={"name": "other"}).fit()
    assert anew.return_value == 0
    chosen = make(
        counting, tmp_path, train_loop_config={"until": 4}, resume_from_checkpoint=anew.best_checkpoints[0][0], **named
    )
    assert chosen.fit().return_value == 1


def test_a_trainer_is_restored(runtime, tmp_path):
    assert not DataParallelTrainer.can_restore(tmp_path / "kept")
    with pytest.raises(train.TrainingFailedError):
        make(counting, tmp_path, train_loop_config={"until": 3, "fails_at": 1}, run={"name": "kept"}).fit()
    assert DataParallelTrainer.can_restore(tmp_path / "kept")
    again = DataParallelTrainer.restore(tmp_path / "kept", train_loop_config={"until": 3})
    result = again.fit()
    assert result.return_value == 1 and result.metrics["step"] == 2
    assert os.path.dirname(result.path) == str(tmp_path / "kept")
    with pytest.raises(TypeError, match="no argument `train_loop_conf`"):
        DataParallelTrainer.restore(tmp_path / "kept", train_loop_conf={})
    with pytest.raises(FileNotFoundError):
        DataParallelTrainer.restore(tmp_path / "nothing")


def test_environment_of_workers(runtime, tmp_path):
    run = {"worker_runtime_env": {"env_vars": {"OF_WORKERS": "set"}}}
    assert make(lambda: os.environ["OF_WORKERS"], tmp_path, run=run).fit().return_value == "set"
    with pytest.raises(TypeError, match="worker_runtime_env"):
        train.RunConfig(worker_runtime_env=3)


def test_callbacks_hear_of_all_ranks(runtime, tmp_path):
    class Log(train.UserCallback):
        def after_report(self, run_context, metrics, checkpoint):
            with open(tmp_path / "log", "a") as file:
                file.write(
                    f"{run_context.get_run_config().name} {[m['rank'] for m in metrics]} {checkpoint is not None}\n"
                )

        def after_exception(self, run_context, worker_exceptions):
            with open(tmp_path / "log", "a") as file:
                file.write(f"{run_context.train_loop_config} {worker_exceptions}\n")

    def loop(config):
        rank = train.get_context().get_world_rank()
        train.report({"rank": rank})
        train.report({"rank": rank}, train.Checkpoint(os.getcwd()) if rank == 1 else None)
        if rank == 1:
            raise ValueError("heard")
        collective.barrier()

    with pytest.raises(train.WorkerGroupError):
        make(loop, tmp_path, train_loop_config={"a": 1}, run={"name": "loud", "callbacks": [Log()]}).fit()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == ["loud [0, 1] False", "loud [0, 1] True", "{'a': 1} {1: ValueError('heard')}"]


def test_trial_that_starts_a_trainer_has_its_reports(runtime, tmp_path):
    from mltoolkit.tune.integration.ray_train import TuneReportCallback

    def trial(config):
        run = {"callbacks": [TuneReportCallback()]}
        return {"last": make(counting, tmp_path / "inner", train_loop_config=config, run=run).fit().return_value}

    tuner = tune.Tuner(
        trial, param_space={"until": 3}, run_config=tune.RunConfig(storage_path=tmp_path / "outer", verbose=0)
    )
    (result,) = tuner.fit()
    assert result.error is None and result.metrics["last"] == 0
    reported = result.metrics_dataframe[:3]
    assert reported["step"].tolist() == [0, 1, 2] and reported["training_iteration"].tolist() == [1, 2, 3]
    assert [Path(path).name for path in reported["checkpoint_path"]] == [f"checkpoint_00000{n}" for n in range(3)]
    with pytest.raises(RuntimeError, match="in the function of a trial"):
        TuneReportCallback()


def test_what_only_the_program_can_have_stays_there(runtime, tmp_path):
    import threading

    class Counting(tune.Callback):
        def __init__(self):
            self.lock, self.results = threading.Lock(), 0

        def on_trial_result(self, iteration, trials, trial, result, **info):
            self.results += 1

    callback = Counting()
    make(lambda: train.report({"x": 1}), tmp_path, run={"callbacks": [callback]}).fit()
    assert callback.results == 1

"""Trainers: workers with ranks and data, reports together, checkpoints of all ranks, failures, sweeps."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import mltoolkit
from mltoolkit import train, tune
from mltoolkit.train import DataParallelTrainer
from mltoolkit.train.backend import Backend, BackendConfig

HALF = {"CPU": 0.5}


@pytest.fixture
def run_config(tmp_path):
    def make(**options):
        return train.RunConfig(storage_path=tmp_path, verbose=0, **options)

    return make


def fit(make_run_config, loop, workers=2, **options):
    scaling = train.ScalingConfig(num_workers=workers, resources_per_worker=HALF)
    options.setdefault("run_config", make_run_config())
    return DataParallelTrainer(loop, scaling_config=scaling, **options).fit()


def test_reports_checkpoints_data_and_context(runtime, run_config):
    def loop(config):
        context = train.get_context()
        rank = context.get_world_rank()
        for step in range(2):
            folder = Path(os.getcwd()) / f"made-{os.getpid()}"
            (folder / "deep").mkdir(parents=True, exist_ok=True)
            (folder / f"rank{rank}").write_text(str(step))
            (folder / "deep" / "all").write_text(f"{rank} {step}")
            checkpoint = train.Checkpoint(folder) if step else None
            train.report(
                {
                    "step": step,
                    "rank": rank,
                    "sizes": [context.get_world_size(), context.get_local_world_size(), context.get_node_rank()],
                    "rows": list(train.get_dataset_shard("train")),
                    "all": train.get_dataset_shard("valid"),
                    "lr": config["lr"],
                    "about": context.get_metadata()["about"],
                },
                checkpoint=checkpoint,
            )
            for file in folder.rglob("*"):
                if file.is_file():
                    file.unlink()
        train.report({"last": train.get_checkpoint() is not None, "rank": rank})

    result = fit(
        run_config,
        loop,
        train_loop_config={"lr": 0.5},
        datasets={"train": [1, 2, 3, 4, 5], "valid": [7]},
        dataset_config=train.DataConfig(datasets_to_split=["train"]),
        metadata={"about": "test"},
    )
    frame = result.metrics_dataframe
    assert frame["rank"].tolist() == [0, 0, 0] and frame["step"].tolist()[:2] == [0, 1]
    assert frame["rows"][0] == [1, 2] and frame["all"][0] == [7] and frame["sizes"][0] == [2, 2, 0]
    assert result.metrics["last"] is True and frame["lr"][0] == 0.5 and frame["about"][0] == "test"
    with result.checkpoint.as_directory() as folder:
        assert sorted(os.listdir(folder)) == ["deep", "rank0", "rank1"]
        assert Path(folder, "deep", "all").read_text() == "0 1", "rank 0's file wins"
    assert [name for name in os.listdir(result.path) if name.startswith(".")] == []
    again = train.Result.from_path(result.path)
    assert again.checkpoint == result.checkpoint and again.metrics["last"] is True


def test_an_exception_on_one_rank_ends_all(runtime, run_config, tally):
    log = tally()

    def loop():
        import time

        rank = train.get_context().get_world_rank()
        log.add(os.getpid())
        if rank == 1:
            raise ZeroDivisionError("only here")
        time.sleep(60)

    with pytest.raises(train.TrainingFailedError) as caught:
        fit(run_config, loop)
    error = caught.value
    assert isinstance(error, train.WorkerGroupError) and list(error.worker_failures) == [1]
    assert "Rank 1 of 2" in str(error) and "ZeroDivisionError: only here" in str(error) and "in loop" in str(error)
    assert isinstance(error.__cause__, ZeroDivisionError)
    from helpers import alive, wait_until

    wait_until(lambda: not any(alive(int(pid)) for pid in log.words()), message="workers end")


def test_a_killed_worker_goes_on_from_the_last_checkpoint(runtime, run_config, tally, tmp_path):
    log = tally()

    def loop(config):
        rank = train.get_context().get_world_rank()
        checkpoint = train.get_checkpoint()
        start = 0
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                start = int(Path(folder, "step").read_text()) + 1
        for step in range(start, 3):
            log.add(f"{rank}:{step}")
            if step == 2 and start == 0 and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            folder = Path(config["folder"]) / f"{rank}-{step}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "step").write_text(str(step))
            train.report({"step": step, "start": start}, checkpoint=train.Checkpoint(folder) if rank == 0 else None)

    config = {"folder": str(tmp_path / "made")}
    with pytest.raises(train.WorkerGroupError, match=r"Rank 1 of 2 .* died: .*SIGKILL"):
        fit(run_config, loop, train_loop_config=config)
    result = fit(
        run_config,
        loop,
        train_loop_config=config,
        run_config=run_config(failure_config=train.FailureConfig(max_failures=1)),
    )
    assert result.metrics["step"] == 2 and result.metrics["start"] == 2
    assert log.words().count("0:1") == 2, "the second run did not repeat what was kept"


def test_ranks_that_report_unequally_are_told(runtime, run_config):
    def loop():
        for _ in range(1 + train.get_context().get_world_rank()):
            train.report({"x": 1})

    with pytest.raises(
        train.WorkerGroupError, match="Rank 0 of 2.*ended after 1 reports, but rank 1 has reported once more"
    ):
        fit(run_config, loop)


def test_more_workers_than_the_session_allows(runtime, run_config):
    with pytest.raises(train.TrainingFailedError) as caught:
        DataParallelTrainer(print, scaling_config=train.ScalingConfig(num_workers=9), run_config=run_config()).fit()
    assert "9 workers with 1 CPU each need 9 CPU; the session has 4 CPU" in str(caught.value)
    assert "init(num_cpus=9)" in str(caught.value) and "at most 0.44 CPUs" in str(caught.value)


def test_what_cannot_be_sent_is_named(runtime, run_config):
    import threading

    lock = threading.Lock()

    def loop():
        with lock:
            pass

    with pytest.raises(Exception, match="lock") as caught:
        fit(run_config, loop)
    assert "<closure lock>" in str(caught.value)


def set_variable(name, value):
    os.environ[name] = value


def test_own_backends_set_frameworks_up(runtime, run_config):
    class Recording(Backend):
        def on_start(self, worker_group, backend_config):
            assert len(worker_group) == 2
            ranks = worker_group.execute(os.getpid)
            assert len(set(ranks)) == 2
            worker_group.execute(set_variable, "FRAMEWORK", backend_config.word)
            assert worker_group.execute_single(1, os.getenv, "FRAMEWORK") == backend_config.word

        def on_training_start(self, worker_group, backend_config):
            assert worker_group.execute(lambda: train.get_context().get_world_rank()) == [0, 1]

    class Config(BackendConfig):
        word = "ready"

        @property
        def backend_cls(self):
            return Recording

    result = fit(run_config, lambda: train.report({"word": os.environ["FRAMEWORK"]}), backend_config=Config())
    assert result.metrics["word"] == "ready"


def test_a_trainer_is_swept(runtime, run_config, tally):
    def loop(config):
        for step in range(20):
            train.report({"loss": config["x"] + 1 / (step + 1), "workers": train.get_context().get_world_size()})

    trainer = DataParallelTrainer(
        loop, train_loop_config={"y": 1}, scaling_config=train.ScalingConfig(num_workers=2, resources_per_worker=HALF)
    )
    results = tune.Tuner(
        trainer,
        param_space={"train_loop_config": {"x": tune.grid_search([0, 10])}},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", scheduler=tune.schedulers.ASHAScheduler(grace_period=1, max_t=20)
        ),
        run_config=run_config(),
    ).fit()
    best = results.get_best_result()
    assert best.config["train_loop_config"] == {"x": 0} and best.metrics["workers"] == 2
    assert not results.errors
    with pytest.raises(ValueError, match="Did you mean 'train_loop_config'"):
        trainer._with({"train_loop_conf": {}})


def test_without_workers_it_runs_here(run_config):
    seen = []

    def loop(config):
        seen.append((os.getpid(), config["x"], train.get_dataset_shard()))
        train.report({"y": config["x"] + 1})

    trainer = DataParallelTrainer(
        loop,
        train_loop_config={"x": 1},
        scaling_config=train.ScalingConfig(num_workers=0),
        datasets={"train": [1, 2]},
        run_config=run_config(name="here"),
    )
    result = trainer.fit()
    assert seen == [(os.getpid(), 1, [1, 2])] and result.metrics["y"] == 2
    assert result.metrics_dataframe["y"].tolist() == [2]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"train_loop_per_worker": 3}, "must be a function"),
        ({"train_loop_per_worker": lambda a, b: 1}, "it wants 2 arguments (a, b)"),
        (
            {"train_loop_per_worker": print, "scaling_config": {"num_workers": 2}},
            "`scaling_config` must be a ScalingConfig",
        ),
        ({"train_loop_per_worker": print, "datasets": [1]}, "`datasets` must be a dict"),
    ],
)
def test_what_a_trainer_refuses(options, text):
    with pytest.raises((TypeError, ValueError)) as caught:
        DataParallelTrainer(**options)
    assert text in str(caught.value)
    with pytest.raises(RuntimeError, match="only while"):
        train.get_dataset_shard()
    assert mltoolkit.train is train

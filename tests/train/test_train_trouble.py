"""Bad luck, with what it is told by: disks that are full, code that cannot be sent, interruptions, nodes that die."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from mltoolkit import train
from mltoolkit.train import DataParallelTrainer

HALF = {"CPU": 0.5}


def make(loop, folder, **options):
    run = train.RunConfig(storage_path=folder, verbose=0, **options.pop("run", {}))
    return DataParallelTrainer(
        loop,
        scaling_config=train.ScalingConfig(num_workers=2, resources_per_worker=HALF),
        run_config=run,
        **options,
    )


def test_what_cannot_be_sent_is_named_as_the_program_names_it(runtime, tmp_path):
    lock = threading.Lock()

    class Model:
        def __init__(self):
            self.parts = [1, lock]

    for options, place in (
        ({"train_loop_config": {"model": Model()}}, r"train_loop_config['model'].parts[1]"),
        ({"datasets": {"train": [lock]}}, r"datasets['train'][0]"),
        ({"metadata": {"a": lock}}, r"metadata['a']"),
    ):
        with pytest.raises(TypeError) as caught:
            make(lambda config: None, tmp_path, **options).fit()
        assert str(caught.value).startswith(
            f"The trainer cannot be sent to its workers: `{place}` is <class '_thread.lock'>"
        )


def test_full_disk_ends_the_run_and_keeps_what_was_kept(runtime, tmp_path):
    def loop():
        own = Path(f"own-{train.get_context().get_world_rank()}")
        own.mkdir()
        (own / "weights").write_bytes(b"x" * 100)
        train.report({"x": 1}, train.Checkpoint(own))
        (own / "weights").write_bytes(b"x" * 100_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))  # no file can grow, as on a full disk
        train.report({"x": 2}, train.Checkpoint(own))

    with pytest.raises(
        train.WorkerGroupError, match="StorageError: The checkpoint cannot be written to .*File too large"
    ):
        make(loop, tmp_path, run={"name": "full"}).fit()
    (trial,) = (tmp_path / "full").glob("DataParallelTrainer_*")
    result = train.Result.from_path(trial)
    assert result.metrics["x"] == 1 and Path(result.checkpoint.path, "weights").stat().st_size == 100
    assert list(trial.glob(".incoming*")) == []


def test_folder_that_cannot_be_written(runtime, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="(?s)cannot be kept in .*file.*`storage_path`"):
        make(lambda: None, tmp_path / "file").fit()


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit(runtime, tmp_path, code):
    def loop():
        import sys

        train.report({"x": 1})
        sys.exit(code)

    if code == 0:
        assert make(loop, tmp_path).fit().metrics["x"] == 1
    else:
        with pytest.raises(train.WorkerGroupError, match=r"called sys\.exit\(3\)"):
            make(loop, tmp_path).fit()


def test_exception_that_cannot_be_sent_has_its_traceback(runtime, tmp_path):
    class Own(Exception):
        def __init__(self, text):
            super().__init__(text)
            self.lock = threading.Lock()

    def loop():
        if train.get_context().get_world_rank() == 1:
            raise Own("odd one")
        train.report({"x": 1})

    with pytest.raises(train.WorkerGroupError, match="(?s)Rank 1 of 2.*in loop.*Own: odd one"):
        make(loop, tmp_path).fit()


INTERRUPTED = """
import os, signal, sys, threading
import mltoolkit as ray
from mltoolkit import train

ray.init(num_cpus=2)

def make(loop):
    scaling = train.ScalingConfig(num_workers=2)
    run = train.RunConfig(storage_path=sys.argv[1], verbose=0)
    return train.DataParallelTrainer(loop, scaling_config=scaling, run_config=run)

def endless():
    os.kill(driver, signal.SIGINT)
    for step in range(10**9):
        train.report({"step": step})

driver = os.getpid()
try:
    make(endless).fit()
except KeyboardInterrupt:
    print("interrupted")
result = make(lambda: train.report({"x": 2})).fit()
print(result.metrics["x"], ray.available_resources()["CPU"])
"""


def test_after_ctrl_c_the_next_fit_works(tmp_path):
    from helpers import run_script

    done = run_script(INTERRUPTED, tmp_path, str(tmp_path))
    assert done.stdout.split() == ["interrupted", "2", "2.0"], done.stdout + done.stderr


def test_node_of_a_cluster_that_dies(fresh, tmp_path):
    distributed = pytest.importorskip("distributed")
    import psutil

    def loop():
        checkpoint, start = train.get_checkpoint(), 0
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                start = int(Path(folder, "step").read_text()) + 1
        for step in range(start, 3):
            if step == 2 and start == 0 and train.get_context().get_world_rank() == 1:
                psutil.Process().parent().parent().kill()  # the Dask worker that this one's fork server belongs to
            folder = tmp_path / f"made-{os.getpid()}"
            folder.mkdir(exist_ok=True)
            (folder / "step").write_text(str(step))
            train.report({"step": step}, train.Checkpoint(folder))
        return start

    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster:
        fresh.init(address=cluster.scheduler_address)
        try:
            run = {"failure_config": train.FailureConfig(max_failures=1)}
            result = DataParallelTrainer(
                loop,
                scaling_config=train.ScalingConfig(num_workers=2, placement_strategy="SPREAD"),
                run_config=train.RunConfig(storage_path=tmp_path, verbose=0, **run),
            ).fit()
            assert result.return_value == 2 and result.metrics["step"] == 2
        finally:
            fresh.shutdown()

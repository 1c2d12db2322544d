"""Sweeps over several hosts: no shared filesystem is needed, and a host may be lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from dask_cluster import Cluster
from helpers import end_family, script_env

import mltoolkit as ray
from mltoolkit import tune

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(120)]

# A mount namespace of its own hides folders from a process and its children, as another host would: the results, and
# what sessions keep in memory and temporary files.
HIDE = """
for folder in "$HIDDEN" "$MLTOOLKIT_TMPDIR" "$MLTOOLKIT_SHM_DIR"; do mount -t tmpfs tmpfs "$folder" || exit 1; done
exec "$@"
"""


class Hosts(Cluster):
    """A worker that sees the driver's files, and one that does not."""

    def __init__(self, folder, hidden):
        self.hidden = hidden
        super().__init__(folder, workers=0)

    def _start(self, words, env=None):
        if "worker" not in words or not words[-1].startswith("--name=host"):
            return super()._start(words, env)
        name = words[-1].removeprefix("--name=")
        command = [sys.executable, "-m", "dask", *words]
        if name == "host-hidden":
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", HIDE, "sh", *command]
        log = open(self.folder / f"dask-{len(self.processes)}.log", "w+")  # noqa: SIM115
        env = script_env({**(env or {}), "MLTOOLKIT_HOST_ID": name, "HIDDEN": str(self.hidden)})
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=self.folder)
        process.log = log
        self.processes.append(process)
        return process


@pytest.fixture
def hosts(tmp_path, fresh):
    hidden = tmp_path / "results"
    hidden.mkdir()
    probe = ["unshare", "--mount", "--propagation", "private", "sh", "-c", HIDE, "sh", "true"]
    if subprocess.run(probe, env=script_env({"HIDDEN": str(hidden)}), capture_output=True).returncode:
        pytest.skip("needs mount namespaces")
    folder = tmp_path / "cluster"
    folder.mkdir()
    made = Hosts(folder, hidden)
    made.doomed = made.add_worker("--name=host-hidden")
    made.other = made.add_worker("--name=host-seeing")
    ray.init(address=made.address)
    yield made
    ray.shutdown()
    made.close()


def trainable(config):
    start = 0
    if checkpoint := tune.get_checkpoint():
        start = json.loads(Path(checkpoint.path, "deep", "state").read_text())
    sees = Path(config["results"], "exp").exists()
    for i in range(start + 1, 6):
        if i == 3 and not start:
            raise RuntimeError("once")
        Path("work/deep").mkdir(parents=True, exist_ok=True)
        Path("work/deep/state").write_text(json.dumps(i))
        Path("work/large").write_bytes(bytes([i]) * 3_000_000)
        node = ray.get_runtime_context().get_node_id()
        checkpoint = tune.Checkpoint.from_directory("work")
        tune.report({"i": i, "start": start, "sees": sees, "node": node}, checkpoint=checkpoint)


def test_checkpoints_travel_and_a_lost_host_costs_no_sample(hosts, tmp_path):
    class Watch(tune.Callback):
        """Kills the host without shared files, once a trial has gone on there from a checkpoint that was sent to it."""

        killed = False
        lost = None
        seen = ()

        def on_checkpoint(self, iteration, trials, trial, checkpoint, **info):
            # Whole, in the driver's folder, as soon as it is announced.
            assert Path(checkpoint.path).is_relative_to(tmp_path / "results")
            assert Path(checkpoint.path, "large").read_bytes() == bytes([trial.last_result["i"]]) * 3_000_000
            self.seen = {*self.seen, trial.last_result["sees"]}
            if not self.killed and not trial.last_result["sees"] and trial.last_result["start"]:
                self.killed = True
                self.lost = trial.trial_id
                end_family(hosts.doomed.pid)

    watch = Watch()
    results = tune.Tuner(
        trainable,
        param_space={"n": tune.grid_search(list(range(8))), "results": str(tmp_path / "results")},
        run_config=tune.RunConfig(
            name="exp",
            storage_path=str(tmp_path / "results"),
            verbose=0,
            callbacks=[watch],
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    ).fit()
    assert watch.killed
    assert watch.seen == {True, False}
    assert [(r.metrics["i"], r.error) for r in results] == [(5, None)] * 8
    for result in results:
        assert result.metrics["training_iteration"] == 5
        with result.checkpoint.as_directory() as folder:
            assert Path(folder, "deep", "state").read_text() == "5"
    (moved,) = [r for r in results if r.metrics["trial_id"] == watch.lost]
    assert moved.metrics["sees"]  # it went on elsewhere, from what was sent
    assert moved.metrics["start"] >= 3

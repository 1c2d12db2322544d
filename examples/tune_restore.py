"""A sweep whose driver is killed, and which goes on as if nothing had happened.

The program starts itself once more as the driver of a sweep, and that driver kills itself with SIGKILL half-way: no
clean-up runs. What was reported is on disk all the same. Then the sweep is restored: finished trials are not run again,
those that were under way go on from their checkpoints, and the rest are the very configurations that would have come.

    python examples/tune_restore.py
"""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mltoolkit import tune

TRIALS = 8
STEPS = 10


def train(config: dict[str, Any]) -> None:
    """Newton's iteration for a square root, which remembers in a checkpoint how far it has come."""
    estimate, first = config["number"], 1
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state = json.loads(Path(folder, "state.json").read_text())
        estimate, first = state["estimate"], state["step"] + 1

    for step in range(first, STEPS + 1):
        estimate = (estimate + config["number"] / estimate) / 2
        with open(config["log"], "a") as log:
            log.write(f"{tune.get_context().get_trial_id()} {step}\n")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.json").write_text(json.dumps({"estimate": estimate, "step": step}))
            tune.report(
                {"error": abs(estimate**2 - config["number"]), "step": step},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


class KillDriver(tune.Callback):
    """Kills the driver when half of the trials have finished and another one is under way."""

    def __init__(self) -> None:
        self.driver = os.getpid()  # the callback is restored with the sweep, in another process

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        finished = sum(other.status == "TERMINATED" for other in trials)
        if self.driver == os.getpid() and finished >= TRIALS // 2 and result["step"] == STEPS // 2:
            print(
                f"driver: {finished} of {TRIALS} trials have finished, {len(trials) - finished} are under way",
                flush=True,
            )
            os.kill(os.getpid(), signal.SIGKILL)


def drive(storage: str, log: str) -> None:
    tune.Tuner(
        train,
        param_space={"number": tune.uniform(1, 100), "log": log},
        tune_config=tune.TuneConfig(metric="error", mode="min", num_samples=TRIALS, seed=0),
        run_config=tune.RunConfig(
            name="roots",
            storage_path=storage,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            callbacks=[KillDriver()],
            verbose=0,
        ),
    ).fit()


def count_steps(log: Path) -> collections.Counter[str]:
    """How often each trial took a step."""
    return collections.Counter(line.split()[0] for line in log.read_text().splitlines())


def main() -> None:
    with tempfile.TemporaryDirectory() as storage:
        log = Path(storage, "steps.log")
        driver = subprocess.run([sys.executable, __file__, storage, str(log)], check=False)
        print(f"the driver ended with {signal.Signals(-driver.returncode).name}")
        before = count_steps(log)

        tuner = tune.Tuner.restore(Path(storage, "roots"), train)
        reported = [result.metrics for result in tuner.get_results() if result.metrics]
        finished = [metrics["trial_id"] for metrics in reported if metrics["step"] == STEPS]

        results = tuner.fit()
        after = count_steps(log)
        again = sum(after[trial] - before[trial] for trial in finished)
        print(f"restored: {results.num_terminated} of {TRIALS} trials have finished, {results.num_errors} failed")
        print(f"{len(finished)} had been through before, {again} of their steps were taken again")
        print(f"steps: {before.total()} before, {after.total() - before.total()} after, {STEPS * TRIALS} needed")


if __name__ == "__main__":
    if sys.argv[1:]:
        drive(*sys.argv[1:])
    else:
        main()

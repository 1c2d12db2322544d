"""Sweeps that are killed in one process and restored in another: both import this module.

As a program it runs sweeps to their deaths: each in a forked child, a driver of its own, as many at a time as make sense.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from pathlib import Path

from mltoolkit import tune

KILL = "TEST_TUNE_KILL"


class Kill(tune.Callback):
    """Ends the driver with SIGKILL at the n-th call of a hook: ``TEST_TUNE_KILL=on_trial_result:3``."""

    def __init__(self):
        self.calls = 0

    def _count(self, hook):
        name, _, number = os.environ.get(KILL, "").partition(":")
        if name == hook:
            self.calls += 1
            if self.calls == int(number):
                os.kill(os.getpid(), signal.SIGKILL)

    def on_trial_start(self, iteration, trials, trial, **info):
        self._count("on_trial_start")

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self._count("on_trial_result")

    def on_checkpoint(self, iteration, trials, trial, checkpoint, **info):
        self._count("on_checkpoint")

    def on_trial_complete(self, iteration, trials, trial, **info):
        self._count("on_trial_complete")

    def on_step_end(self, iteration, trials, **info):
        self._count("on_step_end")


def note(config, word):
    with open(config["log"], "a") as file:
        file.write(f"{word}\n")


def value_of(x, i):
    """A learning curve that depends on nothing but configuration and time; curves cross."""
    return x * (1 - math.exp(-i / (1 + 3 * x))) + 0.01 * math.sin(7 * x + i)


def function(config):
    start = 0
    if checkpoint := tune.get_checkpoint():
        start = json.loads(Path(checkpoint.path, "state").read_text())
    note(config, f"start {config['x']} {start}")
    for i in range(start + 1, 6):
        Path("work").mkdir(exist_ok=True)
        Path("work", "state").write_text(json.dumps(i))
        tune.report({"y": value_of(config["x"], i), "i": i}, checkpoint=tune.Checkpoint.from_directory("work"))


def without_checkpoints(config):
    note(config, f"start {config['x']}")
    for i in range(1, 4):
        tune.report({"y": value_of(config["x"], i), "i": i})


class Stepwise(tune.Trainable):
    def setup(self, config):
        self.i = 0
        self.total = 0.0

    def step(self):
        self.i += 1
        self.total += value_of(self.config["x"], self.i)
        return {"y": self.total / self.i, "i": self.i}

    def save_checkpoint(self, folder):
        return {"i": self.i, "total": self.total}

    def load_checkpoint(self, state):
        self.i, self.total = state["i"], state["total"]


def _sampled(**more):
    return {"x": tune.uniform(0.1, 1.0), **more}


def _optuna():
    from mltoolkit.tune.search.optuna import OptunaSearch

    return {
        "trainable": without_checkpoints,
        "space": _sampled(),
        "search_alg": OptunaSearch(seed=3),
        "num_samples": 14,
    }


def _hyperopt():
    from mltoolkit.tune.search.hyperopt import HyperOptSearch

    search_alg = HyperOptSearch(random_state_seed=3, n_initial_points=4)
    return {"trainable": without_checkpoints, "space": _sampled(), "search_alg": search_alg, "num_samples": 8}


def _asha(trainable):
    scheduler = tune.schedulers.ASHAScheduler(max_t=9, grace_period=1, reduction_factor=3)
    return {"trainable": trainable, "space": _sampled(), "num_samples": 8, "scheduler": scheduler}


def _hyperband():
    scheduler = tune.schedulers.HyperBandScheduler(max_t=9, reduction_factor=3)
    return {"trainable": Stepwise, "space": _sampled(), "num_samples": 9, "scheduler": scheduler}


def _pbt():
    scheduler = tune.schedulers.PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=2,
        hyperparam_mutations={"x": tune.uniform(0.1, 1.0)},
        quantile_fraction=0.5,
        synch=True,
        seed=1,
    )
    four = {"num_samples": 4, "max_concurrent_trials": 4}
    return {"trainable": Stepwise, "space": _sampled(), "scheduler": scheduler, "stop": 8, **four}


CASES = {
    "function": lambda: {"trainable": function, "space": _sampled(a=tune.grid_search(["u", "v"])), "num_samples": 2},
    "class": lambda: {
        "trainable": Stepwise,
        "space": _sampled(a=tune.grid_search([1, 2])),
        "num_samples": 2,
        "stop": 5,
    },
    "concurrent": lambda: {"trainable": function, "space": _sampled(), "num_samples": 5, "max_concurrent_trials": 3},
    "optuna": _optuna,
    "hyperopt": _hyperopt,
    "asha": lambda: _asha(Stepwise),
    "hyperband": _hyperband,
    "pbt": _pbt,
}


def make(case: str, folder: Path, **more) -> tune.Tuner:
    """The sweep of a case, to be run in ``folder``."""
    parts = {**CASES[case](), **more}
    trainable, space, stop = parts.pop("trainable"), parts.pop("space"), parts.pop("stop", None)
    steps = {"training_iteration": stop} if stop else None
    parts.setdefault("max_concurrent_trials", 1)
    parts.setdefault("seed", 11)
    frequency = {"checkpoint_frequency": 1} if isinstance(trainable, type) else {}
    return tune.Tuner(
        trainable,
        param_space={**space, "log": str(folder / "executions")},
        tune_config=tune.TuneConfig(metric="y", mode="max", **parts),
        run_config=tune.RunConfig(
            name="exp",
            storage_path=str(folder),
            verbose=0,
            stop=steps,
            callbacks=[Kill()],
            checkpoint_config=tune.CheckpointConfig(**frequency),
        ),
    )


def main(folder: str, *words: str) -> None:
    """Run each ``case@hook:number`` to its death; with ``!`` behind it, after a snapshot at each step."""
    import mltoolkit as ray
    from mltoolkit.tune.execution import _snapshot

    def run(word):
        case, _, kill = word.partition("@")
        os.environ[KILL] = kill.removesuffix("!")
        if kill.endswith("!"):
            _snapshot._EVERY_S, _snapshot._MOST_OF_TIME = 0.0, float("inf")
        target = Path(folder, word.replace(":", "-"))
        target.mkdir()
        ray.init(num_cpus=4)
        make(case, target).fit()

    for word in words:  # imported once, for all children
        CASES[word.partition("@")[0]]()
    running = {}
    for word in [*words, *[None] * len(words)]:
        if word is None or len(running) == 3:
            if not running:
                break
            pid, status = os.wait()
            assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, (running[pid], status)
            del running[pid]
        if word is not None:
            pid = os.fork()
            if not pid:
                try:
                    run(word)
                finally:
                    os._exit(1)  # it was to be killed
            running[pid] = word


if __name__ == "__main__":
    main(*sys.argv[1:])

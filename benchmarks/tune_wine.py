"""How much longer than the training itself does a sweep of 40 small networks take?

40 networks, 11 inputs and two hidden layers of 64, learn the quality of red wines for 10 epochs each. All runtimes get
the same data, networks, seeds and 40 pairs of learning rate and momentum, and run on as many CPUs as there are, each
trial with one thread; the bare loop is one process with one thread. With FIFO all epochs run, and run.py checks that
the final losses are the same; with ASHA (successive halving in Optuna) bad trials end early.

Each sweep is a script of its own, and its time that of the whole script from before the first import, torch's
included. `in a running session` is the same sweep once more, as in a notebook.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from _harness import Recorder, parser, run_fresh, seed_everything
from _runtimes import answer
from _tune_runtimes import FACADES, OPTUNA, PACKAGES, Session, check, load_tune, optimise
from _wine_network import points, train

RUNTIMES = (*FACADES, *OPTUNA, "process")
SWEEPS = ("fifo", "asha")
TRIALS, EPOCHS = 40, 10
SMOKE_TRIALS, SMOKE_EPOCHS = 4, 2


def trainable(config: dict[str, Any], runtime: str, epochs: int, wine: str | None) -> None:
    """Train a network, for mltoolkit and Ray."""
    report = load_tune(runtime).report
    for loss in train(config["point"], epochs, wine):
        report({"loss": loss})


def objective(trial: Any, epochs: int, wine: str | None) -> float:
    """Train a network, for Optuna; pruning ends it early."""
    import optuna

    point = {
        "lr": trial.suggest_float("lr", 1e-4, 0.1, log=True),
        "momentum": trial.suggest_float("momentum", 0.1, 0.9),
    }
    for epoch, loss in enumerate(train(point, epochs, wine), start=1):
        trial.report(loss, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


class FacadeSweeps:
    """Sweeps of mltoolkit or Ray."""

    def __init__(self, runtime: str, folder: str) -> None:
        self._runtime = runtime
        self._session = Session(runtime, folder)

    def __enter__(self) -> FacadeSweeps:
        self._session.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(*error)

    def run(self, sweep: str, trials: int, epochs: int, wine: str | None) -> tuple[list[float], int]:
        """Return the final losses and the number of all epochs."""
        tune = self._session.tune
        scheduler = None
        if sweep == "asha":
            schedulers = tune.schedulers
            scheduler = schedulers.ASHAScheduler(max_t=epochs, grace_period=1, reduction_factor=4)
        function = partial(trainable, runtime=self._runtime, epochs=epochs, wine=wine)
        space = {"point": tune.grid_search(points(trials))}
        grid = self._session.sweep(_named(function), space, 1, scheduler=scheduler)
        check(len(grid) == trials and not grid.errors, f"trials are missing or failed: {grid.errors[:1]}")
        results = [grid[number].metrics for number in range(trials)]
        return [each["loss"] for each in results], sum(each["training_iteration"] for each in results)


class StudySweeps:
    """Sweeps of Optuna; there is no session."""

    def __init__(self, runtime: str, folder: str) -> None:
        self._runtime = runtime
        self._folder = folder

    def __enter__(self) -> StudySweeps:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, sweep: str, trials: int, epochs: int, wine: str | None) -> tuple[list[float], int]:
        """Return the final losses and the number of all epochs."""
        import optuna

        pruner = optuna.pruners.NopPruner()
        if sweep == "asha":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4)
        study = optimise(
            self._runtime,
            partial(objective, epochs=epochs, wine=wine),
            trials,
            self._folder,
            points=points(trials),
            pruner=pruner,
        )
        ended = study.trials
        check(len(ended) == trials and all(each.state.is_finished() for each in ended), "trials are missing or failed")
        losses = [each.intermediate_values[max(each.intermediate_values)] for each in ended]
        return losses, sum(len(each.intermediate_values) for each in ended)


class BareSweeps:
    """One loop in one process: every epoch runs."""

    def __enter__(self) -> BareSweeps:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, sweep: str, trials: int, epochs: int, wine: str | None) -> tuple[list[float], int]:
        """Return the final losses and the number of all epochs."""
        return [list(train(point, epochs, wine))[-1] for point in points(trials)], trials * epochs


def _named(function: partial[None]) -> Any:
    def wine(config: dict[str, Any]) -> None:
        function(config)

    return wine


def child(sweep: str, options: argparse.Namespace) -> None:
    """Run one sweep in this fresh interpreter, as a script would; then FIFO once more."""
    runtime, wine = options.runtime, options.wine
    trials, epochs = (SMOKE_TRIALS, SMOKE_EPOCHS) if options.smoke else (TRIALS, EPOCHS)
    began = time.perf_counter()
    import torch

    imported = time.perf_counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sweeps: Any = (
            BareSweeps()
            if runtime == "process"
            else FacadeSweeps(runtime, folder)
            if runtime in FACADES
            else StudySweeps(runtime, folder)
        )
        with sweeps:
            losses, ran = sweeps.run(sweep, trials, epochs, wine)
            values = {f"wine_{sweep}": [time.perf_counter() - began]}
            if sweep == "fifo":
                values["torch_import"] = [imported - began]
                check(ran == trials * epochs, f"{trials * epochs} epochs were asked for, {ran} ran")
                if runtime != "ray":  # which takes minutes, and is no faster the second time
                    again = time.perf_counter()
                    sweeps.run(sweep, trials, epochs, wine)
                    values["wine_fifo_again"] = [time.perf_counter() - again]
            else:
                values["wine_asha_epochs"] = [ran]
    # Different builds of torch may differ in the last digits.
    answer(values, {"wine_fifo_score": round(sum(losses), 3)} if sweep == "fifo" else {})


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, RUNTIMES)
    arguments.add_argument("--wine", help="path of the wine-quality CSV; without it the data that scikit-learn bundles")
    arguments.add_argument("--sweeps", nargs="+", choices=SWEEPS, default=SWEEPS, help="which are measured")
    arguments.add_argument("--child", choices=SWEEPS, help="used by the program itself")
    options = arguments.parse_args()
    seed_everything()
    if options.child:
        child(options.child, options)
        return
    record = Recorder(options.runtime)
    for sweep in options.sweeps:
        if options.runtime == "process" and sweep == "asha":
            continue  # a loop ends nothing early
        command = [sys.executable, __file__, "--child", sweep, "--runtime", options.runtime]
        command += ["--wine", str(Path(options.wine).resolve())] if options.wine else []
        run_fresh([*command, *(["--smoke"] if options.smoke else [])], record, timeout=600)
    record.finish(options.out, (options.runtime, "distributed", *PACKAGES))


if __name__ == "__main__":
    main()

"""Sweeps through mltoolkit, Ray Tune and Optuna, as their users write them.

mltoolkit and Ray have the same names, so one text serves both. Optuna runs its trials in threads (its own `n_jobs`) or
in processes of its user's, which share a study through a file.
"""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from _harness import SEED
from _runtimes import cpu_count, init_facade, load_facade

FACADES = ("mltoolkit", "ray")
OPTUNA = ("optuna", "optuna_procs")
PACKAGES = ("optuna", "torch", "numpy")


def load_tune(runtime: str) -> Any:
    """Return the module `tune` of mltoolkit or of Ray."""
    return importlib.import_module(f"{runtime}.tune")


class Session:
    """A session of mltoolkit or Ray, in which sweeps run."""

    def __init__(self, runtime: str, folder: str) -> None:
        self.tune = load_tune(runtime)
        self._runtime = load_facade(runtime)
        self._folder = folder
        self._sweeps = 0

    def __enter__(self) -> Session:
        init_facade(self._runtime)
        return self

    def __exit__(self, *_: object) -> None:
        self._runtime.shutdown()

    def sweep(
        self,
        trainable: Callable[[dict[str, Any]], Any],
        space: dict[str, Any],
        samples: int,
        *,
        scheduler: Any = None,
        callbacks: Iterable[Any] = (),
    ) -> Any:
        """Run a sweep that minimises `loss`, with its loggers as they are by default and nothing on the screen."""
        tune = self.tune
        self._sweeps += 1
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=samples, scheduler=scheduler),
            run_config=tune.RunConfig(
                name=f"sweep{self._sweeps}", storage_path=self._folder, verbose=0, callbacks=list(callbacks)
            ),
        )
        return tuner.fit()


def make_reporter(runtime: str, results: int) -> Callable[[dict[str, Any]], None]:
    """Return a trainable that does nothing but report: `results` times."""

    def reporter(config: dict[str, Any]) -> None:
        report = importlib.import_module(f"{runtime}.tune").report
        for number in range(results):
            report({"loss": config["x"] + number})

    return reporter


def optuna_reporter(trial: Any, results: int) -> float:
    """Return what `make_reporter` reports last, reporting all before to the study."""
    x = trial.suggest_float("x", 0, 1)
    if results > 1:  # a single value is returned, as Optuna's users do
        for number in range(results):
            trial.report(x + number, step=number)
    return float(x + results - 1)


def optimise(
    runtime: str,
    objective: Callable[[Any], float],
    samples: int,
    folder: str,
    *,
    points: Iterable[dict[str, Any]] = (),
    pruner: Any = None,
    callbacks: Iterable[Any] = (),
) -> Any:
    """Run a study with as many threads or processes as there are CPUs, and return it.

    Threads share it in memory. Processes share it in a journal file, and each runs its part of the trials. The
    objective must be a function of a module: not every start method of processes can pass others on.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=SEED)
    if runtime == "optuna":
        study = optuna.create_study(sampler=sampler, pruner=pruner)
        for point in points:
            study.enqueue_trial(point)
        study.optimize(objective, n_trials=samples, n_jobs=cpu_count(), callbacks=list(callbacks))
        return study
    file = str(Path(folder) / f"study-{time.monotonic_ns()}.log")
    study = optuna.create_study(storage=_journal(file), study_name="study", sampler=sampler, pruner=pruner)
    for point in points:
        study.enqueue_trial(point)
    count = cpu_count()
    shares = [samples // count + (number < samples % count) for number in range(count)]
    workers = [
        multiprocessing.Process(target=_work, args=(objective, share, file, SEED + number, pruner))
        for number, share in enumerate(shares)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"a process of Optuna ended with code {worker.exitcode}")
    return study


def _journal(file: str) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(file))


def _work(objective: Callable[[Any], float], samples: int, file: str, seed: int, pruner: Any) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.load_study(storage=_journal(file), study_name="study", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=samples)


def run_reporters(runtime: str, trials: int, results: int, folder: str) -> None:
    """Run trials that do nothing but report, with a study or in a bare loop."""
    if runtime in OPTUNA:
        study = optimise(runtime, partial(optuna_reporter, results=results), trials, folder)
        check(len(study.trials) == trials, f"{trials} trials were asked for, {len(study.trials)} ran")
        return
    import random

    generator = random.Random(SEED)
    kept = []
    for _ in range(trials):
        x = generator.uniform(0, 1)
        kept.append([{"loss": x + number} for number in range(results)])
    check(len(kept) == trials, "the loop is wrong")


def check(holds: bool, otherwise: str) -> None:
    """Refuse to report the time of a wrong result."""
    if not holds:
        raise RuntimeError(otherwise)


def peak_rss_mb() -> float:
    """Return the most memory that this process has held so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6

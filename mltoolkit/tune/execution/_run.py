"""Running a sweep, new or restored: what `Tuner.fit` and `tune.run` have in common."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltoolkit.train import RunConfig
from mltoolkit.tune.analysis import ExperimentAnalysis
from mltoolkit.tune.error import TrialError
from mltoolkit.tune.execution._build import as_space, as_trainable, build_settings, experiment_folder
from mltoolkit.tune.execution._definition import KeptDefinition, SweepDefinition, with_parts_of_its_own
from mltoolkit.tune.execution._restore import rebuild
from mltoolkit.tune.execution._settings import SweepSettings
from mltoolkit.tune.execution._snapshot import load_snapshot
from mltoolkit.tune.execution._storage import TrialStorage
from mltoolkit.tune.execution._sweep import Sweep
from mltoolkit.tune.execution.tune_controller import TuneController
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.progress_reporter import default_reporter
from mltoolkit.tune.tune_config import ResumeConfig

__all__ = ["refuse_unknown", "run_sweep"]


def run_sweep(
    definition: SweepDefinition,
    *,
    experiment_path: Path | None = None,
    resume: ResumeConfig | None = None,
    raise_on_failed_trial: bool = False,
) -> ExperimentAnalysis:
    """Run a sweep to its end.

    Parameters
    ----------
    definition : SweepDefinition
    experiment_path : pathlib.Path, optional
        Of an experiment that is there and is gone on with; a new one by default.
    resume : ResumeConfig, optional
        Which of its trials run again.
    raise_on_failed_trial : bool, default=False
        Raise when a trial has failed, once all have ended.
    """
    trainable, label = as_trainable(definition.trainable)
    label = definition.trainable_label or label
    run_config = definition.run_config
    restored = experiment_path is not None
    folder = experiment_path or experiment_folder(run_config, label)
    own = with_parts_of_its_own(replace(definition, trainable=trainable, trainable_label=label))
    kept = None if restored else KeptDefinition(own)
    settings = build_settings(
        trainable,
        folder.name,
        as_space(definition.param_space),
        own.tune_config,
        own.run_config,
        experiment_path=folder,
        trainable_label=label,
        resources=definition.resources,
        restore_from=definition.restore_from,
    )
    storage = TrialStorage(folder, settings.checkpoint_config)
    try:
        if kept is None:
            snapshot = load_snapshot(folder)
            sweep = rebuild(settings, snapshot)
            settings.search_alg.prepare(settings.num_samples, seed=settings.seed)
        else:
            snapshot = None
            storage.journal.begin_anew()
            (folder / "sweep_state.pkl").unlink(missing_ok=True)
            sweep = Sweep(settings)
            kept.write(folder)
        storage.note_sweep(
            name=settings.name,
            metric=settings.metric,
            mode=settings.mode,
            num_samples=settings.num_samples,
            trainable=label,
            seed=settings.seed,
        )
        if restored:
            _resume(sweep, storage, resume or ResumeConfig())
        interrupted = _control(settings, sweep, storage, run_config, snapshot.callbacks if snapshot else None)
    finally:
        storage.close()
    trials = list(sweep.trials.values())
    if raise_on_failed_trial and not interrupted:
        _raise_if_failed(trials, folder)
    metric, mode = settings.metric, settings.mode
    return ExperimentAnalysis(
        folder,
        trials=trials,
        default_metric=metric if isinstance(metric, str) else None,
        default_mode=mode if isinstance(mode, str) else None,
    )


def _control(
    settings: SweepSettings, sweep: Sweep, storage: TrialStorage, run_config: RunConfig, callback_state: Any
) -> bool:
    verbose = run_config.verbose
    reporter = default_reporter(
        1 if verbose is None else verbose,
        metric=settings.metric if isinstance(settings.metric, str) else None,
        mode=settings.mode if isinstance(settings.mode, str) else None,
        total_samples=settings.search_alg.total_samples,
        reporter=run_config.progress_reporter,
    )
    settings.callbacks = [*settings.callbacks, *reporter.callbacks()]
    try:
        controller = TuneController(settings, sweep, storage, reporter, callback_state)
        controller.run()
    finally:
        reporter.close()
    return controller.interrupted


def _resume(sweep: Sweep, storage: TrialStorage, resume: ResumeConfig) -> None:
    """Bring the trials into the states that the user asks for."""
    owed = {trial.trial_id for trial, _ in sweep.owed}
    for trial in sweep.trials.values():
        if trial.trial_id in owed:
            continue
        if trial.status == Trial.ERROR:
            choice = resume.errored
        elif trial.status == Trial.TERMINATED:
            choice = resume.finished
        else:
            choice = resume.unfinished
        if trial.is_finished():
            if choice == "skip":
                continue
            storage.note_revived(trial, keep_checkpoints=choice == "resume")
            trial.status, trial.error, trial.end_time, trial.num_failures = Trial.PENDING, None, None, 0
            sweep.pending_revivals.append(trial)
        elif choice == "skip":
            sweep.owed.append((trial, "sweep"))
        if choice == "restart":
            storage.forget_checkpoints(trial)


def _raise_if_failed(trials: list[Trial], folder: Path) -> None:
    failed = [trial for trial in trials if trial.status == Trial.ERROR]
    if failed:
        names = ", ".join(map(str, failed[:10])) + (f" and {len(failed) - 10} more" if len(failed) > 10 else "")
        error = TrialError(
            f"{len(failed)} of {len(trials)} trials failed: {names}. The first: {failed[0].error}\n"
            f"All results are in {folder}. Set `raise_on_failed_trial=False` to get them as a return value.",
            failed,
        )
        raise error from failed[0].error


def refuse_unknown(function: Callable[..., Any], unknown: dict[str, Any], removed: dict[str, str]) -> None:
    """Refuse keyword arguments that a function does not have, naming the nearest that it has."""
    for name in unknown:
        if name in removed:
            raise TypeError(f"{function.__name__}() no longer takes `{name}`: {removed[name]}")
        known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}.{hint}")

"""Running a sweep, new or restored: what `Tuner.fit` and `tune.run` have in common."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle

from mltoolkit.train import RunConfig
from mltoolkit.train._trust import dump_pickle, load_pickle
from mltoolkit.tune.analysis import ExperimentAnalysis
from mltoolkit.tune.error import StorageError, TrialError, TuneError
from mltoolkit.tune.execution._build import as_space, as_trainable, build_settings, experiment_folder
from mltoolkit.tune.execution._restore import rebuild
from mltoolkit.tune.execution._settings import SweepSettings
from mltoolkit.tune.execution._snapshot import load_snapshot
from mltoolkit.tune.execution._storage import TrialStorage
from mltoolkit.tune.execution._sweep import Sweep
from mltoolkit.tune.execution.journal import FILE_NAME
from mltoolkit.tune.execution.tune_controller import TuneController
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.progress_reporter import default_reporter
from mltoolkit.tune.trainable.util import for_a_file
from mltoolkit.tune.tune_config import ResumeConfig, TuneConfig

__all__ = [
    "DEFINITION_FILE",
    "SweepDefinition",
    "can_restore",
    "load_definition",
    "refuse_unknown",
    "run_sweep",
    "with_options_of",
]

logger = logging.getLogger(__name__)

DEFINITION_FILE = "tuner.pkl"
_LARGEST_TRAINABLE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class SweepDefinition:
    """A sweep as its user wrote it: what is kept to restore it.

    Attributes
    ----------
    trainable : callable, class, str or None
        None where it could not be kept, so that it must be given again.
    """

    trainable: Any
    trainable_label: str
    param_space: dict[str, Any]
    tune_config: TuneConfig
    run_config: RunConfig
    resources: Any = None
    restore_from: str | None = None


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
    settings = build_settings(
        trainable,
        folder.name,
        as_space(definition.param_space),
        _fresh(definition.tune_config),
        run_config,
        experiment_path=folder,
        trainable_label=label,
        resources=definition.resources,
        restore_from=definition.restore_from,
    )
    storage = TrialStorage(folder, settings.checkpoint_config)
    try:
        if restored:
            snapshot = load_snapshot(folder)
            sweep = rebuild(settings, snapshot)
            settings.search_alg.prepare(settings.num_samples, seed=settings.seed)
        else:
            snapshot = None
            storage.journal.begin_anew()
            (folder / "sweep_state.pkl").unlink(missing_ok=True)
            sweep = Sweep(settings)
            _keep_definition(replace(definition, trainable=trainable, trainable_label=label), folder)
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
        if trial.is_finished:
            if choice == "skip":
                continue
            storage.note_revived(trial, keep_checkpoints=choice == "resume")
            trial.status, trial.error, trial.end_time, trial.num_failures = Trial.PENDING, None, None, 0
            sweep.pending_revivals.append(trial)
        elif choice == "skip":
            sweep.owed.append((trial, "sweep"))
        if choice == "restart":
            trial.checkpoints = []


def _fresh(tune_config: TuneConfig) -> TuneConfig:
    """The configuration with search algorithm and scheduler of its own: a `Tuner` may be fitted twice."""
    try:
        own = cloudpickle.loads(cloudpickle.dumps((tune_config.search_alg, tune_config.scheduler)))
    except Exception:
        return tune_config  # holds connections and the like: the objects themselves are used
    return replace(tune_config, search_alg=own[0], scheduler=own[1])


def _keep_definition(definition: SweepDefinition, folder: Path) -> None:
    """Keep what is needed to restore the sweep, as far as it can be kept."""
    kept = definition
    with for_a_file():
        try:
            cloudpickle.dump(kept.trainable, _Limited(_LARGEST_TRAINABLE_BYTES))
        except Exception:  # too large, or it cannot be pickled: it has to be given again
            kept = replace(kept, trainable=None)
        reason = _write_definition(kept, folder)
    if reason is not None:
        logger.warning("The sweep can be run but not be restored: its definition cannot be kept: %s", reason)


def _write_definition(kept: SweepDefinition, folder: Path) -> Exception | None:
    """Write the definition, without what belongs to this process alone where need be; else say why not."""
    reason: Exception | None = None
    for without in ({}, {"callbacks": None, "progress_reporter": None}):
        try:
            dump_pickle(replace(kept, run_config=_changed(kept.run_config, **without)), folder / DEFINITION_FILE)
        except OSError as error:
            raise StorageError(f"The experiment cannot be kept in {folder}: {error}.") from error
        except Exception as error:
            reason = error
        else:
            if without and kept.run_config.callbacks:
                logger.warning("Callbacks or reporter cannot be kept; a restored sweep runs without: %s", reason)
            return None
    return reason


class _Limited:
    """A file that takes no more than so many bytes, and keeps none: large objects are not copied to learn that they are."""

    def __init__(self, most: int) -> None:
        self._left = most

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise OverflowError("too large to be kept")
        return size


def with_options_of(kept: SweepDefinition, given: SweepDefinition) -> SweepDefinition:
    """What was kept of a sweep, with what a program that resumes it says about how it runs on.

    Search space, search algorithm, scheduler, metric and stopping criteria stay what they were: half a sweep cannot have
    others.
    """
    names = ("callbacks", "progress_reporter", "verbose")
    run_options = {n: v for n in names if (v := getattr(given.run_config, n)) is not None}
    tune_options: dict[str, Any] = {}
    if given.tune_config.max_concurrent_trials is not None:
        tune_options["max_concurrent_trials"] = given.tune_config.max_concurrent_trials
    if given.tune_config.num_samples != 1:
        tune_options["num_samples"] = given.tune_config.num_samples
    return replace(
        kept,
        run_config=_changed(kept.run_config, failure_config=given.run_config.failure_config, **run_options),
        tune_config=replace(kept.tune_config, **tune_options),
    )


def _changed(run_config: RunConfig, **changes: Any) -> RunConfig:
    import copy

    changed = copy.copy(run_config)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def can_restore(path: Path) -> bool:
    """Whether a folder holds an experiment that can be gone on with."""
    return (path / FILE_NAME).is_file() and (path / DEFINITION_FILE).is_file()


def load_definition(path: Path, trainable: Any = None, param_space: Any = None) -> SweepDefinition:
    """What was kept of a sweep.

    Raises
    ------
    FileNotFoundError
        If the folder holds no experiment.
    TuneError
        If the trainable was not kept and is not given.
    UntrustedFileError
        If somebody else could have written the file.
    """
    if not can_restore(path):
        missing = [name for name in (FILE_NAME, DEFINITION_FILE) if not (path / name).is_file()]
        raise FileNotFoundError(
            f"There is no experiment to restore in {path}: {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there. Give the folder <storage_path>/<name> of the experiment."
        )
    definition: SweepDefinition = load_pickle(path / DEFINITION_FILE)
    if trainable is None and definition.trainable is None:
        raise TuneError(
            f"The trainable {definition.trainable_label!r} was not kept with the experiment (it is large, or holds "
            "objects that no file can keep). Give it: `Tuner.restore(path, trainable)`."
        )
    if trainable is not None:
        given, label = as_trainable(trainable)
        if label != definition.trainable_label:
            raise ValueError(
                f"The experiment in {path} was run with the trainable {definition.trainable_label!r}, not {label!r}. "
                "Give the same one."
            )
        definition = replace(definition, trainable=given)
    if param_space is not None:
        definition = replace(definition, param_space=as_space(param_space))
    return definition


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

"""`tune.run`: the older way to run a sweep, with all its keyword arguments."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mltoolkit.train import CheckpointConfig, FailureConfig, RunConfig, SyncConfig
from mltoolkit.tune.analysis import ExperimentAnalysis
from mltoolkit.tune.callback import Callback
from mltoolkit.tune.execution._build import as_space, as_trainable, results_folder
from mltoolkit.tune.execution._definition import SweepDefinition, can_restore, load_definition, with_options_of
from mltoolkit.tune.execution._run import refuse_unknown, run_sweep
from mltoolkit.tune.experiment.experiment import Experiment
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.progress_reporter import ProgressReporter
from mltoolkit.tune.schedulers import TrialScheduler
from mltoolkit.tune.stopper import Stopper
from mltoolkit.tune.tune_config import ResumeConfig, TuneConfig

__all__ = ["run", "run_experiments"]

_REMOVED = {
    "loggers": "give logger callbacks as `callbacks=[...]`.",
    "trial_executor": "Tune has one way to run trials.",
    "queue_trials": "trials always wait for resources.",
    "sync_to_driver": "results come to the driver by themselves.",
    "upload_dir": "give a local or mounted folder as `storage_path`.",
    "global_checkpoint_period": "the state is written continuously.",
    "checkpoint_keep_all": "give `keep_checkpoints_num=None`.",
    "ray_auto_init": "the runtime starts by itself.",
    "server_port": "there is no server.",
    "with_server": "there is no server.",
    "trial_resources": "give `resources_per_trial`.",
}

_RESUME_BASES = ("LOCAL", "AUTO", "ERRORED_ONLY", "PROMPT", "REMOTE")


def run(
    run_or_experiment: Any,
    *,
    name: str | None = None,
    metric: str | Sequence[str] | None = None,
    mode: str | Sequence[str] | None = None,
    stop: Mapping[str, Any] | Stopper | Callable[[str, dict[str, Any]], bool] | None = None,
    time_budget_s: float | datetime.timedelta | None = None,
    config: Any = None,
    resources_per_trial: Any = None,
    num_samples: int = 1,
    storage_path: str | None = None,
    storage_filesystem: None = None,
    search_alg: Any = None,
    scheduler: TrialScheduler | str | None = None,
    checkpoint_config: CheckpointConfig | dict[str, Any] | None = None,
    verbose: int | None = None,
    progress_reporter: ProgressReporter | None = None,
    log_to_file: bool | str | tuple[str, str] = False,
    trial_name_creator: Callable[[Trial], str] | None = None,
    trial_dirname_creator: Callable[[Trial], str] | None = None,
    sync_config: SyncConfig | None = None,
    export_formats: Sequence[str] | None = None,
    max_failures: int = 0,
    fail_fast: bool | str = False,
    restore: str | None = None,
    resume: bool | str | None = None,
    resume_config: ResumeConfig | None = None,
    reuse_actors: bool | None = None,
    raise_on_failed_trial: bool = True,
    callbacks: Sequence[Callback] | None = None,
    max_concurrent_trials: int | None = None,
    keep_checkpoints_num: int | None = None,
    checkpoint_score_attr: str | None = None,
    checkpoint_freq: int = 0,
    checkpoint_at_end: bool = False,
    chdir_to_trial_dir: bool | None = None,
    local_dir: str | None = None,
    seed: int | None = None,
    **unknown: Any,
) -> ExperimentAnalysis:
    """Run a sweep and wait for it.

    Parameters
    ----------
    run_or_experiment : function, subclass of Trainable, str or Experiment
        What is run with each configuration.
    name : str, optional
        Of the experiment and its folder.
    metric, mode : str, optional
        What is optimised, and whether less (``'min'``) or more (``'max'``) of it is better. A trainable that returns a
        bare number returns this metric.
    stop : dict, callable or Stopper, optional
        When trials end: ``{"training_iteration": 10}``, a function of ``(trial_id, result)``, a stopper.
    time_budget_s : float or datetime.timedelta, optional
        When the sweep ends.
    config : dict, optional
        The search space.
    resources_per_trial : dict, PlacementGroupFactory or callable, optional
        ``{"cpu": 2, "gpu": 1}``; one CPU by default.
    num_samples : int, default=1
        Samples of the search space; -1 for no end.
    storage_path, local_dir : str, optional
        Folder that holds the folders of experiments.
    search_alg : Searcher, SearchAlgorithm or str, optional
    scheduler : TrialScheduler or str, optional
    checkpoint_config : CheckpointConfig or dict, optional
    verbose : {0, 1, 2, 3}, optional
        How much is shown.
    progress_reporter : ProgressReporter, optional
    log_to_file : bool, str or pair of str, default=False
        Whether the output of trials goes to files in their folders.
    max_failures : int, default=0
        Times that a trial that failed is tried again from its last checkpoint; -1 for no limit.
    fail_fast : bool or 'raise', default=False
        Whether the first failure ends the sweep.
    restore : str, optional
        A checkpoint for all trials to begin from.
    resume : bool or str, optional
        Go on with the experiment of this ``name``: ``True`` or ``"LOCAL"``; ``"AUTO"`` if there is one, and else begin;
        ``"ERRORED_ONLY"`` to run only failed trials again. ``"+ERRORED"`` or ``"+RESTART_ERRORED"`` may be appended.
        Search space, search algorithm, scheduler, metric and stopping criteria stay what they were; ``num_samples``,
        ``max_failures``, ``fail_fast``, ``max_concurrent_trials``, ``callbacks``, ``verbose`` and
        ``progress_reporter`` are taken from this call.
    resume_config : ResumeConfig, optional
        The same in detail.
    raise_on_failed_trial : bool, default=True
        Raise when all trials have ended and one has failed.
    callbacks : list of Callback, optional
    keep_checkpoints_num, checkpoint_score_attr, checkpoint_freq, checkpoint_at_end
        Older forms of what ``checkpoint_config`` says. A score attribute that begins with ``min-`` ranks by the lowest.
    reuse_actors, trial_name_creator, trial_dirname_creator, max_concurrent_trials, chdir_to_trial_dir, seed
        See :class:`TuneConfig`.
    storage_filesystem, sync_config, export_formats
        For Ray's signature; what has no meaning here raises ``NotImplementedError``.
    **unknown
        Any other name is an error that says what to use.

    Returns
    -------
    ExperimentAnalysis

    Raises
    ------
    TrialError
        If a trial failed, unless ``raise_on_failed_trial=False``.
    TuneError
        If the sweep cannot go on.

    Examples
    --------
    >>> import tempfile
    >>> from mltoolkit import tune
    >>> analysis = tune.run(
    ...     lambda config: config["x"] ** 2,
    ...     config={"x": tune.grid_search([3, -1, 2])},
    ...     metric="y",
    ...     mode="min",
    ...     storage_path=tempfile.mkdtemp(),
    ...     verbose=0,
    ... )
    >>> analysis.best_config
    {'x': -1}
    """
    refuse_unknown(run, unknown, _REMOVED)
    if isinstance(run_or_experiment, (list, tuple)):
        raise TypeError("`tune.run` runs one experiment, got a list. Use `tune.run_experiments` for several.")
    if isinstance(run_or_experiment, Experiment):
        experiment = run_or_experiment
        _refuse_beside_an_experiment(
            name=name,
            stop=stop,
            time_budget_s=time_budget_s,
            config=config,
            resources_per_trial=resources_per_trial,
            num_samples=None if num_samples == 1 else num_samples,
            storage_path=storage_path,
            local_dir=local_dir,
            checkpoint_config=checkpoint_config,
            keep_checkpoints_num=keep_checkpoints_num,
            checkpoint_score_attr=checkpoint_score_attr,
            checkpoint_freq=checkpoint_freq or None,
            checkpoint_at_end=checkpoint_at_end or None,
            log_to_file=log_to_file or None,
            trial_name_creator=trial_name_creator,
            trial_dirname_creator=trial_dirname_creator,
            max_failures=max_failures or None,
            restore=restore,
        )
        return run(
            experiment.run_identifier,
            name=experiment.name,
            fail_fast=fail_fast,
            chdir_to_trial_dir=chdir_to_trial_dir,
            metric=metric,
            mode=mode,
            search_alg=search_alg,
            scheduler=scheduler,
            verbose=verbose,
            progress_reporter=progress_reporter,
            callbacks=callbacks,
            resume=resume,
            resume_config=resume_config,
            reuse_actors=reuse_actors,
            raise_on_failed_trial=raise_on_failed_trial,
            max_concurrent_trials=max_concurrent_trials,
            seed=seed,
            **experiment.options,
        )
    if export_formats:
        raise NotImplementedError(
            f"`export_formats={export_formats!r}` is not supported. Write the files in `save_checkpoint`."
        )
    _, label = as_trainable(run_or_experiment)
    run_config = RunConfig(
        name=name,
        **({} if storage_path is None else {"storage_path": storage_path}),
        local_dir=local_dir,
        storage_filesystem=storage_filesystem,
        failure_config=FailureConfig(max_failures=max_failures, fail_fast=fail_fast),
        checkpoint_config=_checkpoint_config(
            checkpoint_config, keep_checkpoints_num, checkpoint_score_attr, checkpoint_freq, checkpoint_at_end
        ),
        sync_config=sync_config,
        verbose=verbose,
        stop=stop,
        callbacks=callbacks,
        progress_reporter=progress_reporter,
        log_to_file=log_to_file,
    )
    tune_config = TuneConfig(
        metric=metric,
        mode=mode,
        search_alg=search_alg,
        scheduler=scheduler,
        num_samples=num_samples,
        max_concurrent_trials=max_concurrent_trials,
        time_budget_s=time_budget_s,
        reuse_actors=reuse_actors,
        trial_name_creator=trial_name_creator,
        trial_dirname_creator=trial_dirname_creator,
        chdir_to_trial_dir=chdir_to_trial_dir,
        seed=seed,
    )
    definition = SweepDefinition(
        run_or_experiment, label, as_space(config), tune_config, run_config, resources_per_trial, restore
    )
    if resume or resume_config:
        if name is None:
            raise ValueError("`resume` goes on with the experiment of a `name`, which was not given.")
        folder = results_folder(run_config) / name
        how = resume_config or _parse_resume(resume)
        if can_restore(folder) or _must_exist(resume):
            kept = with_options_of(load_definition(folder, run_or_experiment, None), definition)
            return run_sweep(kept, experiment_path=folder, resume=how, raise_on_failed_trial=raise_on_failed_trial)
    return run_sweep(definition, raise_on_failed_trial=raise_on_failed_trial)


def _refuse_beside_an_experiment(**options: Any) -> None:
    given = [f"`{name}`" for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)} belong to the experiment: give them to `Experiment(...)`.")


def run_experiments(
    experiments: Experiment | Mapping[str, Any] | Sequence[Experiment | Mapping[str, Any]],
    scheduler: TrialScheduler | None = None,
    verbose: int | None = None,
    progress_reporter: ProgressReporter | None = None,
    resume: bool | str | None = None,
    resume_config: ResumeConfig | None = None,
    reuse_actors: bool | None = None,
    raise_on_failed_trial: bool = True,
    concurrent: bool = False,
    callbacks: Sequence[Callback] | None = None,
) -> list[Trial]:
    """Run experiments one after the other, each on the whole cluster.

    Parameters
    ----------
    experiments : Experiment, dict or list of these
        A dict has the form ``{"name": {"run": trainable, "config": ..., "stop": ...}}``.
    concurrent : bool, default=False
        True raises: experiments that share the cluster are better run as one sweep.
    scheduler, verbose, progress_reporter, resume, resume_config, reuse_actors, raise_on_failed_trial, callbacks
        See :func:`run`.

    Returns
    -------
    list of Trial
        Of all experiments.
    """
    if concurrent:
        raise NotImplementedError(
            "`concurrent=True` is not supported: experiments run one after the other. Put what should run together into "
            "one search space, for instance with `tune.grid_search` over the names of trainables."
        )
    trials: list[Trial] = []
    for experiment in _as_experiments(experiments):
        analysis = run(
            experiment,
            scheduler=scheduler,
            verbose=verbose,
            progress_reporter=progress_reporter,
            resume=resume,
            resume_config=resume_config,
            reuse_actors=reuse_actors,
            raise_on_failed_trial=raise_on_failed_trial,
            callbacks=callbacks,
        )
        trials += analysis.trials
    return trials


def _as_experiments(given: Any) -> list[Experiment]:
    if isinstance(given, Experiment):
        return [given]
    if isinstance(given, Mapping):
        return [Experiment.from_json(name, spec) for name, spec in given.items()]
    if isinstance(given, (list, tuple)) and given:
        return [experiment for item in given for experiment in _as_experiments(item)]
    raise TypeError(
        "`experiments` must be an Experiment, a dict {'name': {'run': trainable, ...}} or a list of these that is not "
        f"empty, got {given!r}."
    )


def _checkpoint_config(
    given: CheckpointConfig | dict[str, Any] | None,
    keep: int | None,
    score: str | None,
    frequency: int,
    at_end: bool,
) -> CheckpointConfig:
    if isinstance(given, dict):
        given = CheckpointConfig(**given)
    older: dict[str, Any] = {}
    if keep is not None:
        older["num_to_keep"] = keep
    if score is not None:
        older["checkpoint_score_attribute"] = score.removeprefix("min-")
        older["checkpoint_score_order"] = "min" if score.startswith("min-") else "max"
    if frequency:
        older["checkpoint_frequency"] = frequency
    if at_end:
        older["checkpoint_at_end"] = at_end
    if given is None:
        return CheckpointConfig(**older)
    if older:
        raise ValueError(
            f"`checkpoint_config` and the older {', '.join(f'`{name}`' for name in older)} are both given. Use the first."
        )
    return given


def _parse_resume(resume: bool | str | None) -> ResumeConfig:
    if resume is True or resume is None:
        return ResumeConfig()
    base, *flags = str(resume).upper().split("+")
    if base not in _RESUME_BASES or any(flag not in ("ERRORED", "RESTART_ERRORED") for flag in flags):
        raise ValueError(
            "`resume` must be True, 'LOCAL', 'AUTO' or 'ERRORED_ONLY', with '+ERRORED' or '+RESTART_ERRORED' after it "
            f"if failed trials should run again, got {resume!r}."
        )
    if base in ("PROMPT", "REMOTE"):
        raise NotImplementedError(f"resume={resume!r} is not supported. Use 'LOCAL' or 'AUTO'.")
    if base == "ERRORED_ONLY":
        return ResumeConfig(unfinished="skip", errored="restart")
    if "ERRORED" in flags:
        return ResumeConfig(errored="resume")
    return ResumeConfig(errored="restart" if flags else "skip")


def _must_exist(resume: bool | str | None) -> bool:
    return not (isinstance(resume, str) and resume.upper().startswith("AUTO"))

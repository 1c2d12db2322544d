"""From what users say about a sweep to one that is checked and complete."""

from __future__ import annotations

import inspect
import itertools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mltoolkit.train import RunConfig
from mltoolkit.tune import registry
from mltoolkit.tune.callback import Callback
from mltoolkit.tune.error import StorageError
from mltoolkit.tune.execution._settings import SweepSettings
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory, resource_dict_to_pg_factory
from mltoolkit.tune.schedulers import FIFOScheduler, TrialScheduler, create_scheduler
from mltoolkit.tune.search import (
    BasicVariantGenerator,
    ConcurrencyLimiter,
    SearchAlgorithm,
    Searcher,
    SearchGenerator,
    create_searcher,
)
from mltoolkit.tune.stopper import CombinedStopper, TimeoutStopper
from mltoolkit.tune.stopper._make import make_stopper
from mltoolkit.tune.trainable.trainable import Trainable
from mltoolkit.tune.trainable.util import check_trainable, trainable_name
from mltoolkit.tune.tune_config import TuneConfig

__all__ = ["as_space", "as_trainable", "build_settings", "experiment_folder", "results_folder"]

_TRUE = ("", "1", "true", "yes")


def as_trainable(trainable: Any) -> tuple[Any, str]:
    """A trainable and its name, from a function, a class, a registered name or a trainer."""
    if isinstance(trainable, str):
        return registry.get_trainable(trainable), trainable
    if not inspect.isclass(trainable) and hasattr(trainable, "as_trainable"):
        trainable = trainable.as_trainable()
    check_trainable(trainable)
    return trainable, trainable_name(trainable)


def as_space(param_space: Any) -> dict[str, Any]:
    """A search space as a dict; configuration objects with a ``to_dict`` are accepted."""
    if param_space is None:
        return {}
    if not isinstance(param_space, Mapping) and hasattr(param_space, "to_dict"):
        param_space = param_space.to_dict()
    if isinstance(param_space, Mapping):
        _check_called(param_space, "")
    else:
        raise TypeError(
            "The search space (`param_space`, or `config` of `tune.run`) must be a dict such as "
            f"{{'lr': tune.loguniform(1e-4, 1e-1)}}, got {type(param_space).__name__}."
        )
    return dict(param_space)


def _check_called(space: Mapping[str, Any], prefix: str) -> None:
    """Refuse distributions that were named but not called: they would pass as constants."""
    for key, value in space.items():
        if isinstance(value, Mapping):
            _check_called(value, f"{prefix}{key}/")
        elif inspect.isfunction(value) and value.__module__ == "mltoolkit.tune.search.sample":
            raise TypeError(
                f"The search space has the function `tune.{value.__name__}` itself at '{prefix}{key}'. Call it: "
                f"`tune.{value.__name__}(...)`."
            )


def results_folder(run_config: RunConfig) -> Path:
    """The folder that holds the folders of experiments."""
    for variable in ("MLTOOLKIT_RESULTS_DIR", "RAY_AIR_LOCAL_CACHE_DIR", "TUNE_RESULT_DIR"):
        if _is_default(run_config) and os.environ.get(variable):
            return Path(os.environ[variable]).expanduser().absolute()
    return Path(run_config.storage_path or "~/ray_results").expanduser().absolute()


def experiment_folder(run_config: RunConfig, trainable: str) -> Path:
    """Make an experiment's folder: that of its name, or a new one if it has none.

    Raises
    ------
    StorageError
        If it cannot be made or written to.
    """
    folder = results_folder(run_config) / (run_config.name or new_name(trainable))
    try:
        if run_config.name:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = _new_folder(folder)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"The experiment cannot be kept in {folder}: {error}. Give a folder that can be written as `storage_path`."
        ) from error
    return folder


def _new_folder(folder: Path) -> Path:
    """Make a folder that was not there: names are unique only to the second."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for suffix in itertools.chain([""], (f"_{number}" for number in itertools.count(2))):
        candidate = folder.with_name(folder.name + suffix)
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("there is always a next number")


def new_name(trainable: str) -> str:
    """Name of an experiment that was given none."""
    return f"{trainable}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"


def build_settings(
    trainable: Any,
    name: str,
    param_space: dict[str, Any],
    tune_config: TuneConfig,
    run_config: RunConfig,
    *,
    experiment_path: Path,
    trainable_label: str,
    resources: Any = None,
    restore_from: str | None = None,
) -> SweepSettings:
    """Put a sweep together.

    Raises
    ------
    TypeError, ValueError
        If the parts do not fit each other.
    """
    search_alg = _search_algorithm(tune_config)
    scheduler = _scheduler(tune_config)
    _check_checkpoint_config(trainable, trainable_label, run_config)
    _check_can_save(trainable, trainable_label, run_config, scheduler)
    metric, mode = tune_config.metric, tune_config.mode
    if not search_alg.set_search_properties(metric, mode, param_space):  # type: ignore[arg-type]
        own = getattr(search_alg, "metric", None), getattr(search_alg, "mode", None)
        if (metric and own[0] != metric) or (mode and own[1] != mode):
            raise ValueError(
                f"The search algorithm has metric={own[0]!r} and mode={own[1]!r}, the sweep metric={metric!r} and "
                f"mode={mode!r}. Give them in one place."
            )
    search_alg.prepare(tune_config.num_samples, seed=tune_config.seed)
    single = (metric, mode) if isinstance(metric, str) or metric is None else (None, None)
    if not scheduler.set_search_properties(*single, seed=tune_config.seed) and scheduler.metric != single[0]:  # type: ignore[arg-type]
        raise ValueError(
            f"{type(scheduler).__name__} has metric={scheduler.metric!r}, the sweep metric={metric!r}. "
            "Give it in one place."
        )
    stopper = make_stopper(run_config.stop)
    if tune_config.time_budget_s:
        stopper = CombinedStopper(stopper, TimeoutStopper(tune_config.time_budget_s))
    return SweepSettings(
        name=name,
        experiment_path=experiment_path,
        trainable=trainable,
        trainable_name=trainable_label,
        search_alg=search_alg,
        scheduler=scheduler,
        stopper=stopper,
        metric=metric or getattr(search_alg, "metric", None) or scheduler.metric,
        mode=mode or getattr(search_alg, "mode", None) or getattr(scheduler, "_mode", None),
        num_samples=tune_config.num_samples,
        seed=tune_config.seed,
        resources=_resources(resources),
        max_concurrent=tune_config.max_concurrent_trials or None,
        reuse_actors=tune_config.reuse_actors,
        failure_config=_given(run_config.failure_config),
        checkpoint_config=_given(run_config.checkpoint_config),
        callbacks=[*default_loggers(run_config), *(run_config.callbacks or ())],
        log_files=_log_files(run_config.log_to_file),
        trial_name_creator=tune_config.trial_name_creator,
        trial_dirname_creator=tune_config.trial_dirname_creator,
        change_directory=_changes_directory(tune_config),
        restore_from=restore_from,
    )


def default_loggers(run_config: RunConfig) -> list[Callback]:
    """The loggers that write Ray's files, except those the user has given."""
    if os.environ.get("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS") == "1":
        return []
    from mltoolkit.tune.logger import CSVLoggerCallback, JsonLoggerCallback, TBXLoggerCallback

    classes: list[type[Callback]] = [CSVLoggerCallback, JsonLoggerCallback, TBXLoggerCallback]
    return [cls() for cls in classes if not any(isinstance(given, cls) for given in run_config.callbacks or ())]


def _search_algorithm(tune_config: TuneConfig) -> SearchAlgorithm:
    search_alg = tune_config.search_alg
    if search_alg is None:
        return BasicVariantGenerator()
    if isinstance(search_alg, str):
        search_alg = create_searcher(search_alg)
    if isinstance(search_alg, ConcurrencyLimiter) and tune_config.max_concurrent_trials:
        raise ValueError(
            f"`max_concurrent_trials={tune_config.max_concurrent_trials}` and a ConcurrencyLimiter say the same thing "
            "twice. Use one of them."
        )
    if isinstance(search_alg, Searcher):
        return SearchGenerator(search_alg)
    if isinstance(search_alg, SearchAlgorithm):
        return search_alg
    raise TypeError(
        "`search_alg` must be a Searcher such as `OptunaSearch()`, a SearchAlgorithm or the name of one, "
        f"got {search_alg!r}."
    )


def _scheduler(tune_config: TuneConfig) -> TrialScheduler:
    scheduler = tune_config.scheduler
    if scheduler is None:
        return FIFOScheduler()
    if isinstance(scheduler, str):
        return create_scheduler(scheduler)
    if isinstance(scheduler, TrialScheduler):
        return scheduler
    raise TypeError(f"`scheduler` must be a TrialScheduler such as `ASHAScheduler()` or its name, got {scheduler!r}.")


def _resources(given: Any) -> PlacementGroupFactory | Callable[[dict[str, Any]], PlacementGroupFactory] | None:
    if given is None or isinstance(given, PlacementGroupFactory):
        return given
    if isinstance(given, Mapping):
        return resource_dict_to_pg_factory(given)
    if callable(given):
        return given
    raise TypeError(
        "`resources_per_trial` must be a dict such as {'cpu': 2, 'gpu': 1}, a PlacementGroupFactory or a function of "
        f"the config, got {given!r}."
    )


def _check_checkpoint_config(trainable: Any, name: str, run_config: RunConfig) -> None:
    config = _given(run_config.checkpoint_config)
    if not inspect.isclass(trainable) and (config.checkpoint_frequency or config.checkpoint_at_end):
        raise ValueError(
            "`checkpoint_frequency` and `checkpoint_at_end` are for class trainables, and "
            f"{name} is a function: it gives its own checkpoints, with `tune.report(metrics, checkpoint=...)`."
        )


def _check_can_save(trainable: Any, name: str, run_config: RunConfig, scheduler: TrialScheduler) -> None:
    """Refuse at once what would fail at the first checkpoint."""
    if not inspect.isclass(trainable):
        return
    missing = [m for m in ("save_checkpoint", "load_checkpoint") if getattr(trainable, m) is getattr(Trainable, m)]
    config = _given(run_config.checkpoint_config)
    who = type(scheduler).__name__ if scheduler.needs_checkpoints else None
    if config.checkpoint_frequency or config.checkpoint_at_end:
        who = who or "`checkpoint_config`"
    if missing and who:
        raise ValueError(
            f"{who} needs trials that can be saved, but {name} does not define {' and '.join(f'`{m}`' for m in missing)}."
        )


def _log_files(log_to_file: bool | str | tuple[str, str]) -> tuple[str | None, str | None]:
    if isinstance(log_to_file, bool):
        return ("stdout", "stderr") if log_to_file else (None, None)
    return (log_to_file, log_to_file) if isinstance(log_to_file, str) else log_to_file


def _changes_directory(tune_config: TuneConfig) -> bool:
    if tune_config.chdir_to_trial_dir is not None:
        return bool(tune_config.chdir_to_trial_dir)
    return os.environ.get("RAY_CHDIR_TO_TRIAL_DIR", "1").lower() in _TRUE


def _is_default(run_config: RunConfig) -> bool:
    return run_config.storage_path in (None, "~/ray_results")


def _given(part: Any) -> Any:
    assert part is not None, "RunConfig fills its parts in"
    return part

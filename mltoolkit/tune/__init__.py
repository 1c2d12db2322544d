"""Hyperparameter sweeps, with Ray Tune's API.

Names are loaded when they are first used, so that a program that only reports from a trial imports little.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.train import (
        Checkpoint,
        CheckpointConfig,
        FailureConfig,
        Result,
        RunConfig,
        SyncConfig,
        get_checkpoint,
        get_context,
        report,
    )
    from mltoolkit.tune.analysis import ExperimentAnalysis
    from mltoolkit.tune.callback import Callback
    from mltoolkit.tune.context import TuneContext, get_trial_dir, get_trial_id, get_trial_name, get_trial_resources
    from mltoolkit.tune.error import MissingMetricError, StorageError, TrialError, TuneError
    from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
    from mltoolkit.tune.experiment import Experiment
    from mltoolkit.tune.progress_reporter import CLIReporter, JupyterNotebookReporter, ProgressReporter
    from mltoolkit.tune.registry import register_env, register_trainable
    from mltoolkit.tune.result_grid import ResultGrid
    from mltoolkit.tune.schedulers import create_scheduler
    from mltoolkit.tune.search import create_searcher, grid_search
    from mltoolkit.tune.search.sample import (
        choice,
        lograndint,
        loguniform,
        qlograndint,
        qloguniform,
        qrandint,
        qrandn,
        quniform,
        randint,
        randn,
        sample_from,
        uniform,
    )
    from mltoolkit.tune.stopper import Stopper
    from mltoolkit.tune.trainable import Trainable, with_parameters, with_resources
    from mltoolkit.tune.trainable.checkpoint_dir import checkpoint_dir
    from mltoolkit.tune.tune import run, run_experiments
    from mltoolkit.tune.tune_config import ResumeConfig, TuneConfig
    from mltoolkit.tune.tuner import Tuner

__all__ = [
    "CLIReporter",
    "Callback",
    "Checkpoint",
    "CheckpointConfig",
    "Experiment",
    "ExperimentAnalysis",
    "FailureConfig",
    "JupyterNotebookReporter",
    "MissingMetricError",
    "PlacementGroupFactory",
    "ProgressReporter",
    "Result",
    "ResultGrid",
    "ResumeConfig",
    "RunConfig",
    "Stopper",
    "StorageError",
    "SyncConfig",
    "Trainable",
    "TrialError",
    "TuneConfig",
    "TuneContext",
    "TuneError",
    "Tuner",
    "checkpoint_dir",
    "choice",
    "create_scheduler",
    "create_searcher",
    "get_checkpoint",
    "get_context",
    "get_trial_dir",
    "get_trial_id",
    "get_trial_name",
    "get_trial_resources",
    "grid_search",
    "lograndint",
    "loguniform",
    "qlograndint",
    "qloguniform",
    "qrandint",
    "qrandn",
    "quniform",
    "randint",
    "randn",
    "register_env",
    "register_trainable",
    "report",
    "run",
    "run_experiments",
    "sample_from",
    "uniform",
    "with_parameters",
    "with_resources",
]

_HOMES = {
    "mltoolkit.train": (
        "Checkpoint CheckpointConfig FailureConfig Result RunConfig SyncConfig get_checkpoint get_context report"
    ),
    "mltoolkit.tune.analysis": "ExperimentAnalysis",
    "mltoolkit.tune.callback": "Callback",
    "mltoolkit.tune.context": "TuneContext get_trial_dir get_trial_id get_trial_name get_trial_resources",
    "mltoolkit.tune.error": "MissingMetricError StorageError TrialError TuneError",
    "mltoolkit.tune.execution.placement_groups": "PlacementGroupFactory",
    "mltoolkit.tune.experiment": "Experiment",
    "mltoolkit.tune.progress_reporter": "CLIReporter JupyterNotebookReporter ProgressReporter",
    "mltoolkit.tune.registry": "register_env register_trainable",
    "mltoolkit.tune.result_grid": "ResultGrid",
    "mltoolkit.tune.schedulers": "create_scheduler",
    "mltoolkit.tune.search": "create_searcher grid_search",
    "mltoolkit.tune.search.sample": (
        "choice lograndint loguniform qlograndint qloguniform qrandint qrandn quniform randint randn sample_from uniform"
    ),
    "mltoolkit.tune.stopper": "Stopper",
    "mltoolkit.tune.trainable": "Trainable with_parameters with_resources",
    "mltoolkit.tune.trainable.checkpoint_dir": "checkpoint_dir",
    "mltoolkit.tune.tune": "run run_experiments",
    "mltoolkit.tune.tune_config": "ResumeConfig TuneConfig",
    "mltoolkit.tune.tuner": "Tuner",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
_SUBMODULES = ("callback", "logger", "optuna", "plot", "schedulers", "search", "stopper", "trainable", "utils")


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is not None:
        value = globals()[name] = getattr(importlib.import_module(home), name)
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

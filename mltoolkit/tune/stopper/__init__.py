"""When trials, and experiments, end."""

from mltoolkit.tune.stopper._make import make_stopper
from mltoolkit.tune.stopper.dictionary import DictionaryStopper
from mltoolkit.tune.stopper.experiment_plateau import ExperimentPlateauStopper
from mltoolkit.tune.stopper.function_stopper import FunctionStopper
from mltoolkit.tune.stopper.maximum_iteration import MaximumIterationStopper
from mltoolkit.tune.stopper.noop import NoopStopper
from mltoolkit.tune.stopper.stopper import CombinedStopper, Stopper
from mltoolkit.tune.stopper.timeout import TimeoutStopper
from mltoolkit.tune.stopper.trial_plateau import TrialPlateauStopper

__all__ = [
    "CombinedStopper",
    "DictionaryStopper",
    "ExperimentPlateauStopper",
    "FunctionStopper",
    "MaximumIterationStopper",
    "NoopStopper",
    "Stopper",
    "TimeoutStopper",
    "TrialPlateauStopper",
    "make_stopper",
]

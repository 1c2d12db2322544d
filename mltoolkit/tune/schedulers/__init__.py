"""Schedulers: who runs next, and which trials go on."""

import importlib
from typing import TYPE_CHECKING, Any

from mltoolkit.tune.schedulers._create import LAZY, create_scheduler
from mltoolkit.tune.schedulers.async_hyperband import ASHAScheduler, AsyncHyperBandScheduler
from mltoolkit.tune.schedulers.hyperband import HyperBandScheduler
from mltoolkit.tune.schedulers.median_stopping_rule import MedianStoppingRule
from mltoolkit.tune.schedulers.pbt import PopulationBasedTraining
from mltoolkit.tune.schedulers.pbt_replay import PopulationBasedTrainingReplay
from mltoolkit.tune.schedulers.resource_changing_scheduler import ResourceChangingScheduler
from mltoolkit.tune.schedulers.trial_scheduler import Controller, FIFOScheduler, TrialScheduler

if TYPE_CHECKING:
    from mltoolkit.tune.schedulers.hb_bohb import HyperBandForBOHB
    from mltoolkit.tune.schedulers.pb2 import PB2

__all__ = [
    "PB2",
    "ASHAScheduler",
    "AsyncHyperBandScheduler",
    "Controller",
    "FIFOScheduler",
    "HyperBandForBOHB",
    "HyperBandScheduler",
    "MedianStoppingRule",
    "PopulationBasedTraining",
    "PopulationBasedTrainingReplay",
    "ResourceChangingScheduler",
    "TrialScheduler",
    "create_scheduler",
]


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(importlib.import_module(f"{__name__}.{LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Experiments and their trials."""

from typing import TYPE_CHECKING, Any

from mltoolkit.tune.experiment.trial import MetricAnalysis, Trial

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.experiment import Experiment

__all__ = ["Experiment", "MetricAnalysis", "Trial"]


def __getattr__(name: str) -> Any:
    if name == "Experiment":  # it stands above the modules that need Trial
        from mltoolkit.tune.experiment.experiment import Experiment

        return Experiment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

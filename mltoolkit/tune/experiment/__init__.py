"""Experiments and their trials."""

from mltoolkit.tune.experiment.trial import MetricAnalysis, Trial

__all__ = ["MetricAnalysis", "Trial"]

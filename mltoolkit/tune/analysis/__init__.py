"""Reading what came out of experiments."""

from mltoolkit.tune.analysis.experiment_analysis import ExperimentAnalysis

__all__ = ["ExperimentAnalysis"]

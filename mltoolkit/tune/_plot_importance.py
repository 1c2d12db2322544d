"""Importance of parameters, which Optuna computes."""

from __future__ import annotations

from typing import Any

from mltoolkit import _optional
from mltoolkit.tune._plot_data import PlottedTrial, Sweep, category, is_log_like, is_number

__all__ = ["importances"]


def importances(sweep: Sweep, trials: list[PlottedTrial], names: list[str], seed: int) -> dict[str, float]:
    """Shares of the variance of the metric that parameters explain, by Optuna's fANOVA on a study of the trials."""
    optuna: Any = _optional.require("optuna", purpose="parameter_importance", extra="optuna")
    _optional.require("sklearn", purpose="parameter_importance", extra="sklearn")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # that there is a study is nobody's concern here
    try:
        study = optuna.create_study(direction="minimize" if sweep.mode == "min" else "maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    spaces = {name: _distribution([trial.params[name] for trial in trials], optuna.distributions) for name in names}
    for trial in trials:
        params = {
            name: category(trial.params[name])
            if isinstance(spaces[name], optuna.distributions.CategoricalDistribution)
            else trial.params[name]
            for name in names
        }
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=trial.value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
    return found


def _distribution(values: list[Any], distributions: Any) -> Any:
    if all(is_number(value) for value in values):
        low, high, log = min(values), max(values), is_log_like(values)
        if all(isinstance(value, int) for value in values):
            return distributions.IntDistribution(low, high, log=log)
        return distributions.FloatDistribution(float(low), float(high), log=log)
    return distributions.CategoricalDistribution(sorted({category(value) for value in values}))

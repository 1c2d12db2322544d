"""Search with Optuna."""

from mltoolkit.tune.search.optuna.optuna_search import OptunaSearch

__all__ = ["OptunaSearch"]

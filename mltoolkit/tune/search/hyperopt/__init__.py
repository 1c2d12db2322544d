"""Search with HyperOpt."""

from mltoolkit.tune.search.hyperopt.hyperopt_search import HyperOptSearch

__all__ = ["HyperOptSearch"]

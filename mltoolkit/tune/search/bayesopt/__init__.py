"""Search with bayesian-optimization."""

from mltoolkit.tune.search.bayesopt.bayesopt_search import BayesOptSearch

__all__ = ["BayesOptSearch"]

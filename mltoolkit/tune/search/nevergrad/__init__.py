"""Search with Nevergrad."""

from mltoolkit.tune.search.nevergrad.nevergrad_search import NevergradSearch

__all__ = ["NevergradSearch"]

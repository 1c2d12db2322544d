"""The suggestions of BOHB."""

from mltoolkit.tune.search.bohb.bohb_search import TuneBOHB

__all__ = ["TuneBOHB"]

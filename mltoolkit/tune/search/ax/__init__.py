"""Search with Ax."""

from mltoolkit.tune.search.ax.ax_search import AxSearch

__all__ = ["AxSearch"]

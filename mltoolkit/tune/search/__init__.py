"""Search spaces and search algorithms."""

from mltoolkit.tune.search._create import create_searcher
from mltoolkit.tune.search._messages import UNDEFINED_METRIC_MODE, UNDEFINED_SEARCH_SPACE, UNRESOLVED_SEARCH_SPACE
from mltoolkit.tune.search.basic_variant import BasicVariantGenerator
from mltoolkit.tune.search.concurrency_limiter import ConcurrencyLimiter
from mltoolkit.tune.search.repeater import TRIAL_INDEX, Repeater
from mltoolkit.tune.search.search_algorithm import SearchAlgorithm, Suggestion
from mltoolkit.tune.search.search_generator import SearchGenerator
from mltoolkit.tune.search.searcher import Searcher
from mltoolkit.tune.search.variant_generator import grid_search

__all__ = [
    "TRIAL_INDEX",
    "UNDEFINED_METRIC_MODE",
    "UNDEFINED_SEARCH_SPACE",
    "UNRESOLVED_SEARCH_SPACE",
    "BasicVariantGenerator",
    "ConcurrencyLimiter",
    "Repeater",
    "SearchAlgorithm",
    "SearchGenerator",
    "Searcher",
    "Suggestion",
    "create_searcher",
    "grid_search",
]

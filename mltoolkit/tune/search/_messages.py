"""Texts of errors that several searchers raise; to be filled in with ``str.format``."""

from __future__ import annotations

__all__ = ["UNDEFINED_METRIC_MODE", "UNDEFINED_SEARCH_SPACE", "UNRESOLVED_SEARCH_SPACE"]

UNRESOLVED_SEARCH_SPACE = (
    "The `{par}` given to {cls} holds search space definitions of Tune. {cls} takes there a space in its own form only: "
    "give Tune's as `param_space` to `tune.Tuner()`, where it is converted."
)

UNDEFINED_SEARCH_SPACE = (
    "{cls} has no search space to suggest from. Give it one as `{space}`, or give `param_space` to `tune.Tuner()`."
)

UNDEFINED_METRIC_MODE = (
    "{cls} cannot suggest without knowing what to optimise: metric={metric!r}, mode={mode!r}. Give both to it or to "
    "`tune.TuneConfig()`."
)

"""Schedulers by name."""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any

from mltoolkit.tune.schedulers.trial_scheduler import TrialScheduler

__all__ = ["LAZY", "create_scheduler", "scheduler_class"]

_PACKAGE = "mltoolkit.tune.schedulers"

LAZY = {
    "PB2": "pb2",
    "HyperBandForBOHB": "hb_bohb",
}
"""Classes, and the module of each, that load when they are first used: they need more than the standard library."""

_NAMES = {
    "fifo": ("trial_scheduler", "FIFOScheduler"),
    "async_hyperband": ("async_hyperband", "AsyncHyperBandScheduler"),
    "asynchyperband": ("async_hyperband", "AsyncHyperBandScheduler"),
    "asha": ("async_hyperband", "ASHAScheduler"),
    "median_stopping_rule": ("median_stopping_rule", "MedianStoppingRule"),
    "medianstopping": ("median_stopping_rule", "MedianStoppingRule"),
    "hyperband": ("hyperband", "HyperBandScheduler"),
    "hb_bohb": ("hb_bohb", "HyperBandForBOHB"),
    "pbt": ("pbt", "PopulationBasedTraining"),
    "pbt_replay": ("pbt_replay", "PopulationBasedTrainingReplay"),
    "pb2": ("pb2", "PB2"),
    "resource_changing": ("resource_changing_scheduler", "ResourceChangingScheduler"),
}


def scheduler_class(name: str) -> type[TrialScheduler]:
    """The class of a scheduler's name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    key = name.lower() if isinstance(name, str) else name
    if key not in _NAMES:
        near = difflib.get_close_matches(str(key), _NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no scheduler {name!r}. Known names: {', '.join(_NAMES)}.{hint}")
    module, attribute = _NAMES[key]
    found: type[TrialScheduler] = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), attribute)
    return found


def create_scheduler(scheduler: str, **kwargs: Any) -> TrialScheduler:
    """Make a scheduler from its name.

    Parameters
    ----------
    scheduler : str
        ``"fifo"``, ``"asha"`` (or ``"async_hyperband"``), ``"hyperband"``, ``"median_stopping_rule"``, ``"pbt"``,
        ``"pbt_replay"``, ``"pb2"``, ``"hb_bohb"`` or ``"resource_changing"``.
    **kwargs
        Options of its class.

    Returns
    -------
    TrialScheduler

    Raises
    ------
    ValueError
        If there is no scheduler of that name.
    TypeError
        If it has no such option; the nearest one is named.

    Examples
    --------
    >>> create_scheduler("asha", metric="loss", mode="min", max_t=9, reduction_factor=3).milestones()
    [[1, 3, 9]]
    """
    found = scheduler_class(scheduler)
    known = [] if found.__init__ is object.__init__ else list(inspect.signature(found).parameters)
    unknown = [name for name in kwargs if name not in known]
    if unknown:
        raise TypeError("\n".join(_unknown_option(found.__name__, name, known) for name in unknown))
    return found(**kwargs)


def _unknown_option(owner: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{owner} has no option {name!r}.{hint} Its options: {', '.join(known) or 'none'}."

"""Algorithms by name, as Tune, checkpoints and the command line say it."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm import Algorithm

__all__ = ["ALGORITHMS", "get_algorithm_class", "get_trainable_cls", "name_of"]

ALGORITHMS = {"PPO": ("mltoolkit.rllib.algorithms.ppo.ppo", "PPO")}
"""Name, and the module and class behind it."""


def get_algorithm_class(name: str) -> type[Algorithm]:
    """The class of an algorithm.

    Parameters
    ----------
    name : str
        As in RLlib, such as ``"PPO"``.

    Returns
    -------
    type

    Raises
    ------
    ValueError
        If there is none of that name; those there are are listed.
    """
    entry = ALGORITHMS.get(name)
    if entry is None:
        folded = {known.lower(): known for known in ALGORITHMS}
        near = difflib.get_close_matches(str(name).lower(), folded, 1)
        hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
        raise ValueError(f"There is no algorithm {name!r}.{hint} Known: {', '.join(sorted(ALGORITHMS))}.")
    module, attribute = entry
    algorithm_class: type[Algorithm] = getattr(importlib.import_module(module), attribute)
    return algorithm_class


get_trainable_cls = get_algorithm_class


def name_of(algorithm_class: type[Any]) -> str:
    """The name of an algorithm's class; that of the nearest base that has one for a subclass of the user's."""
    for base in algorithm_class.__mro__:
        for name, (module, attribute) in ALGORITHMS.items():
            if (base.__module__, base.__name__) == (module, attribute):
                return name
    return algorithm_class.__name__

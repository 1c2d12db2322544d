"""Names for trainables and environments."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from typing import Any

__all__ = [
    "get_env_creator",
    "get_trainable",
    "get_trainable_cls",
    "install",
    "register",
    "register_env",
    "register_trainable",
    "registered",
    "registered_for_trials",
]

logger = logging.getLogger(__name__)

_trainables: dict[str, Any] = {}
# What reinforcement learning looks up by name, by kind; trials get it all.
_registered: dict[str, dict[str, Any]] = {"environments": {}, "models": {}, "action_distributions": {}}


def register_trainable(name: str, trainable: Any, warn: bool = True) -> None:
    """Give a trainable a name that `tune.run`, `Tuner` and the command line take.

    Registering a name again replaces it.

    Parameters
    ----------
    name : str
    trainable : callable or subclass of Trainable
    warn : bool, default=True
        Say so in the log when the trainable is neither a function nor a subclass of ``Trainable``.

    Raises
    ------
    TypeError
        If ``name`` is no string or ``trainable`` cannot be called.

    Examples
    --------
    >>> from mltoolkit import tune
    >>> tune.register_trainable("square", lambda config: {"y": config["x"] ** 2})
    """
    from mltoolkit.tune.trainable.util import check_trainable

    if not isinstance(name, str) or not name:
        raise TypeError(f"`name` must be a string that is not empty, got {name!r}.")
    check_trainable(trainable)
    if warn and not isinstance(trainable, type) and not hasattr(trainable, "__code__"):
        logger.info("Registered %s, which is neither a function nor a class, as trainable %r.", trainable, name)
    _trainables[name] = trainable


def get_trainable(name: str) -> Any:
    """The trainable of a name.

    Raises
    ------
    ValueError
        If there is none; the names that are known are listed.
    """
    if name in _trainables:
        return _trainables[name]
    # Algorithms of reinforcement learning have names without being registered; nothing heavy is imported to look.
    from mltoolkit.rllib.algorithms.registry import ALGORITHMS, get_algorithm_class

    if name in ALGORITHMS:
        return get_algorithm_class(name)
    names = sorted({*_trainables, *ALGORITHMS})
    near = difflib.get_close_matches(name, names, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = ", ".join(names)
    raise ValueError(
        f"No trainable is registered as {name!r}.{hint} Known: {known}. "
        f"Register yours with `tune.register_trainable({name!r}, trainable)`."
    )


def get_trainable_cls(trainable_name: str) -> Any:
    """The trainable of a name, under Ray's name for it: the class, or the function, which is a trainable as it is.

    Parameters
    ----------
    trainable_name : str

    Returns
    -------
    function or class

    Raises
    ------
    TuneError
        If there is none; the names that are known are listed.
    """
    from mltoolkit.tune.error import TuneError

    try:
        return get_trainable(trainable_name)
    except ValueError as error:
        raise TuneError(str(error)) from None


def register_env(name: str, env_creator: Callable[[dict[str, Any]], Any]) -> None:
    """Give an environment a name that reinforcement-learning configurations take.

    Parameters
    ----------
    name : str
    env_creator : callable
        Takes the ``env_config`` and returns an environment.
    """
    if not callable(env_creator):
        raise TypeError(f"`env_creator` must be callable with the env_config, got {type(env_creator).__name__}.")
    register("environments", name, env_creator)


def get_env_creator(name: str) -> Callable[[dict[str, Any]], Any] | None:
    """The environment registered under a name, or None."""
    return registered("environments").get(name)


def register(kind: str, name: str, value: Any) -> None:
    """Register something under a name, for this process and the trials that it starts.

    Parameters
    ----------
    kind : {"environments", "models", "action_distributions"}
    name : str
    value : object
    """
    _registered[kind][name] = value


def registered(kind: str) -> dict[str, Any]:
    """Everything of a kind by its name; a copy."""
    return dict(_registered[kind])


def registered_for_trials() -> dict[str, dict[str, Any]]:
    """What the processes of trials must know, by kind and name."""
    return {kind: dict(entries) for kind, entries in _registered.items()}


def install(entries: dict[str, dict[str, Any]]) -> None:
    """Take over what another process had registered."""
    for kind, values in entries.items():
        _registered[kind].update(values)

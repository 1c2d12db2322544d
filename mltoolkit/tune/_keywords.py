"""Misspelt keywords of constructors: errors that name the nearest one."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import Any

__all__ = ["check_keywords"]


def check_keywords(cls: type[Any]) -> None:
    """Let a class' constructor refuse unknown keywords with the nearest one that it takes; its signature stays.

    To be called from ``__init_subclass__``. Constructors that take ``**kwargs`` are left as they are.

    Examples
    --------
    >>> class Options:
    ...     def __init_subclass__(cls):
    ...         check_keywords(cls)
    >>> class Rungs(Options):
    ...     def __init__(self, grace_period=1):
    ...         self.grace_period = grace_period
    >>> Rungs(grace_perod=2)
    Traceback (most recent call last):
        ...
    TypeError: Rungs has no argument `grace_perod`. Did you mean `grace_period`? It takes grace_period.
    """
    plain_init = vars(cls).get("__init__")
    if not inspect.isfunction(plain_init):
        return
    signature = inspect.signature(plain_init)
    parameters = list(signature.parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]

    @functools.wraps(plain_init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise TypeError(
                    f"{cls.__name__} has no argument `{name}`.{hint} It takes {', '.join(known) or 'none'}."
                )
        plain_init(self, *args, **kwargs)

    init: Any = __init__
    init.__signature__ = signature  # also for those who do not follow `__wrapped__`
    owner: Any = cls
    owner.__init__ = init

"""The session that training runs in, and what its actors load at their start."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import mltoolkit

__all__ = ["import_without", "import_without_sklearn", "light_start"]

_PRELOAD = "MLTOOLKIT_PRELOAD"


@contextlib.contextmanager
def light_start() -> Iterator[None]:
    """Start the session, if there is none, and the actors inside the block, without loading the driver's modules first.

    A driver that trains has imported scikit-learn, pandas and SciPy's statistics, which take the fork server two seconds
    to load, and the actors need none of them: they compute on arrays with the native library.
    """
    given = os.environ.get(_PRELOAD)
    if given is None:
        os.environ[_PRELOAD] = "numpy"
    try:
        if not mltoolkit.is_initialized():
            mltoolkit.init()
        yield
    finally:
        if given is None:
            os.environ.pop(_PRELOAD, None)


def import_without(name: str, *others: str) -> None:
    """Import a library as if others that it can do without were not installed.

    They can be imported afterwards as ever. What is loaded already stays, and is seen.

    Parameters
    ----------
    name : str
        Such as ``"xgboost"``.
    *others : str
        Such as ``"sklearn"``, which only its estimators need.
    """
    if name in sys.modules:
        return
    hidden = [other for other in others if other not in sys.modules]
    for other in hidden:
        sys.modules[other] = None  # type: ignore[assignment]
    try:
        __import__(name)
    finally:
        for other in hidden:
            if sys.modules.get(other) is None:
                sys.modules.pop(other, None)


def import_without_sklearn(name: str) -> None:
    """Import a library that loads scikit-learn for its estimators, where only its native part is wanted.

    Parameters
    ----------
    name : str
        Such as ``"xgboost"``.
    """
    import_without(name, "sklearn")

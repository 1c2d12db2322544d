"""The session that training runs in, and what its actors load at their start."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import mltoolkit

__all__ = ["import_without_sklearn", "light_start"]

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


def import_without_sklearn(name: str) -> None:
    """Import a library that loads scikit-learn for its estimators, where only its native part is wanted.

    It takes the library for installed without scikit-learn, which each of them supports; scikit-learn itself can be
    imported afterwards as ever. Where one of the two is loaded already, nothing is gained and nothing changes.

    Parameters
    ----------
    name : str
        Such as ``"xgboost"``.
    """
    if name in sys.modules or "sklearn" in sys.modules:
        __import__(name)
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]
    try:
        __import__(name)
    finally:
        if sys.modules.get("sklearn") is None:
            sys.modules.pop("sklearn", None)

"""The session that training runs in, and what its actors load at their start."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Iterator

import mltoolkit

__all__ = ["import_without", "import_without_sklearn", "light_start"]

_PRELOAD = "MLTOOLKIT_PRELOAD"
_lock = threading.Lock()
_narrowing = 0


@contextlib.contextmanager
def light_start(module: str | None = None) -> Iterator[None]:
    """Start the session, if there is none, and the actors inside the block, without loading the driver's modules first.

    A driver that trains has imported scikit-learn, pandas and SciPy's statistics, which take a fork server two seconds to
    load, and the actors need none of them: they compute on arrays with the native library. Where the fork server can be a
    fork of the driver, it has them all at no cost.

    Parameters
    ----------
    module : str, optional
        The library, which the driver imports before it is forked.
    """
    if _PRELOAD not in os.environ and not mltoolkit.is_initialized() and _may_be_forked():
        if module is not None:
            importlib.import_module(module)
        mltoolkit.init()
    # Most of the time that the libraries themselves take to import, in each actor; where the driver was forked it is there.
    mltoolkit.util.preload_modules("scipy.sparse")
    with _narrow_preload():
        if not mltoolkit.is_initialized():
            mltoolkit.init(ignore_reinit_error=True)  # another thread may have been faster
        yield


@contextlib.contextmanager
def _narrow_preload() -> Iterator[None]:
    """Set the environment variable unless the user has; the last of several threads takes it away again."""
    global _narrowing
    with _lock:
        ours = _narrowing > 0 or _PRELOAD not in os.environ
        if ours:
            _narrowing += 1
            os.environ[_PRELOAD] = "numpy"
    try:
        yield
    finally:
        if ours:
            with _lock:
                _narrowing -= 1
                if not _narrowing:
                    os.environ.pop(_PRELOAD, None)


def _may_be_forked() -> bool:
    """Whether this process looks as if the session could fork it; it decides by itself."""
    return (
        sys.platform == "linux"
        and os.environ.get("MLTOOLKIT_ZYGOTE") != "fresh"
        and threading.active_count() == 1
        and threading.current_thread() is threading.main_thread()
    )


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

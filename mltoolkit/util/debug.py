"""Messages that are worth saying once."""

from __future__ import annotations

import threading
import time

_PERIOD_S = 60.0


class _Memory:
    """Which keys have been seen by this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: set[str] = set()
        self.disabled = False
        self.periodic = False
        self.last = 0.0


_memory = _Memory()


def log_once(key: str) -> bool:
    """Tell whether this is the first time that this process asks about a key.

    Parameters
    ----------
    key : str
        Names the message.

    Returns
    -------
    bool
        True the first time, and again a minute later if `enable_periodic_logging` was called; always False after
        `disable_log_once_globally`.

    Examples
    --------
    >>> from mltoolkit.util.debug import log_once
    >>> [log_once("an example"), log_once("an example")]
    [True, False]
    """
    now = time.monotonic()
    with _memory.lock:
        if _memory.disabled:
            return False
        if _memory.periodic and now - _memory.last > _PERIOD_S:
            _memory.seen.clear()
        if key in _memory.seen:
            return False
        _memory.seen.add(key)
        _memory.last = now
        return True


def disable_log_once_globally() -> None:
    """Make `log_once` return False in this process, whatever the key."""
    _memory.disabled = True


def enable_periodic_logging() -> None:
    """Make `log_once` forget what it has seen when a minute has passed since it last returned True."""
    _memory.periodic = True


def reset_log_once(key: str | None = None) -> None:
    """Forget one key, or all.

    Parameters
    ----------
    key : str, optional
        What to forget; everything if None.
    """
    with _memory.lock:
        if key is None:
            _memory.seen.clear()
        else:
            _memory.seen.discard(key)

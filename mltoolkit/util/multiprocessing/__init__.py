"""Process pools with the interface of the standard library's, on actors."""

from __future__ import annotations

from multiprocessing import TimeoutError

from mltoolkit.util.multiprocessing.pool import AsyncResult, Pool

__all__ = ["AsyncResult", "Pool", "TimeoutError"]

"""How many threads an update uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["thread_limit"]


@cache
def _controller() -> Any:
    # Finding the libraries takes milliseconds; torch and NumPy are loaded by now.
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def thread_limit(limit: int | None) -> Iterator[None]:
    """Let torch and NumPy use at most so many threads; the numbers from before come back afterwards."""
    before = torch.get_num_threads()
    if limit is None:
        yield
        return
    with _controller().limit(limits=limit):
        if limit < before:
            torch.set_num_threads(limit)
        try:
            yield
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)

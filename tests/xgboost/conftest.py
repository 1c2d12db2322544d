"""Executors of these tests begin with what each would load anew, those of other tests do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mltoolkit.core import modules
from mltoolkit.util.preloading import preload_modules


@pytest.fixture(autouse=True, scope="module")
def quick_starts(request: pytest.FixtureRequest) -> Iterator[None]:
    """The tests of failures, which come first, start actors as users' programs do; the others take XGBoost with them."""
    before = dict(modules._hinted)
    preload_modules("pytest", "psutil", "pandas")
    if request.module.__name__ != "test_xgboost_hostile":
        preload_modules("xgboost")
    yield
    modules._hinted.clear()
    modules._hinted.update(before)

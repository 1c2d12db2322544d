"""Executors of these tests begin with what each would load anew, those of other tests do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mltoolkit.core import modules
from mltoolkit.util.preloading import preload_modules


@pytest.fixture(autouse=True, scope="module")
def quick_starts() -> Iterator[None]:
    """Actors unpickle classes of these files, which import what is named here."""
    before = dict(modules._hinted)
    preload_modules("pytest", "psutil", "pandas", "mltoolkit._boosting.training")
    yield
    modules._hinted.clear()
    modules._hinted.update(before)

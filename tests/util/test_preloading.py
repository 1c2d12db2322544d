from __future__ import annotations

import sys
from typing import Any

import pytest


def test_executors_begin_with_what_was_asked_for(fresh: Any) -> None:
    from mltoolkit.util import preload_modules

    assert "colorsys" not in sys.modules
    fresh.init(num_cpus=1)

    @fresh.remote
    class Loaded:
        def look(self) -> bool:
            return "colorsys" in sys.modules

    preload_modules("colorsys", "no_such_module_anywhere")
    actor = Loaded.options(num_cpus=0).remote()
    assert fresh.get(actor.look.remote())
    assert "colorsys" not in sys.modules


def test_modules_are_given_by_name() -> None:
    from mltoolkit.util import preload_modules

    with pytest.raises(TypeError, match="by their names"):
        preload_modules(sys)  # type: ignore[arg-type]

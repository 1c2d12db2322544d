from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest


def test_executors_begin_with_what_was_asked_for(fresh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mltoolkit.util import preload_modules

    name = "imported_by_executors_alone"
    (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    fresh.init(num_cpus=1)

    @fresh.remote
    class Loaded:
        def look(self) -> bool:
            return name in sys.modules

    preload_modules(name, "no_such_module_anywhere")
    actor = Loaded.options(num_cpus=0).remote()
    assert fresh.get(actor.look.remote())
    assert name not in sys.modules


def test_modules_are_given_by_name() -> None:
    from mltoolkit.util import preload_modules

    with pytest.raises(TypeError, match="by their names"):
        preload_modules(sys)  # type: ignore[arg-type]

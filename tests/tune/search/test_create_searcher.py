"""Search algorithms by name, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mltoolkit.tune import search
from mltoolkit.tune.search import BasicVariantGenerator, create_searcher


@pytest.mark.parametrize("name", ["random", "variant_generator", "Random"])
def test_grid_and_random_search(name):
    made = create_searcher(name, max_concurrent=3, metric="loss", mode="min")
    assert isinstance(made, BasicVariantGenerator)
    assert made.max_concurrent == 3
    with pytest.raises(ValueError, match="`mode`"):
        create_searcher(name, mode="down")


def test_unknown_names_and_arguments():
    with pytest.raises(ValueError, match="'zoopt'. Known are .*'random'.*'optuna'"):
        create_searcher("zoopt")
    with pytest.raises(TypeError, match=r"no argument 'max_concurent'. Did you mean 'max_concurrent'\?"):
        create_searcher("random", max_concurent=3)
    with pytest.raises(TypeError, match="It takes 'points_to_evaluate'"):
        create_searcher("random", zzz=3)
    with pytest.raises(TypeError, match="must be the name"):
        create_searcher(BasicVariantGenerator)


def test_optuna():
    pytest.importorskip("optuna")
    made = create_searcher("optuna", metric="loss", mode="min")
    assert (type(made).__name__, made.metric) == ("OptunaSearch", "loss")


def test_what_is_exported_exists():
    assert all(hasattr(search, name) for name in search.__all__)


def test_importing_is_light():
    heavy = "{'numpy', 'pandas', 'torch', 'optuna', 'hyperopt', 'ax', 'rich'}"
    code = f"import sys, mltoolkit.tune.search; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The documentation builds, what it shows runs, and what it claims to exist does."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import runpy
import subprocess
import sys

import pytest
from helpers import ROOT, script_env

import mltoolkit
from mltoolkit._optional import is_installed

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
# A fence that says just "python" holds a program; one that cannot run on its own says "py".
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="a distribution without docs/")


def program_of(page):
    """All Python blocks of a page as one program, each at the line it has on the page."""
    text = page.read_text()
    lines = [""] * text.count("\n")
    for block in PYTHON_BLOCK.finditer(text):
        start = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[start : start + len(code)] = code
    return "\n".join(lines)


# Packages that the programs of a page are about; without them they cannot run.
NEEDS = {
    "coming-from-optuna": ["optuna", "pandas"],
    "coming-from-ray-lightning": ["lightning"],
    "lightning": ["lightning"],
    "lightgbm": ["lightgbm", "sklearn"],
    "xgboost": ["sklearn", "xgboost"],
    "coming-from-ray-tune": ["pandas"],
    "coming-from-ray-train": ["torch"],
    "train": ["torch"],
    "coming-from-rllib": ["gymnasium", "torch"],
    "coming-from-stable-baselines3": ["gymnasium", "torch"],
    "rllib": ["gymnasium", "pandas", "torch"],
    "train-boosting": ["lightgbm", "sklearn", "xgboost"],
    "tune": ["matplotlib", "pandas"],
    "tune-search": ["optuna", "pandas"],
}

WITH_PROGRAMS = [page for page in PAGES if PYTHON_BLOCK.search(page.read_text())]


@pytest.mark.timeout(400)
def test_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees"]
    # Not the pages that show our source: they take a third of the time, and nothing on them is written by hand.
    extensions = [name for name in runpy.run_path(str(DOCS / "conf.py"))["extensions"] if name != "sphinx.ext.viewcode"]
    build += ["-D", "extensions=" + ",".join(extensions)]
    done = subprocess.run(
        [*build, DOCS, tmp_path / "html"],
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stderr
    for page, name in (
        ("core", "mltoolkit.init"),
        ("tune", "mltoolkit.tune.Tuner"),
        ("train", "mltoolkit.train.report"),
        ("boosting", "mltoolkit.lightgbm.main.train"),
        ("rllib", "mltoolkit.rllib.algorithms.ppo.PPOConfig"),
    ):
        reference = (tmp_path / "html" / "api" / f"{page}.html").read_text()
        assert f'id="{name}"' in reference
        assert "Parameters" in reference


def test_pages_hold_programs():
    pages = {page.stem for page in WITH_PROGRAMS}
    assert {"README", "tasks", "actors", "objects", "utilities", "scikit-learn", "tune", "tune-schedulers"} <= pages
    assert set(NEEDS) <= pages


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=lambda page: page.stem)
def test_programs_on_a_page(page, tmp_path):
    missing = [package for package in NEEDS.get(page.stem, []) if not is_installed(package)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    script = tmp_path / f"page_{page.stem}.py"  # a page may have the name of the package that it imports
    script.write_text(program_of(page))
    env = script_env({"MLTOOLKIT_RESULTS_DIR": str(tmp_path / "results")})
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def supported_names(*pages):
    """The names in the first column of the tables "Supported names", with ``ray`` as their root."""
    names = []
    for page in pages:
        section = (DOCS / page).read_text().partition("## Supported names")[2].partition("\n## ")[0]
        for line in section.splitlines():
            if line.startswith("| `"):
                names += re.findall(r"`([\w.]+)", line.split("|")[1])
    return names


def find(name):
    root, *rest = name.split(".")
    found = {"ray": mltoolkit}[root]
    for part in rest:
        if not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    return found


SUPPORTED = supported_names("coming-from-ray.md", "coming-from-ray-tune.md") if DOCS.is_dir() else []


@pytest.mark.parametrize("name", SUPPORTED)
def test_names_that_are_said_to_exist_do(name):
    assert find(name) is not None


@pytest.mark.skipif(not is_installed("torch") or not is_installed("gymnasium"), reason="needs gymnasium, torch")
def test_names_of_rllib_that_are_said_to_exist_do():
    names = supported_names("coming-from-rllib.md")
    assert len(names) > 60
    # In a process of its own, since it loads all of torch.
    program = "import sys, test_docs\nfor name in sys.argv[1:]: assert test_docs.find(name) is not None"
    env = script_env({"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])})
    subprocess.run([sys.executable, "-c", program, *names], check=True, env=env, timeout=100)


def modules():
    found = pkgutil.walk_packages(mltoolkit.__path__, "mltoolkit.", onerror=lambda name: None)
    return [info.name for info in found if not info.name.endswith("__main__")]


def test_doctests_are_found():
    finder = doctest.DocTestFinder()
    assert any(test.examples for test in finder.find(importlib.import_module("mltoolkit.compat")))


# Modules that are nothing without a package which is not always there.
OF_PACKAGES = {"mltoolkit.rllib._sb3_vec_env": "stable_baselines3"}


@pytest.mark.parametrize("name", modules())
def test_doctests(name):
    if name in OF_PACKAGES and not is_installed(OF_PACKAGES[name]):
        pytest.skip(f"needs {OF_PACKAGES[name]}")
    module = importlib.import_module(name)
    try:
        result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    finally:
        if any(test.examples for test in doctest.DocTestFinder().find(module)):
            mltoolkit.shutdown()
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples failed; see the output above"

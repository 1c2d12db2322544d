"""Imports point one way: libraries, facade, core, Dask; and `import mltoolkit` loads little."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, script_env

PACKAGE = ROOT / "mltoolkit"

# The facade re-exports the core; these modules do so under the paths that Ray gives the names.
FACADE = {
    "mltoolkit",
    "mltoolkit.actor",
    "mltoolkit.exceptions",
    "mltoolkit.runtime_context",
    "mltoolkit.util",
    "mltoolkit.util.check_serialize",
    "mltoolkit.util.dask",
    "mltoolkit.util.placement_group",
    "mltoolkit.util.preloading",
    "mltoolkit.util.scheduling_strategies",
    "mltoolkit.util.seeding",
    "mltoolkit.util.serialization",
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@functools.cache
def imported(name: str, path: Path) -> set[str]:
    """Absolute names that a module imports anywhere, inside functions too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found.update((base, *(f"{base}.{alias.name}" for alias in node.names)))
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_there_is_something_to_check():
    names = [name for name, _ in modules()]
    assert "mltoolkit" in names
    assert any(within(name, "mltoolkit.core") for name in names)


def test_only_the_core_imports_distributed():
    guilty = {
        (name, other)
        for name, path in modules()
        if not within(name, "mltoolkit.core")
        for other in imported(name, path)
        if within(other, "distributed") or within(other, "dask.distributed")
    }
    # The command line starts Dask's own scheduler and worker, as programs of their own.
    assert {g for g in guilty if g[0] not in {"mltoolkit.cli", "mltoolkit._processes", "mltoolkit._status"}} == set()


def test_libraries_use_the_facade_only():
    guilty = {
        (name, other)
        for name, path in modules()
        if not within(name, "mltoolkit.core") and name not in FACADE
        for other in imported(name, path)
        if within(other, "mltoolkit.core")
    }
    assert guilty == set()


def test_core_knows_nothing_of_the_libraries():
    libraries = ("tune", "train", "rllib", "xgboost", "lightgbm", "lightning", "data", "serve", "util.joblib")
    guilty = {
        (name, other)
        for name, path in modules()
        if within(name, "mltoolkit.core")
        for other in imported(name, path)
        if any(within(other, f"mltoolkit.{library}") for library in libraries)
    }
    assert guilty == set()


def test_nothing_imports_ray():
    guilty = {(name, other) for name, path in modules() for other in imported(name, path) if within(other, "ray")}
    assert guilty == set()


HEAVY = [
    "torch",
    "pandas",
    "sklearn",
    "scipy",
    "xgboost",
    "lightgbm",
    "lightning",
    "gymnasium",
    "joblib",
    "distributed",
    "dask",
    "tornado",
    "bokeh",
    "ray",
]


def test_import_loads_nothing_heavy_and_changes_nothing():
    source = f"""
import os, sys, threading, signal
env, threads, handler = dict(os.environ), threading.active_count(), signal.getsignal(signal.SIGINT)
import mltoolkit
print([m for m in {HEAVY!r} if m in sys.modules])
assert env == dict(os.environ), "the environment was changed"
assert threads == threading.active_count(), "a thread was started"
assert handler == signal.getsignal(signal.SIGINT), "a signal handler was set"
assert not mltoolkit.is_initialized()
import logging
assert not logging.getLogger().handlers
"""
    done = subprocess.run([sys.executable, "-c", source], env=script_env(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert done.stderr == ""


# Each import happens in a fork of an interpreter that has imported nothing of ours; what is not ours it imports once.
IMPORT_EACH = """
import os, sys, traceback
import cloudpickle, distributed, psutil

assert not [name for name in sys.modules if name.startswith("mltoolkit")]
for name in sys.argv[1:]:
    if not os.fork():
        try:
            __import__(name)
            print("imported", name, flush=True)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.wait()
"""
CORE = [name for name, _ in modules() if within(name, "mltoolkit.core")]


@pytest.fixture(scope="module")
def imported_first():
    """What became of importing each module of the core in an interpreter that had not imported any."""
    command = [sys.executable, "-c", IMPORT_EACH, *CORE]
    return subprocess.run(command, env=script_env(), capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("name", CORE)
def test_every_core_module_can_be_imported_first(name, imported_first):
    assert f"imported {name}" in imported_first.stdout.splitlines(), imported_first.stderr


def test_modules_stay_small():
    """Not a style gate: a core module of more than a thousand lines has certainly taken in a second concept."""
    long = {str(p.relative_to(ROOT)): n for _, p in modules() if (n := len(p.read_text().splitlines())) > 1000}
    assert long == {}

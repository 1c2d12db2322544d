"""Fixtures for every test: one shared runtime, a fresh one on demand, and a check that nothing is left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [p for p in [str(Path(__file__).resolve().parent)] if p not in sys.path]

# Tests start hundreds of interpreters, and each would compile anew what it imports of ours.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A run in the background ignores Ctrl-C, one under `nohup` the end of its terminal, and every program that tests start would
# inherit that. A handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# Folders of our own, set before anything imports mltoolkit: what a session leaves can then be told from what other
# programs on the host keep. The paths stay short, since sockets live in them. With pytest-xdist each process has its own,
# the one that runs no test included.
_SHM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_FOLDERS = {
    "MLTOOLKIT_TMPDIR": tempfile.mkdtemp(prefix="mlt-"),
    "MLTOOLKIT_SHM_DIR": tempfile.mkdtemp(prefix="mlt-tests-", dir=_SHM),
}
os.environ.update(_FOLDERS)
# This process collects tests of every library, so it has far more imported than a driver has, and each fresh session would
# import all of it once more. Programs that tests start do what users' programs do: `helpers.script_env` takes it away.
os.environ.setdefault("MLTOOLKIT_PRELOAD", "numpy")
# Experiments that are given no folder, by examples and programs for instance, go here rather than into the home folder.
_RESULTS = tempfile.mkdtemp(prefix="mlt-results-")
os.environ["MLTOOLKIT_RESULTS_DIR"] = _RESULTS

import helpers  # noqa: E402

import mltoolkit as ray  # noqa: E402

SHARED_CPUS = 4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse addresses in names of tests: the processes of a run would disagree, and none of them run anything."""
    found = [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]{6}", item.nodeid)]
    if found:
        raise pytest.UsageError(
            "\n".join(["These tests have addresses in their names. Give their parameters `ids`:", *found])
        )


def pytest_unconfigure() -> None:
    """Remove the folders of this process, also where no test ran."""
    for folder in (*_FOLDERS.values(), _RESULTS):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """After the last test: no child process, socket, temporary file or shared-memory segment."""
    before = {p.pid for p in helpers.family()}
    yield
    ray.shutdown()
    try:
        helpers.wait_until(
            lambda: not [p for p in helpers.family() if p.pid not in before], 10, "children of the test run end"
        )
        helpers.wait_until(lambda: not helpers.leftovers(*_FOLDERS.values()), 10, "session files are removed")
    except AssertionError as error:
        families = [(p.pid, p.cmdline()) for p in helpers.family() if p.pid not in before]
        raise AssertionError(f"left behind: {families} {helpers.leftovers(*_FOLDERS.values())}") from error


@pytest.fixture(autouse=True)
def hints_end_with_the_test() -> Iterator[None]:
    """What a test has executors begin with, torch and Lightning for instance, costs sessions of later tests seconds."""
    from mltoolkit.core import modules

    before = dict(modules._hinted)
    yield
    modules._hinted.clear()
    modules._hinted.update(before)


@pytest.fixture
def runtime() -> Any:
    """The runtime that many tests share, with four CPUs; started again if a test in between needed its own."""
    if ray.is_initialized() and ray.cluster_resources().get("CPU") != SHARED_CPUS:
        ray.shutdown()  # what a test has started by itself, by `Parallel` or `Pool` for instance
    if not ray.is_initialized():
        ray.init(num_cpus=SHARED_CPUS)
    return ray


@pytest.fixture
def fresh() -> Iterator[Any]:
    """No runtime before the test, none after it: the test calls ``init`` itself."""
    ray.shutdown()
    yield ray
    ray.shutdown()


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[str], helpers.Gate]:
    """Make named gates that any process can open or wait for."""
    return lambda name="gate": helpers.Gate(tmp_path / f"gate-{name}")


@pytest.fixture
def tally(tmp_path: Path) -> Callable[[str], helpers.Tally]:
    """Make named tallies that any process can add to."""
    return lambda name="tally": helpers.Tally(tmp_path / f"tally-{name}")

"""Which modules the fork server should have loaded, and whether code has changed on disk since."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import time
from collections.abc import Iterable
from types import ModuleType

# Drivers' tools: they start threads, own terminals or sockets, and no task needs them.
_NEVER_PRELOAD = frozenset(
    {
        "IPython", "ipykernel", "zmq", "tornado", "distributed", "dask", "jupyter_client", "jupyter_core", "traitlets",
        "pytest", "_pytest", "pluggy", "debugpy", "pydevd", "mltoolkit", "nbclient", "pip", "setuptools", "coverage",
        "prompt_toolkit", "bokeh", "ray", "uvloop", "matplotlib_inline", "comm", "psutil", "rich", "py", "xdist", "execnet",
        # Names that `mltoolkit.compat` gives to its own modules, even where the packages are installed.
        "xgboost_ray", "lightgbm_ray", "ray_lightning",
    }
)  # fmt: skip


def _directories(paths: Iterable[str | None]) -> tuple[str, ...]:
    """Folders as they are named, and as they are."""
    known = [path for path in paths if path]
    return tuple({path + os.sep for path in known} | {os.path.realpath(path) + os.sep for path in known})


# What `pip install --user` has put into the home folder is installed too, where the interpreter looks there.
_SITE_DIRECTORIES = _directories(
    [
        *(sysconfig.get_path(key) for key in ("purelib", "platlib")),
        site.getusersitepackages() if site.ENABLE_USER_SITE else None,
    ]
)
_STDLIB_DIRECTORIES = _directories(sysconfig.get_path(key) for key in ("stdlib", "platstdlib"))
INSTALLED_DIRECTORIES = (*_SITE_DIRECTORIES, *_STDLIB_DIRECTORIES)
"""Where modules lie that no program edits."""


_hinted: dict[str, None] = {}


def hint(names: Iterable[str]) -> None:
    """Have the fork server load modules that this process has not loaded itself, from the next executor on."""
    _hinted.update(dict.fromkeys(names))


def hinted() -> tuple[str, ...]:
    """What :func:`hint` was told of."""
    return tuple(_hinted)


def count() -> int:
    """A number that changes when there may be something new to preload."""
    return len(sys.modules) + len(_hinted)


def preloadable_modules() -> list[str]:
    """Return the installed third-party modules that this process has loaded, in the order it did, and those hinted at.

    ``MLTOOLKIT_PRELOAD`` narrows them down to some packages (comma-separated, or none at all when it is empty): executors
    then import the others when they need them, and a driver that has imported much starts its first executor sooner. What
    was asked for with :func:`hint` is loaded in any case.
    """
    wanted = os.environ.get("MLTOOLKIT_PRELOAD")
    allowed = None if wanted is None else {package.strip() for package in wanted.split(",")}
    names = []
    for name, module in list(sys.modules.items()):
        root = name.partition(".")[0]
        if root in _NEVER_PRELOAD or root.startswith("_") or not isinstance(module, ModuleType):
            continue
        if allowed is not None and root not in allowed:
            continue
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(_SITE_DIRECTORIES):
            names.append(name)
    known = set(names)
    return names + [name for name in _hinted if name not in known]


class CodeWatch:
    """Notice that the user's modules have changed on disk, so that executors which loaded the old ones are replaced.

    A look costs a `stat` for each of the user's modules. Looks are spaced so that they take a twentieth of a burst's time at
    most: some milliseconds, faster than anybody edits, reloads and submits. What counts is the processor's time: a look
    that a busy machine interrupted would otherwise put off the next one for seconds.
    """

    SHARE = 0.05
    MAX_PAUSE_S = 0.1

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._next_look = 0.0
        self._count = 0
        self._watched: dict[str, str] = {}
        self.changed()

    def changed(self) -> bool:
        """Return whether a file has changed since the last look."""
        now = time.monotonic()
        if now < self._next_look and len(sys.modules) == self._count:
            return False  # a new module must be seen before it changes for the first time
        if len(sys.modules) != self._count:
            self._count = len(sys.modules)
            self._find_user_modules()
        changed = False
        started = time.thread_time()
        for file in self._watched.values():
            try:
                modified = os.stat(file).st_mtime
            except OSError:
                continue
            if self._times.setdefault(file, modified) != modified:
                self._times[file] = modified
                changed = True
        self._next_look = time.monotonic() + min((time.thread_time() - started) / self.SHARE, self.MAX_PAUSE_S)
        return changed

    def _find_user_modules(self) -> None:
        for name, module in list(sys.modules.items()):
            if name in self._watched or name == "__main__" or name.partition(".")[0] == "mltoolkit":
                continue
            file = getattr(module, "__file__", None)
            if not isinstance(file, str) or not file.endswith(".py"):
                continue
            if file.startswith(INSTALLED_DIRECTORIES):
                continue
            self._watched[name] = file

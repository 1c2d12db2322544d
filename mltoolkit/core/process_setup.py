"""What an executor does to its process: environment, streams, threads of native libraries, random state."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

from mltoolkit.core.submission import Submission
from mltoolkit.core.zygote import THREAD_VARIABLES

_WITH_THREADS = ("numpy", "scipy", "sklearn", "torch", "xgboost", "lightgbm")


def prepare(boot: dict[str, Any]) -> None:
    """Make a fresh fork (or spawn) ready for user code."""
    sys.stdout = open(1, "w", buffering=1, closefd=False, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    logging.basicConfig(level=boot.get("logging_level", logging.INFO), stream=sys.stderr, format="%(message)s")
    reseed(boot["seed"])
    set_threads(boot["threads"], boot["user_thread_variables"])
    if boot.get("compat"):
        os.environ["MLTOOLKIT_COMPAT"] = "1"
    install_compat()


def reseed(seed: int) -> None:
    """Give this process random streams of its own; equal seeds give equal streams, whenever a library is imported."""
    random.seed(seed)
    seeders: dict[str, Callable[[Any], object]] = {
        "numpy.random": lambda module: module.seed(seed % 2**32),
        "torch": lambda module: module.manual_seed(seed),
    }
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _SeedOnImport)]
    late = {}
    for name, seeder in seeders.items():
        module = sys.modules.get(name)
        if module is None:
            late[name] = seeder
        elif hasattr(module, "seed"):
            seeder(module)
    if late:
        sys.meta_path.insert(0, _SeedOnImport(late))


class _SeedOnImport:
    """Seeds libraries when they are imported, as those that were there at the start have been."""

    def __init__(self, seeders: dict[str, Callable[[Any], object]]) -> None:
        self.seeders = seeders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find a module as the other finders do; seed it once it has been run."""
        seeder = self.seeders.pop(name, None)
        if seeder is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        loader: Any = spec.loader
        if hasattr(loader, "exec_module"):
            run = loader.exec_module

            def run_and_seed(module: Any) -> None:
                run(module)
                seeder(module)

            loader.exec_module = run_and_seed
        return spec


def narrow_libraries() -> Callable[[], object]:
    """Let the native libraries of this process use one thread; return what undoes it.

    For the moment of a fork: in the child, where their threads are gone, it would start new ones.
    """
    if not any(name in sys.modules for name in _WITH_THREADS):
        return lambda: None
    import threadpoolctl

    return threadpoolctl.threadpool_limits(1).restore_original_limits


def set_threads(count: int, user_variables: dict[str, str]) -> None:
    """Let native libraries use `count` threads, those already loaded included, unless the user set the variables."""
    if any(name in user_variables for name in THREAD_VARIABLES):
        for name in THREAD_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(user_variables)
        with contextlib.suppress(ValueError):
            count = int(user_variables.get("OMP_NUM_THREADS", count))
    else:
        for name in THREAD_VARIABLES:
            os.environ[name] = str(count)
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", str(count))  # what joblib's cpu_count() says in here
    if count != 1 and any(name in sys.modules for name in _WITH_THREADS):
        # What is loaded uses one thread: the fork server was told to when it loaded it, or when it was forked.
        import threadpoolctl

        threadpoolctl.threadpool_limits(count)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(count)


def apply_submission(submission: Submission, boot: dict[str, Any]) -> None:
    """Give user code the directory, import path and environment that its caller had."""
    if boot.get("remote"):
        _apply_on_other_host(submission, boot)
        return
    _apply_here(submission, boot)
    install_compat()


def _apply_here(submission: Submission, boot: dict[str, Any]) -> None:
    environ = dict(submission.environ)
    for name in (*THREAD_VARIABLES, "LOKY_MAX_CPU_COUNT"):
        if name in environ:
            continue
        if name in os.environ:
            environ[name] = os.environ[name]
    environ.update(boot["environment"])
    for name in list(os.environ):
        if name not in environ:
            del os.environ[name]
    for name, value in environ.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    path = list(submission.path)
    directory = boot.get("working_dir") or submission.cwd
    try:
        os.chdir(directory)
    except OSError:
        if boot.get("working_dir"):
            raise
    if boot.get("working_dir"):
        path.insert(0, boot["working_dir"])
    if path != sys.path:
        sys.path[:] = path
        import importlib

        importlib.invalidate_caches()


def _apply_on_other_host(submission: Submission, boot: dict[str, Any]) -> None:
    """The same where paths and variables of the driver's host may mean nothing: add, replace nothing."""
    os.environ.update(boot["environment"])
    sys.path[:] = list(dict.fromkeys([*sys.path, *submission.path]))
    for directory in (boot.get("working_dir"), submission.cwd):
        if directory and os.path.isdir(directory):
            os.chdir(directory)
            break


def install_compat() -> None:
    """Make ``import ray`` mean mltoolkit in here, if it does in the driver."""
    if os.environ.get("MLTOOLKIT_COMPAT") == "1":
        from mltoolkit import compat

        compat.install()


def flush_streams() -> None:
    """Write out what user code has printed."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        pass


def run_exit_handlers() -> None:
    """Run what user code registered with atexit; os._exit skips it."""
    import atexit

    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()


def kill_own_group() -> None:
    """End the processes that user code started, before this one ends."""
    pid = os.getpid()
    if os.getpgid(0) != pid:
        return
    for child in _group_members(pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)


def _group_members(group: int) -> list[int]:
    members = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if not name.isdigit() or int(name) == group:
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
            if int(fields[2]) == group:
                members.append(int(name))
        except (OSError, ValueError, IndexError):
            continue
    return members

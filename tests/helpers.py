"""What many tests need: deadlines instead of sleeps, gates and tallies for all processes, scripts as programs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.01


def wait_until(predicate: Callable[[], T], timeout: float = 15.0, message: str = "") -> T:
    """Return the first true value of ``predicate``; fail when there is none within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {message or predicate}")
        time.sleep(POLL_S)


class Gate:
    """An event that any process of the host can open or wait for, kept as a file."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def open(self) -> None:
        Path(self.path).touch()

    def is_open(self) -> bool:
        return os.path.exists(self.path)

    def wait(self, timeout: float = 60.0) -> bool:
        wait_until(self.is_open, timeout, f"gate {self.path} opens")
        return True

    async def wait_async(self, timeout: float = 60.0) -> bool:
        deadline = time.monotonic() + timeout
        while not self.is_open():
            if time.monotonic() > deadline:
                raise AssertionError(f"gate {self.path} did not open within {timeout} s")
            await asyncio.sleep(POLL_S)
        return True


class Tally:
    """A list of words that any process of the host can append to, kept as a file."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def add(self, word: object = "x") -> int:
        """Append one word; return how many there are now."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, f"{word}\n".encode())
        finally:
            os.close(fd)
        return self.count()

    def words(self) -> list[str]:
        return Path(self.path).read_text().split("\n")[:-1] if os.path.exists(self.path) else []

    def count(self) -> int:
        return len(self.words())


def script_env(extra: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Environment for a subprocess that is to import this checkout; a value of ``None`` removes the name."""
    env = dict(os.environ)
    env.pop("MLTOOLKIT_PRELOAD", None)
    env["PYTHONPATH"] = os.pathsep.join(p for p in (env.get("PYTHONPATH"), str(ROOT)) if p)
    for name, value in (extra or {}).items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    return env


def start_script(
    source: str,
    folder: Path,
    *args: str,
    python_args: Sequence[str] = (),
    env: Mapping[str, str | None] | None = None,
    name: str = "script.py",
    **popen: Any,
) -> subprocess.Popen[str]:
    """Write ``source`` into ``folder`` and start it as a program of its own, its output piped."""
    path = folder / name
    path.write_text(textwrap.dedent(source))
    popen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": str(folder), **popen}
    return subprocess.Popen([sys.executable, *python_args, str(path), *args], env=script_env(env), **popen)


def run_script(
    source: str,
    folder: Path,
    *args: str,
    python_args: Sequence[str] = (),
    env: Mapping[str, str | None] | None = None,
    name: str = "script.py",
    timeout: float = 60.0,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run ``source`` as a program of its own and return what it printed; fail if it fails, unless told otherwise."""
    process = start_script(source, folder, *args, python_args=python_args, env=env, name=name)
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException as error:  # a time-out of the test included: nothing may stay behind
        end_family(process.pid)
        out, err = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise AssertionError(f"script did not end within {timeout} s\nstdout:\n{out}\nstderr:\n{err}") from None
    if check and process.returncode != 0:
        raise AssertionError(f"script ended with {process.returncode}\nstdout:\n{out}\nstderr:\n{err}")
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def family(pid: int | None = None) -> list[psutil.Process]:
    """Living descendants of a process (this one by default); zombies and the standard library's own are left out."""
    try:
        found = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [p for p in found if alive(p) and not _is_of_multiprocessing(p)]


def _is_of_multiprocessing(process: psutil.Process) -> bool:
    try:
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def alive(process: psutil.Process | int) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_family(pid: int) -> None:
    """Kill a process and its descendants."""
    doomed = family(pid)
    try:
        doomed.append(psutil.Process(pid))
    except psutil.NoSuchProcess:
        pass
    for process in doomed:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass


def segment_folder() -> Path:
    """Where sessions keep their shared-memory segments."""
    return Path(os.environ.get("MLTOOLKIT_SHM_DIR", "/dev/shm"))


def stored_bytes() -> int:
    """Bytes that all segments of the sessions under test take now."""
    total = 0
    for folder, _, names in os.walk(segment_folder()):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def leftovers(*folders: str | Path) -> list[str]:
    """Files, sockets and folders of sessions inside ``folders``, the folders themselves left out."""
    found = []
    for top in folders:
        for folder, dirs, names in os.walk(top):
            found += [os.path.join(folder, n) for n in names]
            found += [os.path.join(folder, d) for d in dirs if folder == str(top)]
    return sorted(found)

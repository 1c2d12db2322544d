"""A fork server that is a fork of the driver: what the driver has imported is there at once.

A fork server that starts as a fresh interpreter imports all that the driver has imported, which takes as long as it took
the driver: seven seconds for torch and Lightning. A fork of the driver has it after ten milliseconds, but it carries along
whatever else the driver is doing. It is made only where that is known to be nothing:

- no thread but the main one: pools of OpenMP are asked to end, OpenBLAS ends its own before each fork, and afterwards the
  operating system is asked which threads are left; if there is one that should not be, the fork is thrown away;
- no CUDA or ROCm device is open;
- the program holds little memory of its own, which the fork would keep from being freed.

The child then lets go of what it has inherited: open files, handlers of signals and of the interpreter's end, tracing,
handlers of logging, the program's own modules and its ``__main__``. Libraries stay as the program has set them.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import types
import warnings
import weakref

from mltoolkit.core import modules, process_setup, zygote

__all__ = ["ForkedServer", "fork_driver"]

MIN_MODULES = 700
"""Installed modules from which on a fork pays: importing so many takes about a second."""

MAX_OWN_BYTES = 1 << 30
"""Memory of the program's own up to which it is forked."""

_OWN_THREADS = frozenset({"jemalloc_bg_thd"})  # allocators that see to forks themselves
_SETTLE_S = 0.05  # threads that were told to end need a moment
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
_OPENMP = re.compile(r"/lib(gomp|omp|iomp5)[^/]*\.so[^/]*$")
_PAUSE_SOFT = 1  # omp_pause_soft of OpenMP 5.0: threads end, settings stay

_forgotten: list[types.ModuleType] = []  # objects in them must not be finalized here: temporary files are the driver's


class ForkedServer:
    """The fork, with the methods of `subprocess.Popen` that a node uses.

    Attributes
    ----------
    pid : int
    control : socket.socket
        Connection to it.
    """

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        import subprocess

        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, 0 if deadline is None else os.WNOHANG)
            except ChildProcessError:
                self.returncode = 0
                break
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("the fork server", timeout or 0.0)
            else:
                time.sleep(0.001)
        return self.returncode or 0

    def poll(self) -> int | None:
        """Exit code, or None while it lives."""
        if self.returncode is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        """End it at once."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """It is not wanted after all."""
        self.control.close()
        self.kill()
        self.wait()


def fork_driver() -> ForkedServer | None:
    """Fork this process into a fork server that waits for its settings; None where that might not be safe."""
    if not _may_fork():
        return None
    _end_openmp_pools()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()  # what is buffered would be written twice
    ctypes.CDLL(None).fflush(None)
    ours, theirs = socket.socketpair()
    restore = process_setup.narrow_libraries()
    try:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                _serve(theirs)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        server = ForkedServer(pid, ours)
        # OpenBLAS has ended its threads right before the fork: what is left now was there while it was made.
        is_safe = _is_single_threaded()
    finally:
        restore()
    if not is_safe:
        server.abandon()
        return None
    return server


def _may_fork() -> bool:
    wanted = os.environ.get("MLTOOLKIT_ZYGOTE", "")
    if wanted not in ("", "fork", "fresh"):
        raise ValueError(f"MLTOOLKIT_ZYGOTE must be 'fork' or 'fresh', got {wanted!r}.")
    if sys.platform != "linux" or wanted == "fresh":
        return False
    if not wanted and ("MLTOOLKIT_PRELOAD" in os.environ or len(modules.preloadable_modules()) < MIN_MODULES):
        return False
    if threading.active_count() != 1 or threading.current_thread() is not threading.main_thread():
        return False
    if "mpi4py.MPI" in sys.modules:  # no implementation of MPI survives a fork for certain
        return False
    return not _device_is_open() and _own_bytes() <= MAX_OWN_BYTES


def _device_is_open() -> bool:
    """Whether a driver of GPUs is in use: its state does not survive a fork."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return True
    for name in names:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(_DEVICES):
                return True
    return False


def _own_bytes() -> int:
    """Memory that is not a file's."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status") as stream:
        for line in stream:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return MAX_OWN_BYTES + 1


def _end_openmp_pools() -> None:
    """Have the idle threads of OpenMP's pools end; the next parallel region starts new ones."""
    with contextlib.suppress(OSError), open("/proc/self/maps") as stream:
        paths = {line.split()[-1] for line in stream if _OPENMP.search(line.rstrip())}
        for path in paths:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(path).omp_pause_resource_all(_PAUSE_SOFT)


def _is_single_threaded() -> bool:
    deadline = time.monotonic() + _SETTLE_S
    while True:
        if not _foreign_threads():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)


def _foreign_threads() -> list[str]:
    """Native threads beside the main one."""
    found = []
    own = str(os.getpid())
    try:
        names = os.listdir("/proc/self/task")
    except OSError:
        return ["unknown"]
    for name in names:
        if name == own:
            continue
        try:
            with open(f"/proc/self/task/{name}/comm") as stream:
                comm = stream.read().strip()
        except OSError:
            continue  # it has just ended
        if comm not in _OWN_THREADS:
            found.append(comm)
    return found


# In the child


def _serve(control: socket.socket) -> None:
    gc.freeze()  # what is garbage here is the driver's to finalize
    os.setsid()
    _let_go(control.fileno())
    settings, _ = zygote.receive_message(control)
    import mltoolkit.core.executor  # noqa: F401 - loaded once here rather than in each executor

    zygote.Zygote(control, settings).run()


def _let_go(control_fd: int) -> None:
    """Drop what the driver had beside its imports."""
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as every interpreter does at its start
    sys.settrace(None)
    sys.setprofile(None)
    threading.settrace(None)
    threading.setprofile(None)
    sys.excepthook = sys.__excepthook__
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    _forget_multiprocessing()
    _close_files(control_fd)
    for name in zygote.THREAD_VARIABLES:
        os.environ[name] = "1"
    if not any(option.startswith("error") for option in sys.warnoptions):
        # A program that turns warnings into errors means its own; those of libraries in executors stay warnings.
        warnings.filters[:] = [each for each in warnings.filters if each[0] != "error"]  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(logging.WARNING)
    _forget_program()


def _forget_multiprocessing() -> None:
    """Children, finalizers and the resource tracker are the driver's."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children.clear()
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        tracker._resource_tracker._fd = None
        tracker._resource_tracker._pid = None


def _close_files(control_fd: int) -> None:
    """Put the null device in the place of every open file.

    Not just closed: objects that still know the number would close or write to whatever gets it next.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd in (control_fd, null):
            continue
        with contextlib.suppress(OSError):
            os.fstat(fd)  # the one that listed the folder is closed by now
            os.dup2(null, fd, inheritable=fd <= 2)
    if null > 2:
        os.close(null)


def _forget_program() -> None:
    """Leave modules that are installed or of the standard library; executors import the program's own afresh."""
    kept = modules.INSTALLED_DIRECTORIES
    for name, module in list(sys.modules.items()):
        root = name.partition(".")[0]
        if root == "mltoolkit" or name in sys.builtin_module_names:
            continue
        file = getattr(module, "__file__", None)
        spec = getattr(module, "__spec__", None)
        unfinished = getattr(spec, "_initializing", False)  # its import has not come to its end
        # Made by the program. Inside packages such modules are made by extensions: torch._C has many.
        made = file is None and spec is None and "." not in name and isinstance(module, types.ModuleType)
        foreign = isinstance(file, str) and not _is_within(file, kept)
        if name == "__main__" or unfinished or made or foreign:
            _forgotten.append(sys.modules.pop(name))
    sys.modules["__main__"] = types.ModuleType("__main__")


def _is_within(file: str, folders: tuple[str, ...]) -> bool:
    return file.startswith(folders) or os.path.realpath(file).startswith(folders)

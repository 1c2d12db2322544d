"""The fork server: a small single-threaded process that starts executors.

It imports what the driver has imported and computes nothing, so that a fork of it is a warm, clean process: no threads, no locks held, no
OpenMP pool, no CUDA context. It is also the session's guardian: when the driver is gone, however it went, it ends every executor with its
children and removes the session's files.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

_HEADER = struct.Struct("<I")

# One thread for each library that would otherwise start its pool on import; executors raise it to the CPUs they are given.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def send_message(sock: socket.socket, message: Any, fds: tuple[int, ...] = ()) -> None:
    """Send one message of the zygote's protocol, with open descriptors."""
    body = pickle.dumps(message, 5)
    header = _HEADER.pack(len(body))
    if fds:
        socket.send_fds(sock, [header], list(fds))
        sock.sendall(body)
    else:
        sock.sendall(header + body)


def receive_message(sock: socket.socket) -> tuple[Any, list[int]]:
    """Receive one message and the descriptors that came with it; EOFError if the peer is gone."""
    header, fds, _, _ = socket.recv_fds(sock, _HEADER.size, 8)
    if not header:
        raise EOFError
    header += _receive_exactly(sock, _HEADER.size - len(header))
    (length,) = _HEADER.unpack(header)
    return pickle.loads(_receive_exactly(sock, length)), fds


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    chunks = []
    while count:
        chunk = sock.recv(min(count, 1 << 20))
        if not chunk:
            raise EOFError
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


class Zygote:
    """The server's loop.

    Parameters
    ----------
    control : socket.socket
        Connection to the node.
    settings : dict
        ``directories`` to remove at the end, ``start_method`` ("fork" or "spawn"), ``modules`` to import, ``refused``
        modules which start threads.
    """

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control = control
        self.settings = settings
        self.children: dict[int, bytes] = settings.pop("children", {})
        self._wake_fds: tuple[int, ...] = ()
        self.exit_requested = False

    def run(self) -> None:
        """Serve until the node says stop or is gone."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the driver decides; its end is seen on the socket
        self._become_subreaper()
        self._import(list(self.settings.setdefault("modules", [])))
        self._say("ready", os.getpid())
        self._wake_fds = (wake_read, wake_write)
        self._reap()  # children may have ended while this process replaced itself
        request = self.settings.pop("request", None)
        if request is not None:
            self._start(*request)
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(wake_read, select.POLLIN)
        try:
            while not self.exit_requested:
                for fd, _ in poller.poll():
                    if fd == wake_read:
                        with contextlib.suppress(BlockingIOError):
                            os.read(wake_read, 4096)
                        self._reap()
                    else:
                        self._serve_one()
        except (EOFError, ConnectionError):
            pass
        self._end_session()

    # ---- requests --------------------------------------------------------------------------------------------------

    def _serve_one(self) -> None:
        message, fds = receive_message(self.control)
        op = message[0]
        if op == "start":
            self._start(message[1], message[2], fds)
        elif op == "import":
            self._import(message[1])
        elif op == "refresh":
            self.settings["modules"] = message[1]
            self._replace_itself()
        elif op == "kill":
            pid, signum = message[1], message[2]
            if pid in self.children:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signum)
        elif op == "exit":
            self.exit_requested = True

    def _say(self, *message: Any) -> None:
        with contextlib.suppress(OSError):
            send_message(self.control, message)

    def _start(self, key: bytes, boot: dict[str, Any], fds: list[int]) -> None:
        if self.settings.get("start_method") == "spawn":
            pid = self._spawn(boot, fds)
        else:
            if thread_count() > 1:  # a thread that came up late: fork would leave its locks held for ever
                self._replace_itself((key, boot, fds))
            pid = self._fork(boot, fds)
        self.children[pid] = key
        for fd in fds:
            os.close(fd)
        self._say("started", key, pid)

    def _fork(self, boot: dict[str, Any], fds: list[int]) -> int:
        gc.disable()
        gc.freeze()  # keeps the collector from touching, and so copying, pages shared with this process
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for fd in (*self._wake_fds, self.control.fileno()):
                os.close(fd)
            gc.enable()
            status = _run_executor(boot, fds)
        finally:
            os._exit(status)

    def _spawn(self, boot: dict[str, Any], fds: list[int]) -> int:
        sock, out, err = fds
        read_fd, write_fd = os.pipe()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from mltoolkit.core.zygote import spawned_main; "
            f"spawned_main({sock}, {read_fd})"
        )
        with subprocess_quiet():
            process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=(sock, read_fd), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        os.close(read_fd)
        with os.fdopen(write_fd, "wb") as stream:
            stream.write(pickle.dumps(boot, 5))
        process.returncode = 0  # reaped here, not by subprocess
        return process.pid

    # ---- imports ---------------------------------------------------------------------------------------------------

    def _import(self, modules: list[str]) -> None:
        if self.settings.get("start_method") == "spawn":
            return
        refused = self.settings.setdefault("refused", [])
        for name in modules:
            if name in sys.modules or name in refused or _root(name) in refused:
                continue
            try:
                importlib.import_module(name)
            except BaseException:
                refused.append(name)
                continue
            if name not in self.settings["modules"]:
                self.settings["modules"].append(name)
            if thread_count() > 1:
                # The whole package: its other modules would start the thread as well, and each would cost a start of its own.
                refused.append(_root(name))
                self._replace_itself()

    def _replace_itself(self, request: tuple[bytes, dict[str, Any], list[int]] | None = None) -> None:
        """Start over in the same process without the modules that start threads; children, socket and `request` stay."""
        refused = self.settings.setdefault("refused", [])
        modules = [
            name for name in self.settings.get("modules", []) if name not in refused and _root(name) not in refused
        ]
        state: dict[str, Any] = {**self.settings, "modules": modules, "children": self.children, "request": request}
        fd = self.control.fileno()
        os.set_inheritable(fd, True)
        state_fd = _file_with(pickle.dumps(state, 5))
        os.set_inheritable(state_fd, True)
        for request_fd in request[2] if request else ():
            os.set_inheritable(request_fd, True)
        signal.set_wakeup_fd(-1)
        os.execv(sys.executable, [sys.executable, *launch_arguments(fd, state_fd)])

    # ---- endings ---------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            key = self.children.pop(pid, None)
            if key is None:
                continue  # a grandchild whose parent died
            kill_group(pid)
            self._say("ended", key, pid, status, usage.ru_maxrss)
            self._kill_orphans()

    def _become_subreaper(self) -> None:
        """Adopt the children of executors that die, so that they can be ended too (Linux)."""
        with contextlib.suppress(Exception):
            import ctypes

            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER

    def _kill_orphans(self) -> None:
        for pid in _child_pids():
            if pid not in self.children:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _end_session(self) -> None:
        self.control.close()
        for pid in list(self.children):
            kill_group(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid:
                continue
            self._kill_orphans()
            select.select([], [], [], 0.005)
        for directory in self.settings.get("directories", []):
            shutil.rmtree(directory, ignore_errors=True)
        for directory in self.settings.get("directories", []):
            above = os.path.dirname(directory)
            if os.path.basename(above).startswith("mltoolkit-"):  # the user's own, unless other sessions are there
                with contextlib.suppress(OSError):
                    os.rmdir(above)
        os._exit(0)


@contextlib.contextmanager
def subprocess_quiet() -> Any:
    """Keep Popen from warning about a child that is reaped elsewhere."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def kill_group(pid: int) -> None:
    """Kill what is left of an executor's process group: the children that its user code started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


# Threads that a fork does no harm to, by the names that they give themselves. jemalloc's, which comes with pyarrow and so
# with pandas, gives memory back; jemalloc's own handlers of `fork` hold it meanwhile and start it again in the child.
_FORK_SAFE_THREADS = frozenset({"jemalloc_bg_thd"})


def thread_count() -> int:
    """Return the number of threads of this process that a fork could leave locks behind of; 1 where it cannot be counted."""
    try:
        threads = os.listdir("/proc/self/task")
        if len(threads) == 1:
            return 1
        return sum(_thread_name(thread) not in _FORK_SAFE_THREADS for thread in threads)
    except OSError:
        return 1


def _thread_name(thread: str) -> str:
    try:
        with open(f"/proc/self/task/{thread}/comm") as stream:
            return stream.read().strip()
    except OSError:  # it has ended
        return ""


def _root(name: str) -> str:
    return name.partition(".")[0]


def _child_pids() -> list[int]:
    path = f"/proc/self/task/{os.getpid()}/children"
    try:
        with open(path) as stream:
            return [int(word) for word in stream.read().split()]
    except OSError:
        return []


def _file_with(data: bytes) -> int:
    """Return a descriptor of an unnamed file that holds `data`, at its beginning."""
    import tempfile

    with tempfile.TemporaryFile() as stream:
        stream.write(data)
        stream.flush()
        fd = os.dup(stream.fileno())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def launch_arguments(control_fd: int, settings_fd: int) -> list[str]:
    """Return the interpreter's arguments that start a zygote on two inherited descriptors."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from mltoolkit.core.zygote import main; main({control_fd}, {settings_fd})"
    return ["-c", code]


def _run_executor(boot: dict[str, Any], fds: list[int]) -> int:
    from mltoolkit.core.executor import run_executor

    sock, out, err = fds
    os.setsid()  # a group of its own: ends with its children, and a Ctrl-C in the terminal reaches only the driver
    os.dup2(out, 1)
    os.dup2(err, 2)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    for fd in (out, err, devnull):
        if fd > 2:
            os.close(fd)
    return run_executor(socket.socket(fileno=sock), boot)


def spawned_main(sock_fd: int, boot_fd: int) -> None:
    """Entry point of an executor that was spawned instead of forked."""
    with os.fdopen(boot_fd, "rb") as stream:
        boot = pickle.loads(stream.read())
    from mltoolkit.core.executor import run_executor

    os.setsid()
    os._exit(run_executor(socket.socket(fileno=sock_fd), boot))


def main(control_fd: int, settings_fd: int) -> None:
    """Entry point of the zygote's process."""
    os.set_inheritable(control_fd, False)
    with os.fdopen(settings_fd, "rb") as stream:
        settings = pickle.loads(stream.read())
    control = socket.socket(fileno=control_fd)
    import mltoolkit.core.executor  # noqa: F401 - loaded once here rather than in each executor

    Zygote(control, settings).run()

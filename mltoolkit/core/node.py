"""A node: the executors of one host, their fork server, and their output."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from typing import Any, Protocol

from mltoolkit.core import modules, zygote
from mltoolkit.core.channel import RECV_BYTES, FrameReader, Message, NonBlockingSender
from mltoolkit.core.deaths import Death, count_oom_kills
from mltoolkit.core.driver_fork import ForkedServer
from mltoolkit.core.reactor import Reactor

logger = logging.getLogger(__name__)

_STDERR_LINES = 20
_STATUS_GRACE_S = 1.0  # between the end of a socket and the fork server's word on the exit status


class NodeListener(Protocol):
    """Who is told what executors say and how they end; called on the reactor's thread.

    A listener with a true attribute `raw` gets the bytes as they come instead of messages.
    """

    def on_bytes(self, executor: ExecutorProcess, data: bytes) -> None: ...
    def on_messages(self, executor: ExecutorProcess, messages: list[Message]) -> None: ...
    def on_output(self, executor: ExecutorProcess, is_stderr: bool, lines: list[str]) -> None: ...
    def on_ended(self, executor: ExecutorProcess, death: Death) -> None: ...


class ExecutorProcess:
    """An executor as its node sees it."""

    def __init__(self, key: bytes, boot: dict[str, Any]) -> None:
        self.key = key
        self.boot = boot
        self.pid: int | None = None
        self.label = "executor"
        self.kill_reason = ""
        self.ended = False
        parent, child = socket.socketpair()
        self.sender = NonBlockingSender(parent)
        self.sock = parent
        self.frames = FrameReader()
        self.outputs: dict[int, tuple[bool, bytearray]] = {}
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        for fd in (out_read, err_read):
            os.set_blocking(fd, False)
        self.outputs[out_read] = (False, bytearray())
        self.outputs[err_read] = (True, bytearray())
        self._child_sock = child
        self.child_fds: tuple[int, ...] | None = (child.fileno(), out_write, err_write)
        self.stderr_tail: deque[str] = deque(maxlen=_STDERR_LINES)
        self.oom_kills = count_oom_kills()

    def close_child_side(self) -> None:
        """Close the ends that belong to the executor, once it has them."""
        if self.child_fds is not None:
            self._child_sock.close()
            for fd in self.child_fds[1:]:
                os.close(fd)
            self.child_fds = None


class Node:
    """Start, watch and end executors on this host.

    Parameters
    ----------
    reactor : Reactor
        Runs the callbacks.
    listener : NodeListener
        Is told.
    directories : list of str
        What the fork server removes when the session ends, however it ends.
    start_method : {"fork", "spawn"}
        How executors start.
    forked : ForkedServer, optional
        A fork server that waits for its settings; by default a fresh interpreter becomes one.
    """

    def __init__(
        self,
        reactor: Reactor,
        listener: NodeListener,
        directories: list[str],
        start_method: str,
        forked: ForkedServer | None = None,
    ) -> None:
        self.reactor = reactor
        self.listener = listener
        self._raw = getattr(listener, "raw", False)
        self.directories = directories
        self.start_method = start_method
        self.executors: dict[bytes, ExecutorProcess] = {}
        self._lock = threading.RLock()
        self._zygote: subprocess.Popen[bytes] | ForkedServer | None = None
        self._forked = forked
        self._control: socket.socket | None = None
        self._preloaded: set[str] = set()
        self._seen_modules = 0
        self._stopping = False
        self._received = memoryview(bytearray(RECV_BYTES))  # the reactor's thread alone uses it
        self._restarts = 0
        self._launch_zygote()

    # ---- the fork server ---------------------------------------------------------------------------------------------

    def _launch_zygote(self) -> None:
        names = modules.preloadable_modules() if self.start_method == "fork" else []
        self._preloaded = set(names)
        self._seen_modules = modules.count()
        settings = {"modules": names, "directories": self.directories, "start_method": self.start_method}
        forked, self._forked = self._forked, None
        if forked is not None:
            self._zygote, ours = forked, forked.control
            zygote.send_message(ours, settings)
        else:
            ours = self._launch_fresh(settings)
        self._control = ours
        self.reactor.call_soon(lambda: self.reactor.add_reader(ours.fileno(), lambda: self._on_control(ours)))

    def _launch_fresh(self, settings: dict[str, Any]) -> socket.socket:
        """Start an interpreter as the fork server; return the connection to it."""
        ours, theirs = socket.socketpair()
        with tempfile.TemporaryFile() as stream:
            stream.write(pickle.dumps(settings, 5))
            stream.seek(0)
            environment = dict(os.environ)
            environment.update(dict.fromkeys(zygote.THREAD_VARIABLES, "1"))
            arguments = [sys.executable, *zygote.launch_arguments(theirs.fileno(), stream.fileno())]
            self._zygote = subprocess.Popen(
                arguments,
                pass_fds=(theirs.fileno(), stream.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("MLTOOLKIT_DEBUG_ZYGOTE") else subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        theirs.close()
        return ours

    @property
    def zygote_pid(self) -> int | None:
        """Process id of the fork server."""
        return self._zygote.pid if self._zygote else None

    def _tell(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        with self._lock:
            if self._control is not None:
                with contextlib.suppress(OSError):  # its end is seen on the reading side, which starts it anew
                    zygote.send_message(self._control, message, fds)

    def _on_control(self, control: socket.socket) -> None:
        try:
            message, _ = zygote.receive_message(control)
        except (EOFError, OSError):
            self._on_zygote_lost(control)
            return
        if message[0] == "started":
            executor = self.executors.get(message[1])
            if executor is not None:
                executor.pid = message[2]
                executor.close_child_side()
        elif message[0] == "ended":
            executor = self.executors.get(message[1])
            if executor is not None:
                self._finish(executor, message[3], message[4])

    def _on_zygote_lost(self, control: socket.socket) -> None:
        self.reactor.remove(control.fileno())
        control.close()
        with self._lock:
            if self._control is not control:
                return
            self._control = None
            if self._zygote is not None:
                self._zygote.wait()
            if self._stopping:
                return
            self._restarts += 1
            if self._restarts > 100:
                logger.error("mltoolkit: the fork server keeps dying; giving up on starting executors")
                for executor in list(self.executors.values()):
                    if executor.child_fds is not None:
                        self._finish(executor, None, 0)
                return
            self._launch_zygote()
            for executor in list(self.executors.values()):
                if executor.child_fds is not None:  # it was not started yet
                    self._tell(("start", executor.key, executor.boot), executor.child_fds)

    def refresh_zygote(self) -> None:
        """Have the fork server start over: an installed package that it has loaded has changed on disk."""
        names = modules.preloadable_modules() if self.start_method == "fork" else []
        self._preloaded = set(names)
        self._tell(("refresh", names))

    # ---- executors ---------------------------------------------------------------------------------------------------

    def start_executor(self, key: bytes, boot: dict[str, Any]) -> ExecutorProcess:
        """Start an executor; messages may be sent at once.

        Parameters
        ----------
        key : bytes
            Names it.
        boot : dict
            ``shm_dir``, ``disk_dir``, ``store_limit``, ``node_id``, ``namespace``, ``seed``, ``threads``, ``environment``,
            ``working_dir``, ``user_thread_variables``, ``logging_level``.
        """
        executor = ExecutorProcess(key, boot)
        with self._lock:
            self.executors[key] = executor
            if self.start_method == "fork" and modules.count() != self._seen_modules:
                self._seen_modules = modules.count()
                fresh = [name for name in modules.preloadable_modules() if name not in self._preloaded]
                if fresh:
                    self._preloaded.update(fresh)
                    self._tell(("import", fresh))
            assert executor.child_fds is not None
            self._tell(("start", key, boot), executor.child_fds)
        self.reactor.call_soon(lambda: self._watch(executor))
        return executor

    def _watch(self, executor: ExecutorProcess) -> None:
        self.reactor.add_reader(executor.sock.fileno(), lambda: self._on_readable(executor))
        for fd in executor.outputs:
            self.reactor.add_reader(fd, functools.partial(self._on_output, executor, fd))

    def kill(self, executor: ExecutorProcess, reason: str = "", signum: int = signal.SIGKILL) -> None:
        """Send a signal; `reason` explains the death that follows."""
        if reason:
            executor.kill_reason = reason
        if executor.ended:
            return
        if executor.pid is None:
            # Started a moment ago: the request is ahead of ours on the same socket, so ask again when its pid is known.
            self.reactor.call_later(0.005, lambda: self.kill(executor, reason, signum))
            return
        self._tell(("kill", executor.pid, signum))

    def _on_readable(self, executor: ExecutorProcess) -> None:
        if not self._read_messages(executor):
            self.reactor.remove(executor.sock.fileno())
            self.reactor.call_later(_STATUS_GRACE_S, lambda: self._finish(executor, None, 0))

    def _read_messages(self, executor: ExecutorProcess) -> bool:
        """Read what is there; False at the end of the stream."""
        try:
            count = executor.sock.recv_into(self._received)
        except BlockingIOError:
            return True
        except OSError:
            count = 0
        if not count:
            return False
        self._pass_on(executor, self._received[:count])
        return True

    def _pass_on(self, executor: ExecutorProcess, data: memoryview) -> None:
        if self._raw:
            self.listener.on_bytes(executor, bytes(data))
            return
        messages = executor.frames.feed(data)
        if messages:
            self.listener.on_messages(executor, messages)

    def _on_output(self, executor: ExecutorProcess, fd: int) -> bool:
        """Pass on complete lines; False at the end of the pipe."""
        is_stderr, buffer = executor.outputs[fd]
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            buffer += data
            cut = buffer.rfind(b"\n") + 1
            if not cut and len(buffer) > 1 << 16:
                cut = len(buffer)
        else:
            cut = len(buffer)
            self.reactor.remove(fd)
        if cut:
            lines = bytes(buffer[:cut]).decode("utf-8", "replace").splitlines()
            del buffer[:cut]
            if is_stderr:
                executor.stderr_tail.extend(lines)
            self.listener.on_output(executor, is_stderr, lines)
        return bool(data)

    def _finish(self, executor: ExecutorProcess, status: int | None, max_rss_kb: int) -> None:
        if executor.ended:
            return
        executor.ended = True
        fd = executor.sock.fileno()
        self.reactor.remove(fd)
        try:
            executor.sock.setblocking(False)
            while True:
                count = executor.sock.recv_into(self._received)
                if not count:
                    break
                self._pass_on(executor, self._received[:count])
        except OSError:
            pass
        for output_fd in executor.outputs:
            while self._on_output(executor, output_fd):
                pass
            self.reactor.remove(output_fd)
            os.close(output_fd)
        executor.close_child_side()
        executor.sender.closed = True
        executor.sock.close()
        self.executors.pop(executor.key, None)
        death = Death(
            pid=executor.pid,
            status=status,
            max_rss_kb=max_rss_kb,
            reason=executor.kill_reason,
            stderr_tail=tuple(executor.stderr_tail),
            oom=count_oom_kills() > executor.oom_kills,
            node=platform.node(),
        )
        self.listener.on_ended(executor, death)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def stop(self, timeout_s: float = 5.0) -> None:
        """End all executors and the fork server, and remove the session's directories."""
        with self._lock:
            self._stopping = True
        self._tell(("exit",))
        process = self._zygote
        if process is not None:
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        finished = threading.Event()

        def finish_all() -> None:
            for executor in list(self.executors.values()):
                if executor.pid is not None and self._restarts:
                    # Children of a fork server that was lost: nobody else can end them.
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(executor.pid, signal.SIGKILL)
                self._finish(executor, None, 0)
            finished.set()

        self.reactor.call_soon(finish_all)
        if threading.current_thread() is not self.reactor.thread:
            finished.wait(timeout_s)
        with self._lock:
            control, self._control = self._control, None
        if control is not None:

            def close() -> None:
                self.reactor.remove(control.fileno())
                control.close()

            self.reactor.call_soon(close)

"""An embedded session: the directories, the I/O thread, the head and one node, all inside the driver."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import secrets
import shutil
import stat
import sys
import tempfile
from typing import Any

from mltoolkit.core import host
from mltoolkit.core.driver_fork import fork_driver
from mltoolkit.core.head import Head
from mltoolkit.core.ids import new_id
from mltoolkit.core.ledger import Pool
from mltoolkit.core.node import Node
from mltoolkit.core.reactor import Reactor
from mltoolkit.core.store import Segment, Store
from mltoolkit.core.zygote import THREAD_VARIABLES

logger = logging.getLogger(__name__)


def start_method() -> str:
    """Return how executors start: by fork, or by spawn where fork is unsafe or ``MLTOOLKIT_START=spawn`` says so."""
    wanted = os.environ.get("MLTOOLKIT_START", "")
    if wanted not in ("", "fork", "spawn"):
        raise ValueError(f"MLTOOLKIT_START must be 'fork' or 'spawn', got {wanted!r}.")
    if sys.platform == "win32":
        raise NotImplementedError(
            "mltoolkit needs Unix sockets that pass descriptors, which Windows lacks. Use WSL 2, or attach to a Dask cluster on Linux "
            "from there."
        )
    return wanted or ("spawn" if sys.platform == "darwin" else "fork")


def private_directory(parent: str, name: str) -> str:
    """Make a directory that only this user can enter; refuse one that somebody else has made."""
    path = os.path.join(parent, name)
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(
            f"{path} belongs to another user. Remove it, or set MLTOOLKIT_TMPDIR to a directory of your own."
        )
    os.chmod(path, 0o700)
    return path


class SessionDirectories:
    """The session's private directories: one on disk, one in shared memory."""

    def __init__(self) -> None:
        uid = os.getuid()
        self.session_id = f"{os.getpid()}-{secrets.token_hex(4)}"
        disk_root = os.environ.get("MLTOOLKIT_TMPDIR") or tempfile.gettempdir()
        self.disk = private_directory(private_directory(disk_root, f"mltoolkit-{uid}"), self.session_id)
        self.shm_root = shm_root = os.environ.get("MLTOOLKIT_SHM_DIR", "/dev/shm")
        self.shm = ""
        if os.path.isdir(shm_root) and os.access(shm_root, os.W_OK):
            remove_dead_sessions(shm_root, f"mltoolkit-{uid}-")
            try:
                self.shm = private_directory(shm_root, f"mltoolkit-{uid}-{self.session_id}")
            except OSError as error:
                logger.warning("mltoolkit: no shared memory (%s); large objects go to %s", error, self.disk)
        remove_dead_sessions(os.path.dirname(self.disk), "")
        self._locks = [_lock_directory(path) for path in self.all()]

    def all(self) -> list[str]:
        """Return the directories to remove at the end."""
        return [path for path in (self.shm, self.disk) if path]

    def release_locks(self) -> list[int]:
        """Return the descriptors of the locks, which the caller closes."""
        locks, self._locks = self._locks, []
        return locks

    def remove(self) -> None:
        """Remove them, and the user's directory above if it is empty now."""
        for path in self.all():
            shutil.rmtree(path, ignore_errors=True)
        for fd in self.release_locks():
            os.close(fd)
        try:
            os.rmdir(os.path.dirname(self.disk))
        except OSError:  # other sessions are there
            pass


_LOCK_NAME = "alive"


def _lock_directory(path: str) -> int:
    """Lock a session's directory for as long as this process lives, so that no other session takes it for dead."""
    fd = os.open(os.path.join(path, _LOCK_NAME), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def _is_dead(path: str, pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return False
    except ProcessLookupError:
        pass
    except OSError:
        return False
    try:  # the process may live in another container that shares this file system
        fd = os.open(os.path.join(path, _LOCK_NAME), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def remove_dead_sessions(parent: str, prefix: str) -> None:
    """Remove what sessions left whose driver and guardian were both killed."""
    try:
        names = os.listdir(parent)
    except OSError:
        return
    for name in names:
        if not name.startswith(prefix):
            continue
        pid, _, token = name[len(prefix) :].partition("-")
        if not pid.isdigit() or not token:
            continue
        path = os.path.join(parent, name)
        with contextlib.suppress(OSError):  # another session removes it at the same time
            if os.lstat(path).st_uid == os.getuid() and _is_dead(path, int(pid)):
                shutil.rmtree(path, ignore_errors=True)


class LocalNode(Node):
    """The driver's own host."""

    node_id: str = ""
    address = "127.0.0.1"

    def describe(self, pool: Pool) -> dict[str, Any]:
        """Return the node as ``nodes()`` shows it."""
        return {
            "NodeID": self.node_id,
            "Alive": True,
            "NodeManagerAddress": self.address,
            "NodeManagerHostname": platform.node(),
            "Resources": dict(pool.total),
            "alive": True,
        }

    def delete_segment(self, segment: Segment) -> None:
        """Nothing to do: the head's own store holds this host's segments."""


class EmbeddedSession:
    """Start everything that an embedded runtime needs.

    Parameters
    ----------
    num_cpus, num_gpus : float
        What the node offers.
    resources : dict of str to float
        Custom resources.
    memory : float
        Bytes that tasks may ask for.
    """

    def __init__(
        self,
        *,
        num_cpus: float,
        num_gpus: float,
        resources: dict[str, float],
        memory: float,
        store_limit: int | None,
        namespace: str,
        log_to_driver: bool,
        logging_level: int,
        seed: int,
    ) -> None:
        method = start_method()
        forked = fork_driver() if method == "fork" else None  # first of all, while nothing of the session is there
        self.num_cpus = num_cpus
        self._dask: Any = None
        self.directories = SessionDirectories()
        self.node_id = new_id().hex()
        self.reactor = Reactor("mltoolkit-io")
        host_id = host.shared_memory_id(self.directories.shm_root)
        store = Store(self.directories.shm, self.directories.disk, store_limit, self.node_id, host_id)
        user_variables = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
        boot = {
            "shm_dir": self.directories.shm,
            "disk_dir": self.directories.disk,
            "store_limit": store_limit,
            "node_id": self.node_id,
            "host": host_id,
            "namespace": namespace,
            "logging_level": logging_level,
            "user_thread_variables": user_variables,
            "gpu_total": num_gpus,
            "compat": os.environ.get("MLTOOLKIT_COMPAT") == "1",
        }
        self.head = Head(store, self.reactor, namespace, lambda node_id: boot, log_to_driver=log_to_driver)
        self.head.pool.session_seed = seed
        try:
            self.node = LocalNode(self.reactor, self.head, self.directories.all(), method, forked)
        except BaseException:
            self.directories.remove()
            if forked is not None:
                forked.abandon()
            raise
        self.node.node_id = self.node_id
        self.reactor.start()
        gpus = host.visible_gpus()
        gpu_ids = gpus[: int(num_gpus)] if len(gpus) >= num_gpus else list(range(int(num_gpus)))
        total = {"CPU": float(num_cpus), "memory": float(memory), **resources, f"node:{self.node.address}": 1.0}
        total["object_store_memory"] = float(store_limit if store_limit is not None else store.free_bytes())
        if num_gpus:
            total["GPU"] = float(num_gpus)
        self.address = "inproc"
        self.head.add_node(self.node, total, gpu_ids)

    def dask_client(self) -> Any:
        """Return a Dask client; its scheduler and worker start in this process at first use, over ``inproc://``.

        Tasks and actors do not need them on one host: importing distributed takes half a second and a Dask task a
        millisecond, ten times what the embedded node itself costs. Dask's own collections and futures, and the dashboard, do.
        """
        return self._start_dask(None).client

    def _start_dask(self, dashboard: tuple[str, int] | None) -> Any:
        from mltoolkit.core.embedded_dask import EmbeddedDask

        if self._dask is None:
            self._dask = EmbeddedDask(int(self.num_cpus) or 1, dashboard)
        return self._dask

    def start_dashboard(self, host_name: str, port: int | None) -> str:
        """Start Dask's dashboard and return its address."""
        return str(self._start_dask((host_name, port or 0)).dashboard_url)

    def stop(self) -> None:
        """End everything; nothing of the session is left."""
        if self._dask is not None:
            self._dask.close()
        self.head.close()
        self.node.stop()
        self.head.dispose()
        self.reactor.stop()
        self.directories.remove()

    def abandon(self) -> None:
        """In a forked child: close what the parent shares with us, so that its end is seen by its own processes."""
        for executor in self.node.executors.values():
            os.close(executor.sock.detach())
        for fd in self.directories.release_locks():
            os.close(fd)
        control = self.node._control
        if control is not None:
            os.close(control.detach())

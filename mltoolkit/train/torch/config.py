"""How the workers of a run become a process group of torch's."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._internal.worker_group import Ranks, WorkerGroup
from mltoolkit.train.backend import Backend, BackendConfig

__all__ = ["TorchBackend", "TorchConfig", "connect_process_group", "leave_process_group"]

_LOOPBACK = "127.0.0.1"
_JOIN_TIMEOUT_S = 60.0
_INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"

_listener: Any = None
"""The store that rank 0 serves: lives as long as the process group."""


@dataclass
class TorchConfig(BackendConfig):
    """Configuration of torch's process group.

    Parameters
    ----------
    backend : str, optional
        ``"gloo"``, ``"nccl"`` or another one that torch knows, ``"cpu:gloo,cuda:nccl"`` included. By default NCCL where
        workers have GPUs, else gloo.
    init_method : {'env', 'tcp'}, default='env'
        Both meet at a port of rank 0's that the system has chosen. ``'env'`` tells it in ``MASTER_ADDR`` and
        ``MASTER_PORT`` as well.
    timeout_s : float, default=1800
        Seconds that an operation may wait for the other workers.
    """

    backend: str | None = None
    init_method: str = "env"
    timeout_s: float = 1800

    def __post_init__(self) -> None:
        if self.backend is not None and (not isinstance(self.backend, str) or not self.backend):
            raise TypeError(f"`TorchConfig.backend` must be a name such as 'gloo' or None, got {self.backend!r}.")
        if self.init_method not in ("env", "tcp"):
            raise ValueError(f"`TorchConfig.init_method` must be 'env' or 'tcp', got {self.init_method!r}.")
        if isinstance(self.timeout_s, bool) or not isinstance(self.timeout_s, (int, float)) or not self.timeout_s > 0:
            raise ValueError(f"`TorchConfig.timeout_s` must be a number of seconds > 0, got {self.timeout_s!r}.")

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that this configures."""
        return TorchBackend

    @property
    def framework(self) -> str:
        """``"torch"``."""
        return "torch"

    @property
    def train_func_context(self) -> Callable[[], AbstractContextManager[Any]]:
        """Makes the worker's GPU, if it has one, the default one."""
        from mltoolkit.train.torch._device import default_device

        return default_device


class TorchBackend(Backend):
    """Connects the workers of a run by ``torch.distributed``."""

    def on_start(self, worker_group: WorkerGroup, backend_config: TorchConfig) -> None:
        """Make the workers a process group."""
        require("torch", purpose="TorchTrainer", extra="torch")
        use_gpu = bool(worker_group.resources.get("GPU"))
        backend = backend_config.backend or ("nccl" if use_gpu else "gloo")
        connect_process_group(
            worker_group, backend, timeout_s=backend_config.timeout_s, export=backend_config.init_method == "env"
        )

    def on_shutdown(self, worker_group: WorkerGroup, backend_config: TorchConfig) -> None:
        """Take the process group apart."""
        worker_group.execute(leave_process_group)


def connect_process_group(
    group: WorkerGroup, backend: str, *, timeout_s: float = 1800, export: bool = True, address: str | None = None
) -> None:
    """Make the workers of a group one process group of torch's.

    Rank 0 listens on a port that the system chooses, on the loopback interface where all workers share a host, and the
    others connect to it; the port is taken before it is told, so no other program can have it.

    Parameters
    ----------
    group : WorkerGroup
    backend : str
        As ``torch.distributed.init_process_group`` takes it.
    timeout_s : float, default=1800
        Seconds that an operation may wait.
    export : bool, default=True
        Whether ``MASTER_ADDR`` and ``MASTER_PORT`` are set on the workers, beside ranks and sizes.
    address : str, optional
        Under which other hosts reach rank 0; found by itself if not given.
    """
    host = _LOOPBACK if group.on_one_host else (address or group.workers[0].info.address)
    group.share_gpus()
    port = group.execute_single(0, _listen, host)
    joining = {
        worker.ranks.world_rank: worker.actor.execute.remote(
            _join, backend, worker.ranks, host, port, timeout_s, group.on_one_host, export
        )
        for worker in group.workers
    }
    from mltoolkit.train._internal.failures import gather

    gather(joining, group.workers)


def _listen(host: str) -> int:
    """Take a port on rank 0, and serve the store there that all meet at."""
    from torch.distributed import TCPStore

    global _listener
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.bind((host, 0))
    listening.listen()
    port = int(listening.getsockname()[1])
    _listener = TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=_JOIN_TIMEOUT_S),
        master_listen_fd=listening.detach(),  # the store closes it
    )
    return port


def _join(backend: str, ranks: Ranks, host: str, port: int, timeout_s: float, one_host: bool, export: bool) -> None:
    import torch.distributed as dist

    os.environ.update(
        RANK=str(ranks.world_rank),
        LOCAL_RANK=str(ranks.local_rank),
        WORLD_SIZE=str(ranks.world_size),
        LOCAL_WORLD_SIZE=str(ranks.local_world_size),
        NODE_RANK=str(ranks.node_rank),
        GROUP_RANK=str(ranks.node_rank),
    )
    if export:
        os.environ.update(MASTER_ADDR=host, MASTER_PORT=str(port))
    if one_host:
        # Without it gloo asks a name server for the host's own name, and listens where other hosts can connect.
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if loopback is not None:
            os.environ.setdefault(_INTERFACE_VARIABLE, loopback)
    store = _listener
    if store is None:
        store = dist.TCPStore(
            host,
            port,
            is_master=False,
            wait_for_workers=False,
            timeout=datetime.timedelta(seconds=_JOIN_TIMEOUT_S),
        )
    dist.init_process_group(
        backend,
        store=store,
        rank=ranks.world_rank,
        world_size=ranks.world_size,
        timeout=datetime.timedelta(seconds=timeout_s),
    )


def leave_process_group() -> None:
    """Take the process group of this process apart, if there is one."""
    import torch.distributed as dist

    global _listener
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    _listener = None

"""How the workers of a run become a cluster of TensorFlow's."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import Any

from mltoolkit._optional import is_installed
from mltoolkit.train._internal.worker_group import WorkerGroup
from mltoolkit.train.backend import Backend, BackendConfig

__all__ = ["TensorflowBackend", "TensorflowConfig"]

_LOOPBACK = "127.0.0.1"

_reserved: socket.socket | None = None
"""Holds this worker's port until the training function begins: TensorFlow's server shares it with nobody."""


@dataclass
class TensorflowConfig(BackendConfig):
    """Configuration of a cluster of TensorFlow's; there is nothing to set."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that this configures."""
        return TensorflowBackend

    @property
    def framework(self) -> str:
        """``"tensorflow"``."""
        return "tensorflow"


class TensorflowBackend(Backend):
    """Tells the workers of a run by ``TF_CONFIG`` where all of them are."""

    def on_start(self, worker_group: WorkerGroup, backend_config: Any) -> None:
        """Choose a port on each worker and set ``TF_CONFIG``."""
        if not all(worker_group.execute(is_installed, "tensorflow")):
            raise ImportError(
                "TensorflowTrainer needs tensorflow, which is not installed where the workers are. "
                "Run `pip install tensorflow tf_keras`.",
                name="tensorflow",
            )
        hosts = [_LOOPBACK if worker_group.on_one_host else worker.info.address for worker in worker_group.workers]
        ports = [worker_group.execute_single(rank, _reserve, host) for rank, host in enumerate(hosts)]
        addresses = [
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)
        ]
        for rank in range(len(worker_group)):
            worker_group.execute_single(rank, _set_cluster, addresses, rank)

    def on_training_start(self, worker_group: WorkerGroup, backend_config: Any) -> None:
        """Let go of the ports."""
        worker_group.execute(_release)


def _reserve(host: str) -> int:
    """Take a port that the system chooses."""
    global _reserved
    _reserved = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    _reserved.bind((host, 0))
    return int(_reserved.getsockname()[1])


def _release() -> None:
    global _reserved
    if _reserved is not None:
        _reserved.close()
        _reserved = None


def _set_cluster(addresses: list[str], rank: int) -> None:
    task = {"type": "worker", "index": rank}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Keras 3 cannot train on several workers

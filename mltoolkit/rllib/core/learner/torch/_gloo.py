"""The operations that learners make together, through torch's gloo."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mltoolkit.rllib.core.learner.errors import LearnerDiedError

__all__ = ["GlooCollective", "rendezvous_by_file", "rendezvous_by_tcp"]


def rendezvous_by_file(path: str, world_size: int, timeout_s: float) -> Any:
    """Where learners of one host find each other: a file in a folder that only this user can read."""
    store = dist.FileStore(str(Path(path)), world_size)
    store.set_timeout(timedelta(seconds=timeout_s))
    return store


def rendezvous_by_tcp(address: str, port: int, world_size: int, *, is_master: bool, timeout_s: float) -> Any:
    """Where learners of several hosts find each other: a server in the first learner, at its node's address."""
    return dist.TCPStore(
        address, port, world_size, is_master, timeout=timedelta(seconds=timeout_s), wait_for_workers=False
    )


class GlooCollective:
    """Sums and means over the learners of a group.

    It is no default process group: what else uses ``torch.distributed`` in the process stays as it is.

    Parameters
    ----------
    store : torch.distributed.Store
        Where the learners find each other.
    rank, world_size : int
        Which learner this is, of how many.
    address : str
        Own address at which the others connect.
    timeout_s : float
        Seconds that an operation waits for the slowest learner.
    """

    def __init__(self, store: Any, rank: int, world_size: int, *, address: str, timeout_s: float) -> None:
        self.rank = rank
        self.world_size = world_size
        self._timeout_s = timeout_s
        options = dist.ProcessGroupGloo._Options()
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
        options._timeout = timedelta(seconds=timeout_s)
        self._store = store  # the group keeps no reference of its own
        self._group: Any = self._guarded(lambda: dist.ProcessGroupGloo(store, rank, world_size, options))

    def _guarded(self, operation: Callable[[], Any]) -> Any:
        try:
            return operation()
        except RuntimeError as error:
            raise LearnerDiedError(
                f"Learner {self.rank} of {self.world_size} (process {os.getpid()}) lost another one, or waited for it for "
                f"{self._timeout_s:g} s: {error}"
            ) from error

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by the first learner's."""
        self._guarded(lambda: self._group.broadcast(tensor, 0).wait())

    def average(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its mean over the learners."""
        self._guarded(lambda: self._group.allreduce(tensor, dist.ReduceOp.SUM).wait())
        tensor.div_(self.world_size)

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sum numbers over the learners, in double precision."""
        tensor = torch.tensor(numbers, dtype=torch.float64)
        self._guarded(lambda: self._group.allreduce(tensor, dist.ReduceOp.SUM).wait())
        result: list[float] = tensor.tolist()
        return result

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each number over the learners."""
        tensor = torch.tensor(numbers, dtype=torch.int64)
        self._guarded(lambda: self._group.allreduce(tensor, dist.ReduceOp.MAX).wait())
        result: list[int] = tensor.tolist()
        return result

    def close(self) -> None:
        """Leave the group; the connections end with it."""
        self._group = None

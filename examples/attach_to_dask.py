"""Attach to a Dask cluster that exists already, and leave it as it was.

With no argument this starts a small `LocalCluster` to stand for yours; give the address of a scheduler to use that.
Any Dask cluster will do: SLURM, Kubernetes, YARN, SSH.

    python examples/attach_to_dask.py [tcp://scheduler:8786]
"""

from __future__ import annotations

import os
import sys

from dask.distributed import Client, LocalCluster

import mltoolkit


@mltoolkit.remote
class Counter:
    """An actor on the cluster: a process beside a Dask worker, with a direct channel to whoever calls it."""

    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> tuple[int, int]:
        self.value += 1
        return self.value, os.getpid()


@mltoolkit.remote
def square(x: int) -> int:
    return x * x


def main(address: str | None = None) -> None:
    cluster = None
    if address is None:
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0")
        address = cluster.scheduler_address
    with Client(address) as somebody_else:
        theirs = somebody_else.submit(sum, [1, 2, 3])
        with mltoolkit.init(address=address):
            print(
                f"attached to {address}: {len(mltoolkit.nodes())} nodes, {mltoolkit.cluster_resources()['CPU']:g} CPUs"
            )
            print(f"squares:   {mltoolkit.get([square.remote(i) for i in range(8)])}")
            counter = Counter.remote()
            values = mltoolkit.get([counter.increment.remote() for _ in range(3)])
            print(f"the actor: counted to {values[-1][0]} in one process ({len({pid for _, pid in values})} pid)")
        print(f"detached; what somebody else had on the cluster is still there: {theirs.result()}")
    if cluster is not None:
        cluster.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])

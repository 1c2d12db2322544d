"""The runtimes under one interface, for what all of them can do: load, start, run one task, hold two workers, end.

Each method imports what it needs at the moment it is called, and the module itself next to nothing, because imports
are part of what is measured.
"""

from __future__ import annotations

import importlib
import os

TYPE_CHECKING = False  # importing `typing` for its constant would cost what is measured
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Protocol
else:
    Protocol = object

ERROR = 40  # logging.ERROR


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def answer(values: dict[str, list[float]], facts: dict[str, Any]) -> None:
    """Tell the parent what a fresh interpreter measured; runtimes may print as well, hence the label."""
    import json

    print("ANSWER " + json.dumps([values, facts]), flush=True)


def load_facade(runtime: str) -> ModuleType:
    """Return the module that programs call `ray`: Ray's own or mltoolkit, whose facade has the same names."""
    return importlib.import_module(runtime)


def init_facade(ray: ModuleType) -> None:
    """Start a session with the same options for both."""
    ray.init(num_cpus=cpu_count(), include_dashboard=False, logging_level=ERROR)


def noop() -> int:
    """Return a constant: the smallest task."""
    return 1


class Holder:
    """The smallest actor."""

    def ping(self) -> int:
        """Return a constant."""
        return 1


class Runtime(Protocol):
    """One runtime from import to end."""

    def load(self) -> None:
        """Import it."""

    def init(self) -> None:
        """Start it."""

    def first_task(self) -> None:
        """Run one task and wait for its result."""

    def two_workers(self) -> None:
        """Bring up two actors, or two worker processes where there are no actors, and keep them."""

    def close(self) -> None:
        """End it."""


class FacadeRuntime:
    """Ray or mltoolkit."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ray: Any = None
        self.kept: list[Any] = []

    def load(self) -> None:
        """Import it."""
        self.ray = load_facade(self.name)

    def init(self) -> None:
        """Start it."""
        init_facade(self.ray)

    def first_task(self) -> None:
        """Run one task and wait for its result."""
        self.ray.get(self.ray.remote(noop).remote())

    def two_workers(self) -> None:
        """Create two actors and call each."""
        actor = self.ray.remote(Holder)
        self.kept = [actor.remote() for _ in range(2)]
        self.ray.get([each.ping.remote() for each in self.kept])

    def close(self) -> None:
        """End it."""
        self.kept = []
        self.ray.shutdown()


class DaskRuntime:
    """Plain Dask: a local cluster with one worker process per CPU."""

    def __init__(self) -> None:
        self.client: Any = None
        self.kept: list[Any] = []

    def load(self) -> None:
        """Import it."""
        importlib.import_module("distributed")

    def init(self) -> None:
        """Start a cluster and connect."""
        from distributed import Client, LocalCluster

        cluster = LocalCluster(
            n_workers=cpu_count(), threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=ERROR
        )
        self.client = Client(cluster)

    def first_task(self) -> None:
        """Run one task and wait for its result."""
        self.client.submit(noop, pure=False).result()

    def two_workers(self) -> None:
        """Create two actors and call each."""
        self.kept = [self.client.submit(Holder, actor=True, pure=False).result() for _ in range(2)]
        for each in self.kept:
            each.ping().result()

    def close(self) -> None:
        """End it."""
        self.kept = []
        cluster = self.client.cluster
        self.client.close()
        cluster.close()


class LokyRuntime:
    """joblib's default executor."""

    def __init__(self) -> None:
        self.executor: Any = None

    def load(self) -> None:
        """Import it."""
        importlib.import_module("joblib")

    def init(self) -> None:
        """Create the executor; its processes come with the first task."""
        from joblib.externals.loky import get_reusable_executor

        self.executor = get_reusable_executor(max_workers=cpu_count(), timeout=300)

    def first_task(self) -> None:
        """Run one task and wait for its result."""
        self.executor.submit(noop).result()

    def two_workers(self) -> None:
        """Use all worker processes."""
        list(self.executor.map(abs, range(4 * cpu_count())))

    def close(self) -> None:
        """End it."""
        self.executor.shutdown(wait=True)


class ProcessRuntime:
    """One process without any runtime: the floor."""

    def load(self) -> None:
        """There is nothing to import."""

    def init(self) -> None:
        """There is nothing to start."""

    def first_task(self) -> None:
        """Call the function."""
        noop()

    def two_workers(self) -> None:
        """Create two plain objects."""
        for each in [Holder(), Holder()]:
            each.ping()

    def close(self) -> None:
        """There is nothing to end."""


def make_runtime(name: str) -> Runtime:
    """Return the runtime of this name, not yet imported."""
    if name in ("mltoolkit", "ray"):
        return FacadeRuntime(name)
    if name == "dask":
        return DaskRuntime()
    if name == "loky":
        return LokyRuntime()
    return ProcessRuntime()

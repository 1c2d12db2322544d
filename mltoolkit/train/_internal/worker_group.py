"""Workers that are started together, know their ranks, and end together."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mltoolkit
from mltoolkit.train._internal.worker import TrainWorker, WorkerInfo
from mltoolkit.train.error import NotEnoughResourcesError
from mltoolkit.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    remove_placement_group,
)
from mltoolkit.util.scheduling_strategies import PlacementGroupSchedulingStrategy

__all__ = ["Ranks", "Worker", "WorkerGroup", "assign_ranks", "ensure_session"]

logger = logging.getLogger(__name__)

_WAIT_S = 2.0
_WARN_S = 30.0
_CONTROL_THREADS = 2


@dataclass(frozen=True)
class Ranks:
    """Which of the workers one is."""

    world_size: int
    world_rank: int
    local_world_size: int
    local_rank: int
    node_rank: int


@dataclass(frozen=True)
class Worker:
    """One worker as the directing process knows it."""

    actor: Any
    info: WorkerInfo
    ranks: Ranks


def assign_ranks(infos: Sequence[WorkerInfo]) -> list[tuple[int, Ranks]]:
    """Number workers node by node.

    Parameters
    ----------
    infos : sequence of WorkerInfo
        In the order in which the workers were started.

    Returns
    -------
    list of (int, Ranks)
        In the order of world ranks: the index into `infos`, and the ranks. Workers of a node have consecutive world
        ranks, and on a node they are in the order of their GPUs, if they have any.

    Examples
    --------
    >>> infos = [WorkerInfo(1, "a", "A", ""), WorkerInfo(2, "b", "B", ""), WorkerInfo(3, "a", "A", "")]
    >>> [(index, ranks.world_rank, ranks.local_rank, ranks.node_rank) for index, ranks in assign_ranks(infos)]
    [(0, 0, 0, 0), (2, 1, 1, 0), (1, 2, 0, 1)]
    """
    nodes: dict[str, list[int]] = {}
    for index, info in enumerate(infos):
        nodes.setdefault(info.node_id, []).append(index)
    numbered: list[tuple[int, Ranks]] = []
    for node_rank, members in enumerate(nodes.values()):
        members.sort(key=lambda index: (infos[index].gpu_ids, index))
        for local_rank, index in enumerate(members):
            ranks = Ranks(len(infos), len(numbered), len(members), local_rank, node_rank)
            numbered.append((index, ranks))
    return numbered


_own_session = ""
"""Node of the session that was started here, because the program had started none."""


def ensure_session(num_workers: int, resources: Mapping[str, float]) -> dict[str, float]:
    """Start a session if none runs, and say what each worker gets there.

    In a session that the program has not started itself, workers that ask for more CPUs than there are share them. One
    that it has started by ``init(num_cpus=...)`` is a limit.

    Parameters
    ----------
    num_workers : int
    resources : dict of str to float
        That each worker asks for.

    Returns
    -------
    dict of str to float
        The same, or with fewer CPUs.

    Raises
    ------
    NotEnoughResourcesError
        If a session inside this process can never hold the workers. A cluster may grow.
    """
    global _own_session
    resources = dict(resources)
    is_new = not mltoolkit.is_initialized()
    try:
        facts = mltoolkit.init(ignore_reinit_error=True).address_info
    except RuntimeError:  # inside a task or actor, whose session another process has started
        return resources
    if facts["address"] != "inproc":
        return resources
    if is_new:
        _own_session = facts["node_id"]
    total = mltoolkit.cluster_resources()
    each, have = resources.get("CPU", 0.0), total.get("CPU", 0.0)
    if facts["node_id"] == _own_session and each * num_workers > have:
        resources["CPU"] = math.floor(1000 * have / num_workers) / 1000
        logger.warning("%d workers that ask for %g CPUs each share the %g CPUs there are.", num_workers, each, have)
    if any(amount * num_workers > total.get(name, 0.0) + 1e-9 for name, amount in resources.items()):
        raise NotEnoughResourcesError(_too_little(num_workers, resources, total))
    return resources


def _too_little(num_workers: int, resources: Mapping[str, float], total: Mapping[str, float]) -> str:
    needed = {name: amount * num_workers for name, amount in resources.items()}
    text = (
        f"{num_workers} workers with {_amounts(resources)} each need {_amounts(needed)}; the session has "
        f"{_amounts({name: total.get(name, 0.0) for name in needed})}."
    )
    if needed.get("GPU", 0) > total.get("GPU", 0):
        return f"{text} Leave `use_gpu` out to train on CPUs."
    if needed.get("CPU", 0) > total.get("CPU", 0):
        share = math.floor(100 * total.get("CPU", 0) / num_workers) / 100
        return (
            f"{text} Use fewer workers, give each of them at most {share:g} CPUs, or allow more with "
            f"`init(num_cpus={math.ceil(needed['CPU'])})`."
        )
    return text


class WorkerGroup:
    """A fixed number of worker processes.

    Parameters
    ----------
    num_workers : int
    resources : dict of str to float
        Of each worker.
    strategy : {'PACK', 'SPREAD', 'STRICT_PACK', 'STRICT_SPREAD'}
        How they are spread over nodes; ignored inside a trial, whose own request says so.
    name : str
        Under which what they print is shown.
    env_vars : dict of str to str, optional
        Environment of the workers.
    runtime_env : dict, optional
        Runtime environment of the workers, as `remote` takes it.
    """

    def __init__(
        self,
        num_workers: int,
        resources: Mapping[str, float],
        *,
        strategy: str = "PACK",
        name: str = "RayTrainWorker",
        env_vars: Mapping[str, str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        self.num_workers = num_workers
        self.resources = {key: amount for key, amount in resources.items() if amount}
        self._strategy = strategy
        self._name = name
        self._runtime_env = dict(runtime_env or {})
        if env_vars:
            self._runtime_env["env_vars"] = {**self._runtime_env.get("env_vars", {}), **env_vars}
        self._group: PlacementGroup | None = None
        self._actors: list[Any] = []
        self.workers: list[Worker] = []

    def __len__(self) -> int:
        return len(self.workers)

    # Starting and ending

    def begin(self) -> None:
        """Have the processes started, without waiting for them.

        Raises
        ------
        NotEnoughResourcesError
            If the cluster can never hold them.
        """
        try:
            self._reserve()
            actor_class = mltoolkit.remote(type(self._name, (TrainWorker,), {"__doc__": TrainWorker.__doc__}))
            options = self._options()
            self._actors = [actor_class.options(**options).remote() for _ in range(self.num_workers)]
        except BaseException:
            self.shutdown()
            raise

    def start(self) -> None:
        """Start the processes, unless :meth:`begin` has, and number them.

        Raises
        ------
        NotEnoughResourcesError
            If the cluster can never hold them.
        """
        if not self._actors:
            self.begin()
        try:
            infos = mltoolkit.get([actor.describe.remote() for actor in self._actors])
            if any(info.pid == os.getpid() for info in infos):
                raise RuntimeError(
                    "A session with `local_mode=True` has one process and no workers. Leave it out, or debug the training "
                    "function in this process with `ScalingConfig(num_workers=0)`."
                )
        except BaseException:
            self.shutdown()
            raise
        self.workers = [Worker(self._actors[index], infos[index], ranks) for index, ranks in assign_ranks(infos)]

    def shutdown(self) -> None:
        """End the processes at once and give their resources back."""
        for actor in self._actors:
            mltoolkit.kill(actor)
        self._actors, self.workers = [], []
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "num_cpus": self.resources.get("CPU", 0),
            "num_gpus": self.resources.get("GPU", 0),
            "resources": {k: v for k, v in self.resources.items() if k not in ("CPU", "GPU", "memory")},
            "concurrency_groups": {"control": _CONTROL_THREADS},
        }
        if self.resources.get("memory"):
            options["memory"] = self.resources["memory"]
        if self._runtime_env:
            options["runtime_env"] = self._runtime_env
        if self._group is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                self._group, placement_group_capture_child_tasks=True
            )
        return options

    def _reserve(self) -> None:
        """Take the resources of all workers together, so that two runs cannot hold half of theirs each for ever."""
        if not self.resources or get_current_placement_group() is not None:
            return  # a trial's group holds what its workers need
        self._group = placement_group([self.resources] * self.num_workers, strategy=self._strategy)
        started, warned = time.monotonic(), False
        while not self._group.wait(_WAIT_S):
            waited = time.monotonic() - started
            if waited < _WAIT_S / 2:
                raise NotEnoughResourcesError(
                    _too_little(self.num_workers, self.resources, mltoolkit.cluster_resources())
                )
            if waited > _WARN_S and not warned:
                warned = True
                logger.warning(
                    "%d workers wait for %s each; free at the moment: %s.",
                    self.num_workers,
                    _amounts(self.resources),
                    _amounts(mltoolkit.available_resources()) or "nothing",
                )

    # Calling

    def execute_async(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Call a function on all workers; return references in the order of ranks."""
        return [worker.actor.execute.remote(function, *args, **kwargs) for worker in self.workers]

    def execute(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Call a function on all workers; return what it returned, in the order of ranks.

        Raises
        ------
        WorkerGroupError
            As soon as it fails on one.
        """
        from mltoolkit.train._internal.failures import gather

        return gather(dict(enumerate(self.execute_async(function, *args, **kwargs))), self.workers)

    def execute_single_async(self, rank: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function on one worker; return a reference."""
        return self.workers[rank].actor.execute.remote(function, *args, **kwargs)

    def execute_single(self, rank: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function on one worker; return what it returned."""
        from mltoolkit.train._internal.failures import gather

        return gather({rank: self.execute_single_async(rank, function, *args, **kwargs)}, self.workers)[0]

    def share_gpus(self) -> None:
        """Let workers of a node see each other's GPUs: NCCL copies between those that both processes can address."""
        nodes: dict[str, set[int]] = {}
        for worker in self.workers:
            nodes.setdefault(worker.info.node_id, set()).update(worker.info.gpu_ids)
        for worker in self.workers:
            if worker.info.gpu_ids:
                visible = ",".join(map(str, sorted(nodes[worker.info.node_id])))
                self.execute_single(worker.ranks.world_rank, _set_visible_gpus, visible)

    @property
    def on_one_host(self) -> bool:
        """Whether all workers are on the same host."""
        return len({worker.info.hostname for worker in self.workers}) == 1


def _set_visible_gpus(visible: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = visible


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount:g} {name}" for name, amount in sorted(resources.items()) if amount or len(resources) == 1
    )

"""What actors ask of the cluster: their CPUs where there are enough, a fair part of them where there are not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mltoolkit
from mltoolkit._boosting.params import RayParams
from mltoolkit.train._session import current_session as tune_session

__all__ = ["ActorResources", "in_trial", "plan_resources", "share_out"]


@dataclass(frozen=True)
class ActorResources:
    """Of one actor.

    Attributes
    ----------
    cpus : float
        Held while it lives.
    threads : int
        That it computes with.
    gpus : float
    custom : dict
        Other resources.
    reserve : bool
        Whether the actors of one training are reserved together, in a placement group of their own. Not inside a trial, whose
        resources are reserved already.
    """

    cpus: float
    threads: int
    gpus: float
    custom: Mapping[str, float]
    reserve: bool

    def bundle(self) -> dict[str, float]:
        """As a bundle of a placement group."""
        bundle = {"CPU": self.cpus, "GPU": self.gpus, **self.custom}
        return {name: amount for name, amount in bundle.items() if amount}

    def options(self) -> dict[str, Any]:
        """As options of an actor."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.custom)}


def in_trial() -> bool:
    """Whether a trial of Tune runs in this process."""
    return tune_session() is not None


def share_out(num_actors: int, cpus: float, nodes: Sequence[float]) -> float:
    """Return how many CPUs each actor can have.

    Parameters
    ----------
    num_actors : int
    cpus : float
        How many each of them wants.
    nodes : sequence of float
        CPUs of each node.

    Examples
    --------
    >>> share_out(3, 1, [2.0])
    0.66
    >>> share_out(2, 4, [8.0])
    4
    """
    if sum(math.floor(node / cpus + 1e-9) for node in nodes) >= num_actors:
        return cpus
    each = min(cpus, math.floor(100 * sum(nodes) / num_actors) / 100)
    while each > 0.01 and sum(math.floor(node / each + 1e-9) for node in nodes) < num_actors:
        each = round(each - 0.01, 2)
    return max(each, 0.01)


def plan_resources(params: RayParams, *, wants_gpu: bool, logger: Any) -> ActorResources:
    """Decide what each actor asks for.

    Raises
    ------
    ValueError
        If the cluster has fewer GPUs than the actors need, or a trial was not given enough for its actors.
    """
    gpus = float(params.gpus_per_actor if params.gpus_per_actor >= 0 else wants_gpu)
    custom = dict(params.resources_per_actor or {})
    if mltoolkit.get_runtime_context().should_capture_child_tasks_in_placement_group:
        return _inside_group(params, gpus, custom)
    if in_trial():
        return _beside_trial(params, gpus, custom)
    nodes = [node.get("Resources", {}) for node in mltoolkit.nodes() if node.get("Alive")]
    cpus = [float(node.get("CPU", 0)) for node in nodes] or [1.0]
    total_gpus = sum(float(node.get("GPU", 0)) for node in nodes)
    if gpus * params.num_actors > total_gpus:
        raise ValueError(
            f"{params.num_actors} actors with {gpus:g} GPUs each need {gpus * params.num_actors:g} GPUs; the cluster has "
            f"{total_gpus:g}. Use fewer actors, or a part of a GPU for each with `gpus_per_actor=0.5`, or train on CPUs with "
            "`gpus_per_actor=0` and without device='cuda'."
        )
    wanted = float(params.cpus_per_actor)
    if wanted <= 0:
        wanted = float(
            max(1, min(int(min(c for c in cpus if c) if any(cpus) else 1), int(sum(cpus) // params.num_actors)))
        )
    each = share_out(params.num_actors, wanted, cpus)
    if each < wanted and mltoolkit.util.log_once(f"boosting-share-{params.num_actors}-{wanted}-{sum(cpus)}"):
        logger.info(
            "%d actors that want %g CPUs each share the %g CPUs of the cluster.", params.num_actors, wanted, sum(cpus)
        )
    return ActorResources(each, max(1, int(each)), gpus, custom, reserve=True)


def _inside_group(params: RayParams, gpus: float, custom: Mapping[str, float]) -> ActorResources:
    group = mltoolkit.util.get_current_placement_group()
    assert group is not None
    cpus = float(params.cpus_per_actor or 1)
    asked = {name: amount for name, amount in {"CPU": cpus, "GPU": gpus, **custom}.items() if amount}
    own = mltoolkit.get_runtime_context().get_assigned_resources()
    bundles = list(group.bundle_specs)
    if any(own.values()) and bundles:
        bundles = bundles[1:]
    room = sum(_times(bundle, asked) for bundle in bundles)
    if room < params.num_actors:
        raise ValueError(
            f"{params.num_actors} actors with {asked} each do not fit into what the trial was given for them: "
            f"{bundles}. Start it with "
            "`tune.with_resources(trainable, ray_params.get_tune_resources())`."
        )
    return ActorResources(cpus, max(1, int(cpus)), gpus, custom, reserve=False)


def _times(bundle: Mapping[str, float], asked: Mapping[str, float]) -> int:
    return min((int(bundle.get(name, 0) / amount + 1e-9) for name, amount in asked.items()), default=0)


def _beside_trial(params: RayParams, gpus: float, custom: Mapping[str, float]) -> ActorResources:
    """A trial that asked for nothing beside its own process waits while its actors work: they use what it holds."""
    own = mltoolkit.get_runtime_context().get_assigned_resources()
    if gpus > 0:
        raise ValueError(
            "Actors of a trial that use GPUs need resources of their own: start it with "
            "`tune.with_resources(trainable, ray_params.get_tune_resources())`."
        )
    threads = max(1, int(own.get("CPU", 1)) // params.num_actors)
    return ActorResources(0.0, threads, 0.0, custom, reserve=False)

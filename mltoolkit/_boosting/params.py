"""How many actors, with what, and what happens when one is lost."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mltoolkit._boosting.callback import DistributedCallback
    from mltoolkit.tune import PlacementGroupFactory

__all__ = ["RayParams", "check_ray_params"]

P = TypeVar("P", bound="RayParams")


@dataclass
class RayParams:
    """How training and prediction are distributed.

    Parameters
    ----------
    num_actors : int
        Number of actors, each of which holds one shard of the data; at least 1.
    cpus_per_actor : int, default=0
        CPUs and threads of each actor. 0 shares the CPUs of the cluster out, one at least. Where the cluster has fewer CPUs
        than all actors ask for, they share what there is, with one thread each at least.
    gpus_per_actor : int, default=-1
        GPUs of each actor. -1 takes one where the parameters ask for a GPU, none otherwise.
    resources_per_actor : dict, optional
        Custom resources of each actor.
    elastic_training : bool, default=False
        When an actor is lost, go on with those that are left and take a replacement in once it is ready, instead of
        waiting for the replacement.
    max_failed_actors : int, default=0
        With `elastic_training`: how many actors may be missing at a time.
    max_actor_restarts : int, default=0
        How often training starts again from its last checkpoint after actors were lost; -1 without limit.
    checkpoint_frequency : int, default=5
        Rounds between checkpoints, which live in the driver's memory; the first is made after the first round. 0 for none.
    distributed_callbacks : list of DistributedCallback, optional
        Hooks that run in the actors, around loading, training and prediction.
    verbose : bool, optional
        Log what happens to the actors at level INFO. Default: yes, but not inside a trial of Tune.
    placement_options : dict, optional
        Further arguments of the placement group in which the actors are reserved, such as ``{"strategy": "PACK"}``. Default:
        ``"SPREAD"``; in a trial of Tune, for :meth:`get_tune_resources`, ``"PACK"``.

    Examples
    --------
    >>> RayParams(num_actors=2, cpus_per_actor=1).get_tune_resources().required_resources
    {'CPU': 2.0}
    """

    num_actors: int = 0
    cpus_per_actor: int = 0
    gpus_per_actor: int = -1
    resources_per_actor: Mapping[str, float] | None = None
    elastic_training: bool = False
    max_failed_actors: int = 0
    max_actor_restarts: int = 0
    checkpoint_frequency: int = 5
    distributed_callbacks: Sequence[DistributedCallback] | None = None
    verbose: bool | None = None
    placement_options: Mapping[str, Any] | None = None

    def get_tune_resources(self) -> PlacementGroupFactory:
        """Return what a trial that trains with these parameters asks of the cluster: give it to ``tune.with_resources``.

        Returns
        -------
        PlacementGroupFactory
            An empty bundle for the trial itself and one bundle for each actor.

        Raises
        ------
        ValueError
            If `num_actors` or `cpus_per_actor` is not given.
        """
        if self.cpus_per_actor <= 0 or self.num_actors <= 0:
            raise ValueError(
                "get_tune_resources() needs `num_actors` and `cpus_per_actor`, both greater than 0; got "
                f"num_actors={self.num_actors!r} and cpus_per_actor={self.cpus_per_actor!r}."
            )
        from mltoolkit.tune import PlacementGroupFactory

        bundle = {"CPU": float(self.cpus_per_actor), **(self.resources_per_actor or {})}
        if self.gpus_per_actor > 0:
            bundle["GPU"] = float(self.gpus_per_actor)
        options = {"strategy": "PACK", **(self.placement_options or {})}
        return PlacementGroupFactory([{}, *(dict(bundle) for _ in range(self.num_actors))], **options)


def check_ray_params(given: Any, cls: type[P]) -> P:
    """Return checked parameters, from an instance, a dict or None.

    Raises
    ------
    ValueError
        If they are of another type, `num_actors` is not given, or values exclude each other.
    TypeError
        If a dict has a key that is no parameter.
    """
    params = _as_params(given, cls)
    number = params.num_actors
    if isinstance(number, bool) or not isinstance(number, Integral) or number <= 0:
        raise ValueError(
            f"`num_actors` must be an integer >= 1, got {number!r}. Say how many actors to use: "
            "`ray_params=RayParams(num_actors=2)`."
        )
    for name in ("cpus_per_actor", "max_failed_actors", "checkpoint_frequency"):
        value = getattr(params, name)
        if isinstance(value, bool) or not isinstance(value, Real) or value < 0:
            raise ValueError(f"`{name}` must be a number >= 0, got {value!r}.")
    for name in ("gpus_per_actor", "max_actor_restarts"):
        value = getattr(params, name)
        if isinstance(value, bool) or not isinstance(value, Real) or (value < 0 and value != -1):
            raise ValueError(f"`{name}` must be a number >= 0, or -1, got {value!r}.")
    for name in ("resources_per_actor", "placement_options"):
        value = getattr(params, name)
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"`{name}` must be a dict or None, got {value!r}.")
    _check_callbacks(params.distributed_callbacks)
    if params.elastic_training and (params.max_failed_actors == 0 or params.max_actor_restarts == 0):
        name = "max_failed_actors" if params.max_failed_actors == 0 else "max_actor_restarts"
        raise ValueError(
            f"`elastic_training=True` has no effect with `{name}=0`. Set both `max_failed_actors` and "
            "`max_actor_restarts` to 1 or more, or leave elastic training off."
        )
    return params if type(number) is int else replace(params, num_actors=operator.index(number))


def _check_callbacks(given: Any) -> None:
    from mltoolkit._boosting.callback import DistributedCallback

    if given is None:
        return
    if not isinstance(given, Sequence):
        raise ValueError(f"`distributed_callbacks` must be a list of DistributedCallback, got {given!r}.")
    for one in given:
        if not isinstance(one, DistributedCallback):
            raise ValueError(
                f"`distributed_callbacks` must hold instances of DistributedCallback, got {one!r}. Callbacks of the "
                "library itself go into `callbacks` of train() or fit()."
            )


def _as_params(given: Any, cls: type[P]) -> P:
    if given is None:
        return cls()
    if isinstance(given, RayParams):
        own = {field.name for field in fields(cls)}
        values = {field.name: getattr(given, field.name) for field in fields(given) if field.name in own}
        return given if isinstance(given, cls) else cls(**values)
    if not isinstance(given, Mapping):
        raise ValueError(f"`ray_params` must be a RayParams, a dict or None, got {type(given).__name__}.")
    names = [field.name for field in fields(cls)]
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"`ray_params` has no parameter {key!r}.{hint} There are: {', '.join(names)}.")
    return cls(**given)

"""The actors of one training: started together, replaced when lost, gone in the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

import mltoolkit
from mltoolkit import exceptions
from mltoolkit._boosting import block as blocks
from mltoolkit._boosting.errors import ActorFailure
from mltoolkit._boosting.library import Library
from mltoolkit._boosting.matrix import RayDMatrix
from mltoolkit._boosting.params import RayParams
from mltoolkit._boosting.resources import ActorResources
from mltoolkit._boosting.runtime import light_start
from mltoolkit.util.placement_group import placement_group, remove_placement_group
from mltoolkit.util.scheduling_strategies import PlacementGroupSchedulingStrategy

__all__ = ["ActorGroup", "Starting", "is_lost"]

_LOOPBACK = "127.0.0.1"
_CONCURRENT_CALLS = 6  # training, its messages, and what the driver says in between


def is_lost(error: BaseException) -> bool:
    """Whether an error says that an actor is gone, and not that its constructor raised."""
    return isinstance(error, (exceptions.RayActorError, exceptions.NodeDiedError)) and not isinstance(
        getattr(error, "cause", None), BaseException
    )


class Starting:
    """An actor that has been asked for: where it is, and its shards, arrive one by one."""

    def __init__(self, rank: int, actor: Any) -> None:
        self.rank = rank
        self.actor = actor
        self.described = actor.describe.remote()
        self.loading: dict[int, Any] = {}

    def load(self, matrices: Iterable[RayDMatrix]) -> None:
        """Ask it to get its shards of data that is divided."""
        self.loading = {m.uid: self.actor.load.remote(m.without_data(), m.shard(self.rank)) for m in matrices}

    def refs(self) -> list[mltoolkit.ObjectRef]:
        """What has to be ready."""
        return [self.described, *self.loading.values()]

    def is_ready(self) -> bool:
        """Whether everything is."""
        refs = self.refs()
        return len(mltoolkit.wait(refs, num_returns=len(refs), timeout=0)[0]) == len(refs)


class ActorGroup:
    """Actors by rank.

    Parameters
    ----------
    library : Library
    params : RayParams
    resources : ActorResources
        Of each actor.
    matrices : sequence of RayDMatrix
        What each actor loads; divided at the start.
    full_import : bool
        See ``RankLibrary.load``.

    Attributes
    ----------
    actors : dict of int to ActorHandle
        Those that are ready.
    """

    def __init__(
        self,
        library: Library,
        params: RayParams,
        resources: ActorResources,
        matrices: Sequence[RayDMatrix],
        *,
        full_import: bool,
    ) -> None:
        self.library = library
        self.params = params
        self.resources = resources
        self.matrices = list(dict.fromkeys(matrices))
        self.actors: dict[int, Any] = {}
        self._full_import = full_import
        self._places: dict[int, dict[str, Any]] = {}
        self._loaded: dict[int, dict[int, dict[str, Any]]] = {}
        self._group: Any = None
        self._bundles: dict[int, str] = {}

    def __enter__(self) -> ActorGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- starting ------------------------------------------------------------------------------------------------------

    def start(self, ranks: Iterable[int] | None = None) -> None:
        """Start actors that are missing, and wait until they have their data.

        Parameters
        ----------
        ranks : iterable of int, optional
            Which. Default: all.

        Raises
        ------
        ActorFailure
            If one is lost meanwhile.
        TimeoutError
            If the cluster does not free enough for them in time.
        """
        wanted = range(self.params.num_actors) if ranks is None else sorted(ranks)
        missing = [rank for rank in wanted if rank not in self.actors]
        if not missing:
            return
        with light_start(self.library.module):
            if self.resources.reserve and self._group is None:
                self._reserve()
            starting = [self._create(rank) for rank in missing]
            try:
                for matrix in self.matrices:
                    matrix.load_data(self.params.num_actors)  # while the actors start
                for one in starting:
                    one.load(self.matrices)
                self._await(starting)
            except BaseException:
                for one in starting:
                    self._kill(one.actor)
                raise
        for one in starting:
            self.admit(one)

    def launch(self, rank: int, *, outside: bool = False) -> Starting:
        """Ask for one actor and its data; `outside` of the placement group, whose bundle is gone with its node."""
        one = self._create(rank, outside=outside)
        one.load(self.matrices)
        return one

    def _create(self, rank: int, *, outside: bool = False) -> Starting:
        options = self.resources.options()
        if self._group is not None and not outside:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._group, rank)
        cls = mltoolkit.remote(self.library.actor).options(max_concurrency=_CONCURRENT_CALLS, **options)
        actor = cls.remote(
            rank,
            self.params.num_actors,
            self.library.rank,
            self._full_import,
            self.resources.threads,
            self.params.distributed_callbacks,
        )
        return Starting(rank, actor)

    def admit(self, one: Starting) -> None:
        """Make an actor that is ready a member."""
        self._places[one.rank] = mltoolkit.get(one.described)
        for uid, ref in one.loading.items():
            self._loaded.setdefault(uid, {})[one.rank] = mltoolkit.get(ref)
        self._bundles[one.rank] = self._places[one.rank]["node_id"]
        self.actors[one.rank] = one.actor

    def _reserve(self) -> None:
        bundle = self.resources.bundle()
        if not bundle:
            return
        default = "SPREAD" if self.library.setting("USE_SPREAD_STRATEGY", 1) else "PACK"
        options = {"strategy": default, **(self.params.placement_options or {})}
        group = placement_group([dict(bundle) for _ in range(self.params.num_actors)], **options)
        limit = self.library.setting("PLACEMENT_GROUP_TIMEOUT_S", 100)
        try:
            ready, _ = mltoolkit.wait([group.ready()], timeout=min(10.0, limit))
            if not ready:
                self.library.logger.warning(
                    "Training waits for %d x %s; free now: %s.",
                    self.params.num_actors,
                    bundle,
                    mltoolkit.available_resources(),
                )
                ready, _ = mltoolkit.wait([group.ready()], timeout=max(0.0, limit - 10.0))
            if not ready:
                raise TimeoutError(
                    f"The cluster had no room for {self.params.num_actors} actors with {bundle} each within {limit:g} s; free are "
                    f"{mltoolkit.available_resources()}. Others hold the rest: ask for fewer or smaller actors, or wait longer "
                    f"with {self.library.prefix}_PLACEMENT_GROUP_TIMEOUT_S."
                )
            mltoolkit.get(ready)
        except BaseException:
            remove_placement_group(group)
            raise
        self._group = group

    def _await(self, starting: Iterable[Starting]) -> None:
        owners = {ref: one for one in starting for ref in one.refs()}
        pending = list(owners)
        every = self.library.setting("STATUS_FREQUENCY_S", 30)
        began = time.monotonic()
        lost: dict[int, BaseException] = {}
        while pending:
            ready, pending = mltoolkit.wait(pending, num_returns=1, timeout=every)
            if not ready:
                self.library.logger.info("Waiting for actors to get ready (%.0f s).", time.monotonic() - began)
            for ref in ready:
                try:
                    mltoolkit.get(ref)
                except Exception as error:
                    if not is_lost(error):
                        self.raise_unwrapped(error)
                    lost[owners[ref].rank] = error
        if lost:
            rank, first = min(lost.items())
            raise ActorFailure(tuple(sorted(lost)), f"rank {rank} died while it started: {first}") from first

    def raise_unwrapped(self, error: Exception) -> NoReturn:
        """Raise the error of a constructor as training's, and what is wrong with the data as if it had been read here."""
        cause = getattr(error, "cause", None)
        if isinstance(error, exceptions.RayActorError):
            inner = getattr(cause, "cause", None) or cause
            text = f"An actor could not start: {type(inner).__name__}: {inner}"
            raise self.library.training_error(text) from (cause if isinstance(cause, BaseException) else error)
        if isinstance(cause, Exception):
            raise cause from error
        raise error

    # ---- members -------------------------------------------------------------------------------------------------------

    def hosts(self) -> dict[int, str]:
        """Address of each rank for the others: the loopback's where all are on one machine."""
        if len({self._places[rank]["node_id"] for rank in self.actors}) == 1:
            return dict.fromkeys(self.actors, _LOOPBACK)
        if len({self._places[rank]["host"] for rank in self.actors}) == 1:
            return dict.fromkeys(self.actors, _LOOPBACK)
        return {rank: self._places[rank]["host"] for rank in self.actors}

    def pids(self) -> dict[int, int]:
        """Process id of each rank."""
        return {rank: self._places[rank]["pid"] for rank in self.actors}

    def datasets(self) -> dict[int, dict[str, Any]]:
        """What the ranks must know about each dataset, with columns that are the same for all.

        Raises
        ------
        ValueError
            If the columns of some parts differ, or are of no use.
        """
        out = {}
        for matrix in self.matrices:
            loaded = {rank: self._loaded[matrix.uid][rank] for rank in self.actors}
            schemas = [about["schema"] for about in loaded.values() if about["n"]]  # no rows, no types either
            if not schemas:
                raise ValueError("The data has no rows.")
            schema = blocks.unify(schemas)
            matrix.check_schema(schema)
            total = sum(about["n"] for about in loaded.values())
            if not total:
                raise ValueError("The data has no rows.")
            if matrix.n is None:
                matrix.n = total
            out[matrix.uid] = {"schema": schema, "settings": matrix.settings(), "total_rows": total}
            empty = [rank for rank, about in loaded.items() if not about["n"]]
            if empty and mltoolkit.util.log_once(f"boosting-empty-{matrix.uid}"):
                self.library.logger.warning(
                    "Actors %s have no rows of a dataset of %d rows: use fewer actors.",
                    ", ".join(map(str, empty)),
                    total,
                )
            self._look_for_cut_queries(matrix, loaded)
        return out

    def _look_for_cut_queries(self, matrix: RayDMatrix, loaded: Mapping[int, Mapping[str, Any]]) -> None:
        queries = [about["queries"] for about in loaded.values() if about["queries"] is not None]
        if len(queries) < 2:
            return
        _, ranks = np.unique(np.concatenate(queries), return_counts=True)
        cut = int((ranks > 1).sum())
        if cut and mltoolkit.util.log_once(f"boosting-queries-{matrix.uid}"):
            self.library.logger.warning(
                "%d of %d queries have rows in files or partitions of several actors, each of which ranks its part by itself. "
                "Write the rows of each query into one file, or let the driver divide them with `distributed=False`.",
                cut,
                len(ranks),
            )

    def places(self, matrix: RayDMatrix) -> list[Any]:
        """Where the rows of each rank come from."""
        return [self._loaded[matrix.uid][rank]["place"] for rank in sorted(self.actors)]

    # ---- ends ----------------------------------------------------------------------------------------------------------

    def drop(self, ranks: Iterable[int]) -> None:
        """End members that are lost or of no use any more."""
        for rank in ranks:
            actor = self.actors.pop(rank, None)
            if actor is not None:
                self._kill(actor)

    def bundle_is_left(self, rank: int) -> bool:
        """Whether what was reserved for a rank is there still: not if its node is gone."""
        node = self._bundles.get(rank)
        return node is None or any(n.get("Alive") and n.get("NodeID") == node for n in mltoolkit.nodes())

    def move(self, resources: ActorResources) -> None:
        """Leave all nodes, because one that was reserved is gone; the next start finds others, with these resources."""
        self.release()
        self.resources = resources
        for matrix in self.matrices:
            matrix.renew()

    def release(self) -> None:
        """End all actors and give back what was reserved; the group may start again."""
        self.drop(list(self.actors))
        group, self._group = self._group, None
        if group is not None:
            with contextlib.suppress(Exception):  # the session may be gone: nothing is reserved then
                remove_placement_group(group)
        self._bundles.clear()

    close = release

    @staticmethod
    def _kill(actor: Any) -> None:
        with contextlib.suppress(Exception):  # dead already, or the session is
            mltoolkit.kill(actor)

"""Who holds which resources: pure bookkeeping without processes, clocks or I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mltoolkit.core.options import Demand

_EPSILON = 1e-6  # fractions add up with rounding errors
Resources = dict[str, float]


def covers(available: Mapping[str, float], wanted: Iterable[tuple[str, float]]) -> bool:
    """Return whether `available` has at least `wanted` of everything."""
    return all(available.get(name, 0.0) + _EPSILON >= amount for name, amount in wanted)


def _shown(amount: float) -> str:
    return f"{amount:g}" if amount < 1e6 else f"{amount:,.0f}"


@dataclass
class Pool:
    """Resources that allocations are taken from: a node's own, or those of one bundle of a placement group.

    Parameters
    ----------
    node_id : str
        The node they lie on.
    total : dict of str to float
        What there is.
    gpu_ids : list of int
        Physical or logical ids of the GPUs.
    """

    node_id: str
    total: Resources
    gpu_ids: list[int] = field(default_factory=list)
    available: Resources = field(init=False)
    gpu_free: dict[int, float] = field(init=False)
    alive: bool = True
    users: int = 0

    def __post_init__(self) -> None:
        self.available = dict(self.total)
        self.gpu_free = dict.fromkeys(self.gpu_ids, 1.0)

    def take(self, wanted: Iterable[tuple[str, float]]) -> list[int] | None:
        """Take resources; return the ids of the GPUs among them, None if there is not enough."""
        wanted = tuple(wanted)
        if not self.alive or not covers(self.available, wanted):
            return None
        gpus: list[int] = []
        for name, amount in wanted:
            if name == "GPU" and self.gpu_ids:
                picked = self._pick_gpus(amount)
                if picked is None:
                    return None
                gpus = picked
        for name, amount in wanted:
            self.available[name] -= amount
        share = dict(wanted).get("GPU", 0.0)
        for gpu in gpus:
            self.gpu_free[gpu] -= min(share, 1.0)
        return gpus

    def _pick_gpus(self, amount: float) -> list[int] | None:
        if amount >= 1:
            free = [gpu for gpu in self.gpu_ids if self.gpu_free[gpu] > 1 - _EPSILON]
            return free[: int(amount)] if len(free) >= int(amount) else None
        # The fullest one that still fits leaves whole GPUs for those who need them.
        fitting = [gpu for gpu in self.gpu_ids if self.gpu_free[gpu] + _EPSILON >= amount]
        return [min(fitting, key=lambda gpu: self.gpu_free[gpu])] if fitting else None

    def give_back(self, held: Iterable[tuple[str, float]], gpus: Iterable[int]) -> None:
        """Undo `take`."""
        held = tuple(held)
        for name, amount in held:
            value = self.available.get(name, 0.0) + amount
            total = self.total.get(name, 0.0)
            self.available[name] = total if abs(value - total) < _EPSILON else value
        share = dict(held).get("GPU", 0.0)
        for gpu in gpus:
            self.gpu_free[gpu] = min(1.0, self.gpu_free[gpu] + min(share, 1.0))


@dataclass
class Allocation:
    """Resources that one task, actor or bundle holds.

    Parameters
    ----------
    pool : Pool
        Where they came from.
    held : tuple of (str, float)
        What.
    gpus : list of int
        Ids of GPUs.
    bundle : tuple of (bytes, int) or None
        Placement group and bundle, if the pool is one.
    """

    pool: Pool
    held: tuple[tuple[str, float], ...]
    gpus: list[int]
    bundle: tuple[bytes, int] | None = None
    suspended: bool = False
    lease: Any = None

    @property
    def node_id(self) -> str:
        """The node."""
        return self.pool.node_id

    def _cpus(self) -> tuple[tuple[str, float], ...]:
        return tuple((name, amount) for name, amount in self.held if name == "CPU")

    def suspend(self) -> bool:
        """Lend the CPUs to others while the holder waits; False if that was so already."""
        if self.suspended or not self._cpus():
            return False
        self.suspended = True
        self.pool.give_back(self._cpus(), ())
        return True

    def resume(self) -> None:
        """Take the CPUs back, even if others use them now: a holder that has what it waited for never waits twice."""
        if self.suspended:
            self.suspended = False
            for name, amount in self._cpus():
                self.pool.available[name] -= amount

    def release(self) -> None:
        """Give everything back."""
        self.resume()
        self.pool.give_back(self.held, self.gpus)
        self.pool.users -= 1


@dataclass
class BundleGroup:
    """A placement group that has its resources.

    Parameters
    ----------
    group_id : bytes
        Id.
    pools : list of Pool
        One a bundle.
    reservations : list of Allocation
        What they were taken from.
    """

    group_id: bytes
    pools: list[Pool]
    reservations: list[Allocation]


class Ledger:
    """All nodes' resources and the placement groups cut out of them."""

    def __init__(self) -> None:
        self.nodes: dict[str, Pool] = {}
        self.groups: dict[bytes, BundleGroup] = {}
        self._spread_turn = 0

    def add_node(self, node_id: str, total: Resources, gpu_ids: list[int]) -> None:
        """Add a node."""
        self.nodes[node_id] = Pool(node_id, dict(total), list(gpu_ids))

    def remove_node(self, node_id: str) -> None:
        """Remove a node; what was allocated on it may still be released."""
        pool = self.nodes.pop(node_id, None)
        if pool is not None:
            pool.alive = False
        for group in self.groups.values():
            for bundle in group.pools:
                if bundle.node_id == node_id:
                    bundle.alive = False

    def totals(self) -> Resources:
        """Return the sum over all nodes."""
        return self._sum(lambda pool: pool.total)

    def availables(self) -> Resources:
        """Return what is free now, never negative."""
        return {name: amount for name, amount in self._sum(lambda pool: pool.available).items() if amount > _EPSILON}

    def _sum(self, of: Any) -> Resources:
        out: Resources = {}
        for pool in self.nodes.values():
            for name, amount in of(pool).items():
                out[name] = out.get(name, 0.0) + max(0.0, amount)
        return out

    # ---- tasks and actors --------------------------------------------------------------------------------------------

    def candidates(self, demand: Demand) -> list[tuple[Pool, tuple[bytes, int] | None]]:
        """Return the pools that the demand's strategy allows, in order of preference."""
        strategy = demand.strategy
        group = getattr(strategy, "placement_group", None)
        if group is not None:
            bundles = self.groups.get(group.id_bytes)
            if bundles is None:
                return []
            index = strategy.placement_group_bundle_index
            indices = range(len(bundles.pools)) if index < 0 else [index]
            return [(bundles.pools[i], (group.id_bytes, i)) for i in indices if i < len(bundles.pools)]
        node_id = getattr(strategy, "node_id", None)
        if node_id is not None:
            own = [(self.nodes[node_id], None)] if node_id in self.nodes else []
            fits = [pair for pair in own if covers(pair[0].total, demand.placing)]
            if not strategy.soft or fits:
                return list(fits)
            return [(pool, None) for pool in self.nodes.values()]
        pools = list(self.nodes.values())
        if strategy == "SPREAD" and len(pools) > 1:
            pools.sort(key=lambda pool: pool.users)
        elif len(pools) > 1:
            # Pack on busy nodes until they are half full, then spread: Ray's hybrid rule.
            pools.sort(key=lambda pool: (self._load(pool) if self._load(pool) >= 0.5 else 0.0, pool.users))
        return [(pool, None) for pool in pools]

    @staticmethod
    def _load(pool: Pool) -> float:
        total = pool.total.get("CPU", 0.0)
        return 1.0 - pool.available.get("CPU", 0.0) / total if total else 0.0

    def allocate(self, demand: Demand) -> Allocation | None:
        """Take what a demand holds from the best pool; None if nobody has it now."""
        for pool, bundle in self.candidates(demand):
            if not pool.alive or not covers(pool.total, demand.placing):
                continue
            gpus = pool.take(demand.held)
            if gpus is not None:
                pool.users += 1
                return Allocation(pool, demand.held, gpus, bundle)
        return None

    def feasible(self, demand: Demand) -> bool:
        """Return whether any pool could ever hold the demand."""
        return any(pool.alive and covers(pool.total, demand.placing) for pool, _ in self.candidates(demand))

    def largest(self) -> str:
        """Describe what the nodes have in all, for messages."""
        parts = [
            "{"
            + ", ".join(f"{k}: {_shown(v)}" for k, v in sorted(pool.total.items()) if not k.startswith("node:"))
            + "}"
            for pool in self.nodes.values()
        ]
        return "; ".join(sorted(set(parts))) or "no nodes"

    # ---- placement groups --------------------------------------------------------------------------------------------

    def place_bundles(self, bundles: list[Resources], strategy: str, *, totals: bool = False) -> list[Pool] | None:
        """Choose a node for each bundle, all or none; with `totals`, as if nothing were in use."""
        free = {
            pool.node_id: dict(pool.total if totals else pool.available) for pool in self.nodes.values() if pool.alive
        }
        if strategy == "STRICT_PACK":
            for node_id, have in free.items():
                need: Resources = {}
                for bundle in bundles:
                    for name, amount in bundle.items():
                        need[name] = need.get(name, 0.0) + amount
                if covers(have, need.items()):
                    return [self.nodes[node_id]] * len(bundles)
            return None
        order = sorted(range(len(bundles)), key=lambda i: -sum(bundles[i].values()))
        chosen: dict[int, str] = {}
        for index in order:
            used = {node: list(chosen.values()).count(node) for node in free}
            nodes = list(free)
            if strategy == "PACK":
                nodes.sort(key=lambda node: -used[node])
            else:
                nodes.sort(key=lambda node: used[node])
            for node in nodes:
                if strategy == "STRICT_SPREAD" and used[node]:
                    continue
                if covers(free[node], bundles[index].items()):
                    for name, amount in bundles[index].items():
                        free[node][name] -= amount
                    chosen[index] = node
                    break
            else:
                return None
        return [self.nodes[chosen[i]] for i in range(len(bundles))]

    def reserve_group(self, group_id: bytes, bundles: list[Resources], strategy: str) -> BundleGroup | None:
        """Reserve all bundles of a group, or none."""
        pools = self.place_bundles(bundles, strategy)
        if pools is None:
            return None
        reservations: list[Allocation] = []
        for pool, bundle in zip(pools, bundles, strict=True):
            held = tuple(sorted(bundle.items()))
            gpus = pool.take(held)
            if gpus is None:  # fractions of GPUs that add up but do not fit
                for reservation in reservations:
                    reservation.release()
                return None
            pool.users += 1
            reservations.append(Allocation(pool, held, gpus))
        group = BundleGroup(
            group_id,
            [Pool(r.node_id, dict(r.held), list(r.gpus)) for r in reservations],
            reservations,
        )
        self.groups[group_id] = group
        return group

    def remove_group(self, group_id: bytes) -> None:
        """Give a group's resources back; what runs in it must be ended by the caller."""
        group = self.groups.pop(group_id, None)
        if group is not None:
            for pool in group.pools:
                pool.alive = False
            for reservation in group.reservations:
                reservation.release()

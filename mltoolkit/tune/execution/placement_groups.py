"""What a trial asks of the cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mltoolkit.util.placement_group import PlacementGroup, placement_group

__all__ = ["PlacementGroupFactory", "resource_dict_to_pg_factory"]

_STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroupFactory:
    """The resources of one trial: a bundle for the trial itself and one for each worker that it starts.

    Parameters
    ----------
    bundles : sequence of dict
        Resources such as ``{"CPU": 1, "GPU": 0.5}``. The first is the trial's own process; an empty first one means
        that it needs nothing itself. The others are for tasks and actors that the trial starts.
    strategy : {'PACK', 'SPREAD', 'STRICT_PACK', 'STRICT_SPREAD'}, default='PACK'
        How bundles are spread over nodes.

    Raises
    ------
    ValueError
        If there is no bundle, an amount is negative or no number, or the strategy is unknown.

    Examples
    --------
    >>> factory = PlacementGroupFactory([{"CPU": 1}, {"CPU": 2}, {"CPU": 2}])
    >>> factory.required_resources
    {'CPU': 5.0}
    """

    def __init__(self, bundles: Sequence[Mapping[str, float]], strategy: str = "PACK") -> None:
        if isinstance(bundles, Mapping) or not bundles:
            raise ValueError(
                f"`bundles` must be a list with at least one bundle such as [{{'CPU': 1}}], got {bundles!r}. "
                "The first bundle is the trial's own."
            )
        if strategy not in _STRATEGIES:
            raise ValueError(f"`strategy` must be one of {', '.join(_STRATEGIES)}, got {strategy!r}.")
        self._bundles = [_checked(bundle) for bundle in bundles]
        self._strategy = strategy

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The bundles, without resources of which none is asked."""
        return [dict(bundle) for bundle in self._bundles]

    @property
    def strategy(self) -> str:
        """How bundles are spread over nodes."""
        return self._strategy

    @property
    def head_bundle_is_empty(self) -> bool:
        """Whether the trial's own process needs nothing."""
        return not self._bundles[0]

    @property
    def head_cpus(self) -> float:
        """CPUs of the trial's own process."""
        return self._bundles[0].get("CPU", 0.0)

    @property
    def required_resources(self) -> dict[str, float]:
        """The sum over all bundles."""
        total: Counter[str] = Counter()
        for bundle in self._bundles:
            total.update(bundle)
        return dict(total)

    def to_placement_group(self) -> PlacementGroup:
        """Reserve the bundles that ask for something."""
        return placement_group([b for b in self._bundles if b], strategy=self._strategy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroupFactory) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return (self._strategy, tuple(tuple(sorted(bundle.items())) for bundle in self._bundles))

    def __repr__(self) -> str:
        return f"PlacementGroupFactory({self._bundles}, strategy={self._strategy!r})"


def resource_dict_to_pg_factory(spec: Mapping[str, Any] | None = None) -> PlacementGroupFactory:
    """Turn ``resources_per_trial={"cpu": 2, "gpu": 1}`` into a factory with one bundle.

    Parameters
    ----------
    spec : dict, optional
        ``cpu``, ``gpu``, ``memory`` (bytes), ``custom_resources`` (a dict) and names of custom resources; upper case
        is accepted. None asks for one CPU.
    """
    if spec is None:
        return PlacementGroupFactory([{"CPU": 1}])
    names = {"cpu": "CPU", "gpu": "GPU"}
    bundle: dict[str, Any] = {}
    for name, amount in spec.items():
        if name == "custom_resources":
            bundle.update(amount)
        elif name.startswith("extra_"):
            raise ValueError(
                f"{name!r} was removed from Tune's resources. Give workers of a trial bundles of their own: "
                "tune.PlacementGroupFactory([{'CPU': 1}, {'CPU': 1}])."
            )
        else:
            bundle[names.get(name.lower(), name)] = amount
    return PlacementGroupFactory([bundle])


def _checked(bundle: Mapping[str, float]) -> dict[str, float]:
    checked = {}
    for name, amount in bundle.items():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not amount >= 0:
            raise ValueError(f"The amount of resource {name!r} must be a number >= 0, got {amount!r}.")
        if amount:
            checked[name] = float(amount)
    return checked

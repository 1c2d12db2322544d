"""``mltoolkit status``: the nodes of a cluster and what each offers, as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

import mltoolkit
from mltoolkit._processes import CommandError

__all__ = ["show_status"]

# Sizes in bytes, which nobody reads as digits.
_SIZES = frozenset({"memory", "object_store_memory"})
# Bookkeeping that names a node or an address, not an amount that anybody asks for.
_HIDDEN_PREFIX = "node:"


def show_status(address: str, console: Console | None = None) -> None:
    """Print the nodes of the cluster at `address` and their resources.

    Parameters
    ----------
    address : str
        Of the Dask scheduler.
    console : rich.console.Console, default=None
        Where to print; ``None`` means standard output.

    Raises
    ------
    CommandError
        If nothing answers at `address`.
    """
    console = console or Console()
    try:
        mltoolkit.init(address=address, log_to_driver=False)
    except (OSError, TimeoutError, ConnectionError) as error:
        raise CommandError(f"no Dask scheduler answers at {address}: {error}") from error
    try:
        nodes = mltoolkit.nodes()
        total, free = mltoolkit.cluster_resources(), mltoolkit.available_resources()
    finally:
        mltoolkit.shutdown()
    console.print(_nodes_table(address, nodes))
    console.print(_resources_table(total, free))


def _nodes_table(address: str, nodes: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Nodes of {address}", title_justify="left")
    for column in ("node", "host", "state"):
        table.add_column(column)
    table.add_column("resources", overflow="fold")
    for node in sorted(nodes, key=lambda node: str(node.get("NodeID"))):
        offered = ", ".join(f"{name} {_amount(name, value)}" for name, value in _shown(node.get("Resources", {})))
        state = "alive" if node.get("Alive") else "dead"
        table.add_row(str(node.get("NodeID", ""))[:12], str(node.get("NodeManagerAddress", "")), state, offered)
    return table


def _resources_table(total: dict[str, float], free: dict[str, float]) -> Table:
    table = Table(title="Resources", title_justify="left")
    table.add_column("resource")
    table.add_column("free", justify="right")
    table.add_column("of", justify="right")
    for name, amount in _shown(total):
        table.add_row(name, _amount(name, free.get(name, 0.0)), _amount(name, amount))
    return table


def _shown(resources: dict[str, float]) -> list[tuple[str, float]]:
    return sorted((name, amount) for name, amount in resources.items() if not name.startswith(_HIDDEN_PREFIX))


def _amount(name: str, value: float) -> str:
    return f"{value / 2**30:.1f} GiB" if name in _SIZES else f"{value:g}"

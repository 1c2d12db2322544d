"""Questions about the session that every process may ask; the caller holds the head's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.core.head import Head


class Queries:
    """Answer by name."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def answer(self, what: str, args: tuple[Any, ...]) -> Any:
        """Answer one question."""
        method: Callable[..., Any] = getattr(self, f"_{what}")
        return method(*args)

    def _get_actor(self, name: str, namespace: str) -> tuple[bytes, Any]:
        return self.head.actors.look_up(name, namespace)

    def _named_actors(self) -> list[tuple[str, str]]:
        return list(self.head.actors.names)

    def _is_attached(self) -> bool:
        return self.head.is_attached

    def _actor_state(self, actor_id: bytes) -> str:
        actor = self.head.actors.actors.get(actor_id)
        return actor.state if actor is not None else "DEAD"

    def _cluster_resources(self) -> dict[str, float]:
        return self.head.ledger.totals()

    def _available_resources(self) -> dict[str, float]:
        return self.head.ledger.availables()

    def _nodes(self) -> list[dict[str, Any]]:
        return [node.describe(self.head.ledger.nodes[node_id]) for node_id, node in self.head.nodes.items()]

    def _group_create(self, *args: Any) -> None:
        self.head.groups.create(*args)

    def _group_ready_ref(self, group_id: bytes) -> bytes:
        return self.head.groups.ready_ref(group_id)

    def _group_remove(self, group_id: bytes) -> None:
        self.head.groups.remove(group_id)

    def _group_by_name(self, name: str) -> Any:
        return self.head.groups.by_name(name)

    def _group_table(self) -> dict[str, Any]:
        return self.head.groups.table()

    def _stream_ready(self, task_id: bytes, index: int) -> bool:
        stream = self.head.tasks.streams.get(task_id)
        return stream is None or stream.ended or index < len(stream.items)

    def _stream_exhausted(self, task_id: bytes, index: int) -> bool:
        stream = self.head.tasks.streams.get(task_id)
        return stream is None or (stream.ended and index >= len(stream.items))

    def _task_cancelled(self, task_id: bytes) -> bool:
        spec = self.head.tasks.live.get(task_id)
        return spec is not None and spec.cancelled

    def _was_reconstructed(self, actor_id: bytes) -> bool:
        actor = self.head.actors.actors.get(actor_id)
        return actor is not None and actor.restarts > 0

    def _dashboard_url(self) -> str:
        return ""

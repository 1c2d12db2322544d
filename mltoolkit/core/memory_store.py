"""An object store in this process's own memory, for runtimes that have no other process."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

from mltoolkit.core.store import ALIGNMENT, Segment, Store
from mltoolkit.exceptions import ObjectLostError, ObjectStoreFullError


class MemoryStore(Store):
    """Keep segments in anonymous memory; nothing of them is seen outside, and nothing stays behind.

    Parameters
    ----------
    limit_bytes : int or None
        How many bytes may lie here. None: as many as fit.
    node_id : str
        Id of the node.
    """

    def __init__(self, limit_bytes: int | None = None, node_id: str = "") -> None:
        super().__init__("", "", limit_bytes, node_id, "inline")
        self._segments: dict[str, memoryview] = {}
        self._used = 0

    def write(self, name: str, parts: Sequence[bytes | memoryview]) -> Segment:
        spans = []
        offset = 0
        for part in parts:
            length = part.nbytes if isinstance(part, memoryview) else len(part)
            spans.append((offset, length))
            offset += -(-length // ALIGNMENT) * ALIGNMENT
        segment = Segment(name, tuple(spans), self.host, self.node_id)
        if self.limit_bytes is not None and self._used + segment.nbytes > self.limit_bytes:
            raise ObjectStoreFullError(
                f"No room for an object of {segment.nbytes:,} bytes: {self._used:,} of "
                f"object_store_memory={self.limit_bytes:,} are in use. Drop references to objects you no longer "
                "need, or allow more."
            )
        target = memoryview(mmap.mmap(-1, max(segment.nbytes, 1)))
        for part, (start, length) in zip(parts, spans, strict=True):
            if length:
                target[start : start + length] = memoryview(part).cast("B")
        self._segments[name] = target.toreadonly()
        self._used += segment.nbytes
        return segment

    def map(self, segment: Segment) -> list[memoryview]:
        view = self._segments.get(segment.path)
        if view is None:
            raise ObjectLostError(segment.path, "Its segment in the object store has been deleted.")
        return [view[offset : offset + length] for offset, length in segment.spans]

    def delete(self, segment: Segment) -> None:
        if self._segments.pop(segment.path, None) is not None:
            self._used -= segment.nbytes

    def trim(self, age_s: float = 0.0) -> bool:
        """Return False: nothing is kept for reuse."""
        return False

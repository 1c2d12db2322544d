"""The session's object table: what each reference points to, and how long it lives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mltoolkit.core.serialization import ERROR, SHARED, Payload
from mltoolkit.core.store import Segment
from mltoolkit.core.waiting import Waiter


class ObjectEntry:
    """One object: pending until it has a payload.

    `refs` counts everything that keeps it alive: references in the driver and in executors, the task that makes it, tasks that need it, and
    objects that contain it.
    """

    __slots__ = ("lineage", "object_id", "payload", "refs", "task", "waiters")

    def __init__(self, object_id: bytes, refs: int, task: Any = None) -> None:
        self.object_id = object_id
        self.payload: Payload | None = None
        self.refs = refs
        self.task = task
        self.waiters: list[Any] | None = None
        self.lineage: Any = None  # the task that can make it again


class ObjectTable:
    """All objects of a session; the caller holds the head's lock.

    Parameters
    ----------
    delete_segment : callable
        Deletes a value's shared memory.
    """

    def __init__(self, delete_segment: Callable[[Segment], None]) -> None:
        self.entries: dict[bytes, ObjectEntry] = {}
        self._delete_segment = delete_segment
        self.on_handles_gone: Callable[[bytes], None] = lambda actor_id: None
        self.on_lineage_unused: Callable[[Any], None] = lambda spec: None
        self.actor_ids: set[bytes] = set()

    def get(self, object_id: bytes) -> ObjectEntry | None:
        """Return an entry, None if it is unknown or was freed."""
        return self.entries.get(object_id)

    def create(self, object_id: bytes, refs: int, task: Any = None) -> ObjectEntry:
        """Add a pending object."""
        entry = self.entries[object_id] = ObjectEntry(object_id, refs, task)
        return entry

    def hold(self, object_id: bytes, count: int = 1) -> bool:
        """Add references; False if the object is not there."""
        entry = self.entries.get(object_id)
        if entry is None:
            return False
        entry.refs += count
        return True

    def drop(self, object_id: bytes, count: int = 1) -> None:
        """Take references away; the last frees the object and lets go of what it contains."""
        stack = [(object_id, count)]
        while stack:
            object_id, count = stack.pop()
            entry = self.entries.get(object_id)
            if entry is None:
                continue
            entry.refs -= count
            if entry.refs > 0:
                continue
            del self.entries[object_id]
            if object_id in self.actor_ids:
                self.actor_ids.discard(object_id)
                self.on_handles_gone(object_id)
            if entry.lineage is not None:
                self.on_lineage_unused(entry.lineage)
            payload = entry.payload
            if payload is not None:
                if payload[0] == SHARED:
                    self._delete_segment(payload[1])
                stack.extend((contained, 1) for contained in payload[2])

    def hold_payload(self, payload: Payload) -> None:
        """Keep what a payload refers to alive."""
        for contained in payload[2]:
            self.hold(contained)

    def discard_payload(self, payload: Payload) -> None:
        """Let go of a payload that is no object's: arguments, or a result nobody wants."""
        if payload[0] == SHARED:
            self._delete_segment(payload[1])
        for contained in payload[2]:
            self.drop(contained)

    def resolve(self, object_id: bytes, payload: Payload) -> None:
        """Give a pending object its payload and tell who waits for it."""
        entry = self.entries.get(object_id)
        self.hold_payload(payload)
        if entry is None or entry.payload is not None:
            self.discard_payload(payload)
            return
        entry.payload = payload
        entry.task = None
        waiters, entry.waiters = entry.waiters, None
        if waiters:
            failed = payload[0] == ERROR
            for waiter in waiters:
                if type(waiter) is Waiter:
                    if failed:
                        waiter.finish()
                    elif waiter.count > 0:
                        waiter.notify()
                else:
                    waiter(entry)

    def watch(self, entry: ObjectEntry, waiter: Any) -> None:
        """Tell `waiter`, a Waiter or a callable, when the entry is ready."""
        if entry.waiters is None:
            entry.waiters = [waiter]
        else:
            entry.waiters.append(waiter)

    def unwatch(self, entries: Iterable[ObjectEntry], waiter: Any) -> None:
        """Undo `watch`."""
        for entry in entries:
            if entry.waiters is not None:
                try:
                    entry.waiters.remove(waiter)
                except ValueError:
                    pass

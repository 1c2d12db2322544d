"""The host's object store: large buffers in files that every process of the host maps.

A segment is a file in the session's shared-memory directory (``/dev/shm``), or in the session's directory on disk
where shared memory is missing or full. It is written once, then only mapped read-only. Deleting the file frees the memory as soon
as the last process unmaps it, so readers never lose data under their feet.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass

from mltoolkit.exceptions import ObjectLostError, ObjectStoreFullError

ALIGNMENT = 64  # a cache line, and what vectorised code wants
_MAX_WRITE = 1 << 30  # Linux moves at most 2 GiB - 4 KiB in one call


@dataclass(frozen=True, slots=True)
class Segment:
    """Where a value's buffers lie.

    Parameters
    ----------
    name : str
        File name inside a store directory.
    on_disk : bool
        True if it lies in the session's directory on disk.
    spans : tuple of (int, int)
        Offset and length in bytes of the pickle stream and then of each buffer.
    node_id : str
        The host's node; "" for the driver's own host.
    """

    name: str
    on_disk: bool
    spans: tuple[tuple[int, int], ...]
    node_id: str = ""

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        offset, length = self.spans[-1]
        return offset + length


class Store:
    """Write, map and delete segments of one session on one host.

    Parameters
    ----------
    shm_dir : str
        The session's directory in shared memory; "" if the host has none.
    disk_dir : str
        The session's directory on disk.
    limit_bytes : int or None
        How many bytes may lie in `shm_dir`; what does not fit goes to `disk_dir`. None: as many as fit.
    node_id : str
        Id of the node whose processes share this store.
    """

    def __init__(self, shm_dir: str, disk_dir: str, limit_bytes: int | None = None, node_id: str = "") -> None:
        self.shm_dir = shm_dir
        self.disk_dir = disk_dir
        self.limit_bytes = limit_bytes
        self.node_id = node_id

    def write(self, name: str, parts: Sequence[bytes | memoryview]) -> Segment:
        """Write `parts` into a new segment, each part aligned to 64 bytes.

        Raises
        ------
        ObjectStoreFullError
            If neither shared memory nor the disk has room.
        """
        spans = []
        offset = 0
        for part in parts:
            length = part.nbytes if isinstance(part, memoryview) else len(part)
            spans.append((offset, length))
            offset += -(-length // ALIGNMENT) * ALIGNMENT
        total = spans[-1][0] + spans[-1][1]
        if self.shm_dir and self._fits(total):
            try:
                self._write_file(os.path.join(self.shm_dir, name), parts, spans)
                return Segment(name, False, tuple(spans), self.node_id)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOENT, errno.ENOMEM):
                    raise
        try:
            self._write_file(os.path.join(self.disk_dir, name), parts, spans)
        except OSError as error:
            raise ObjectStoreFullError(
                f"No room for an object of {total:,} bytes: shared memory ({self.shm_dir or 'none'}) is full or at its "
                f"limit, and writing to {self.disk_dir} failed: {error}. Drop references to objects you no longer need, "
                "or point MLTOOLKIT_TMPDIR to a larger disk."
            ) from error
        return Segment(name, True, tuple(spans), self.node_id)

    def _fits(self, total: int) -> bool:
        if self.limit_bytes is None:
            return True
        used = 0
        try:
            with os.scandir(self.shm_dir) as entries:
                for entry in entries:
                    used += entry.stat().st_size
        except OSError:  # a file vanished while we counted: the next write counts again
            pass
        return used + total <= self.limit_bytes

    @staticmethod
    def _write_file(path: str, parts: Sequence[bytes | memoryview], spans: Sequence[tuple[int, int]]) -> None:
        # write() instead of a writable map: the kernel fills fresh pages without zeroing them first or faulting each
        # one, and a full file system is an error here, where a map would end in SIGBUS.
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            for part, (offset, length) in zip(parts, spans, strict=True):
                view = memoryview(part).cast("B") if length else memoryview(b"")
                done = 0
                while done < length:
                    done += os.pwrite(fd, view[done : done + _MAX_WRITE], offset + done)
            end = spans[-1][0] + spans[-1][1]
            os.ftruncate(fd, max(end, 1))
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(fd)

    def path(self, segment: Segment) -> str:
        """Return the path of the segment's file on this host."""
        return os.path.join(self.disk_dir if segment.on_disk else self.shm_dir, segment.name)

    def map(self, segment: Segment) -> list[memoryview]:
        """Map a segment read-only.

        Returns
        -------
        list of memoryview
            One read-only view a span; each keeps the map alive.

        Raises
        ------
        ObjectLostError
            If the file is gone.
        """
        try:
            fd = os.open(self.path(segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ObjectLostError(segment.name, "Its segment in the object store has been deleted.") from None
        try:
            view = memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED))
        finally:
            os.close(fd)
        return [view[offset : offset + length] for offset, length in segment.spans]

    def delete(self, segment: Segment) -> None:
        """Delete a segment's file; who has mapped it keeps the data."""
        try:
            os.unlink(self.path(segment))
        except FileNotFoundError:
            pass

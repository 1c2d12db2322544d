"""The host's object store: large buffers in files that every process of the host maps.

A segment is a file in the session's shared-memory directory (``/dev/shm``), or in the session's directory on disk
where shared memory is missing or full. It is written once, then only mapped read-only. Deleting the file frees the memory as soon
as the last process unmaps it, so readers never lose data under their feet.

Large files of deleted segments are kept for a moment: writing over pages that exist is three times as fast as having the kernel
find fresh ones. A write lease on the file, which the kernel grants only if nobody else has it open or mapped, makes that safe
without any counting.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mltoolkit.exceptions import ObjectLostError, OutOfDiskError

ALIGNMENT = 64  # a cache line, and what vectorised code wants
_MAX_WRITE = 1 << 30  # Linux moves at most 2 GiB - 4 KiB in one call
_RECYCLE_MIN = 1 << 20  # bytes; below, finding a file costs as much as fresh pages
_RECYCLE_MAX = 256 << 20  # bytes kept for reuse in all
_RECYCLE_AGE_S = 2.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOENT, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class Segment:
    """Where a value's buffers lie.

    Parameters
    ----------
    path : str
        The file.
    spans : tuple of (int, int)
        Offset and length in bytes of the pickle stream and then of each buffer.
    host : str
        Where the path can be opened; see `host.shared_memory_id`.
    node_id : str
        The node whose process wrote it, and whose end takes it along.
    """

    path: str
    spans: tuple[tuple[int, int], ...]
    host: str
    node_id: str

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
    host : str
        Processes with the same value can open each other's segments.
    """

    def __init__(
        self, shm_dir: str, disk_dir: str, limit_bytes: int | None = None, node_id: str = "", host: str = ""
    ) -> None:
        self.host = host
        self.shm_dir = shm_dir
        self.disk_dir = disk_dir
        self.limit_bytes = limit_bytes
        self.node_id = node_id

    def write(self, name: str, parts: Sequence[bytes | memoryview]) -> Segment:
        """Write `parts` into a new segment, each part aligned to 64 bytes.

        Raises
        ------
        OutOfDiskError
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
            path = os.path.join(self.shm_dir, name)
            for attempt in range(2):
                try:
                    self._write_file(path, parts, spans, self._recycled(path, total) if not attempt else None)
                    return Segment(path, tuple(spans), self.host, self.node_id)
                except OSError as error:
                    if error.errno not in _FULL:
                        raise
                    self.trim(0.0)
        path = os.path.join(self.disk_dir, name)
        try:
            self._write_file(path, parts, spans, None)
        except OSError as error:
            raise OutOfDiskError(
                f"No room for an object of {total:,} bytes: shared memory ({self.shm_dir or 'none'}) is full or at its "
                f"limit, and writing to {self.disk_dir} failed: {error}. Drop references to objects you no longer need, "
                "or point MLTOOLKIT_TMPDIR to a larger disk."
            ) from error
        return Segment(path, tuple(spans), self.host, self.node_id)

    def _fits(self, total: int) -> bool:
        return self.limit_bytes is None or _directory_bytes(self.shm_dir) + total <= self.limit_bytes

    @staticmethod
    def _write_file(
        path: str, parts: Sequence[bytes | memoryview], spans: Sequence[tuple[int, int]], recycled: int | None
    ) -> None:
        # write() instead of a writable map: the kernel fills fresh pages without zeroing them first or faulting each
        # one, and a full file system is an error here, where a map would end in SIGBUS.
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        fd = recycled if recycled is not None else os.open(path, flags, 0o600)
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

    def free_bytes(self) -> int:
        """Return how much the shared-memory directory, or else the disk, has room for."""
        status = os.statvfs(self.shm_dir or self.disk_dir)
        return status.f_bavail * status.f_frsize

    # ---- recycling -----------------------------------------------------------------------------------------------------

    @property
    def _free_dir(self) -> str:
        return os.path.join(self.shm_dir, "free")

    def _recycled(self, path: str, total: int) -> int | None:
        """Claim a deleted file of about `total` bytes under the new path; return its descriptor, None if there is none."""
        if total < _RECYCLE_MIN:
            return None
        try:
            names = os.listdir(self._free_dir)
        except OSError:
            return None
        for name in names:
            size = int(name.partition("-")[0])
            if not total <= size <= total + total // 2:
                continue
            try:
                os.rename(os.path.join(self._free_dir, name), path)
            except OSError:  # another process was faster
                continue
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                return fd
            except OSError:  # somebody still reads the old data
                os.close(fd)
                os.unlink(path)
        return None

    def _keep_for_recycling(self, segment: Segment) -> bool:
        size = segment.nbytes
        if size < _RECYCLE_MIN or not hasattr(fcntl, "F_SETLEASE") or not segment.path.startswith(self.shm_dir or "\0"):
            return False
        free_dir = self._free_dir
        try:
            os.makedirs(free_dir, mode=0o700, exist_ok=True)
            if _directory_bytes(free_dir) + size > _RECYCLE_MAX:
                return False
            target = os.path.join(free_dir, f"{size}-{os.path.basename(segment.path)}")
            os.rename(segment.path, target)
            os.utime(target)
            return True
        except OSError:
            return False

    def trim(self, age_s: float = _RECYCLE_AGE_S) -> bool:
        """Remove files kept for reuse longer than `age_s` seconds; True if some are left."""
        left = False
        try:
            entries = list(os.scandir(self._free_dir))
        except OSError:
            return False
        limit = time.time() - age_s
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat().st_mtime <= limit:
                    os.unlink(entry.path)
                else:
                    left = True
        return left

    # ---- reading -------------------------------------------------------------------------------------------------------

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
            fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            name = os.path.basename(segment.path)
            raise ObjectLostError(name, "Its segment in the object store has been deleted.") from None
        try:
            view = memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED))
        finally:
            os.close(fd)
        return [view[offset : offset + length] for offset, length in segment.spans]

    def delete(self, segment: Segment) -> None:
        """Delete a segment's file; who has mapped it keeps the data."""
        if not self._keep_for_recycling(segment):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(segment.path)


def _directory_bytes(path: str) -> int:
    used = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file():
                    used += entry.stat().st_size
    except OSError:  # a file vanished while we counted: the next write counts again
        pass
    return used

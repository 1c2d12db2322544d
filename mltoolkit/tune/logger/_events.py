"""TensorBoard's event files: records of protocol buffers, of which a logger needs few enough to write them itself.

The libraries for it import torch or TensorFlow where those are installed, which takes seconds and hundreds of
megabytes in a driver that needs neither, and have a thread for each file.

Field numbers are those of TensorBoard's ``event.proto``, ``summary.proto`` and ``plugins/hparams/*.proto``.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from mltoolkit.tune.logger._crc32c import crc32c, masked

__all__ = ["histogram", "hparams_events", "scalars_event", "summary_event", "version_event"]

_BYTES, _DOUBLE, _FLOAT, _VARINT = 2, 1, 5, 0
_FLOATS = struct.Struct("<f")
_DOUBLES = struct.Struct("<d")
_LARGEST = 3.4028234663852886e38


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return bytes([number << 3 | _BYTES]) + _varint(len(data)) + data


def _double(number: int, value: float) -> bytes:
    return bytes([number << 3 | _DOUBLE]) + _DOUBLES.pack(value)


def _integer(number: int, value: int) -> bytes:
    return bytes([number << 3 | _VARINT]) + _varint(value)


def _record(parts: list[tuple[bytes, bool]]) -> bytes:
    """A record: length, checksum of the length, data, checksum of the data."""
    data = b"".join([part for part, _ in parts])
    length = struct.pack("<Q", len(data))
    length_crc = struct.pack("<I", masked(crc32c([(length, True)])))
    return b"".join((length, length_crc, data, struct.pack("<I", masked(crc32c(parts)))))


def version_event(wall_time: float) -> bytes:
    """The first record of a file."""
    return _record([(_double(1, wall_time) + _field(3, "brain.Event:2"), False)])


@functools.lru_cache(maxsize=4096)
def _scalar_head(tag: str) -> bytes:
    """All of a scalar but its four bytes of value, which follow."""
    body = _field(1, tag) + bytes([2 << 3 | _FLOAT])
    return bytes([1 << 3 | _BYTES]) + _varint(len(body) + _FLOATS.size) + body


def scalars_event(wall_time: float, step: int, scalars: Mapping[str, float], values: Iterable[bytes] = ()) -> bytes:
    """The record of one step.

    Parameters
    ----------
    wall_time : float
        Seconds since the epoch.
    step : int
    scalars : dict of str to float
        Values by tag; as in the file, of single precision.
    values : iterable of bytes
        Other values, such as :func:`histogram` makes.
    """
    parts: list[tuple[bytes, bool]] = []
    for tag, value in scalars.items():
        parts.append((_scalar_head(tag), True))
        parts.append((_FLOATS.pack(_single(value)), False))
    parts += [(_field(1, value), False) for value in values]
    length = sum([len(part) for part, _ in parts])
    head = _double(1, wall_time) + _integer(2, step) + bytes([5 << 3 | _BYTES]) + _varint(length)
    return _record([(head, False), *parts])


def summary_event(wall_time: float, values: Iterable[bytes], *, recurs: bool = False) -> bytes:
    """The record of values that belong to no step; ``recurs`` if the same ones come with other files again."""
    summary = b"".join(_field(1, value) for value in values)
    return _record([(_double(1, wall_time), False), (_field(5, summary), recurs)])


def _single(value: float) -> float:
    if -_LARGEST <= value <= _LARGEST:
        return value
    return float("inf") if value > 0 else float("-inf")


def histogram(tag: str, values: Any, bins: int = 64) -> bytes:
    """A value with the distribution of numbers.

    Parameters
    ----------
    tag : str
    values : ndarray of float
        Finite numbers, one at least.
    bins : int
    """
    import numpy as np

    counts, edges = np.histogram(values, bins=bins)
    sums = (values.min(), values.max(), values.size, values.sum(), np.square(values).sum())
    body = b"".join(_double(number, float(value)) for number, value in enumerate(sums, start=1))
    body += _field(6, edges[1:].astype("<f8").tobytes()) + _field(7, counts.astype("<f8").tobytes())
    return _field(1, tag) + _field(5, body)


def hparams_events(wall_time: float, params: Mapping[str, Any], metrics: Iterable[str], *, failed: bool) -> list[bytes]:
    """The records of TensorBoard's table of hyperparameters: what there is, what this run has, and that it ended.

    Parameters
    ----------
    wall_time : float
    params : dict of str to (str, bool, int or float)
    metrics : iterable of str
        Tags of the scalars to show beside them.
    failed : bool
        How it ended.
    """
    infos, values = b"", b""
    for name, value in params.items():
        kind, encoded = _hparam(value)
        infos += _field(4, _field(1, name) + _integer(4, kind))
        values += _field(1, _field(1, name) + _field(2, encoded))
    shown = b"".join(_field(5, _field(1, _field(2, tag))) for tag in metrics)
    status = 2 if failed else 1
    return [
        # What there is, and how it ended, is the same for all trials of a sweep.
        summary_event(wall_time, [_plugin_value("experiment", 2, infos + shown)], recurs=True),
        summary_event(wall_time, [_plugin_value("session_start_info", 3, values)]),
        summary_event(wall_time, [_plugin_value("session_end_info", 4, _integer(1, status))], recurs=True),
    ]


def _hparam(value: Any) -> tuple[int, bytes]:
    """Type and value of a hyperparameter: ``DataType`` of ``api.proto`` and ``google.protobuf.Value``."""
    if isinstance(value, bool):
        return 2, _integer(4, value)
    if isinstance(value, (int, float)):
        return 3, _double(2, float(value))
    return 1, _field(3, str(value))


def _plugin_value(name: str, number: int, data: bytes) -> bytes:
    plugin = _field(1, "hparams") + _field(2, _field(number, data))
    return _field(1, f"_hparams_/{name}") + _field(9, _field(1, plugin))

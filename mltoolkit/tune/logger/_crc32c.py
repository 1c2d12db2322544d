"""CRC-32C, the checksum of TensorBoard's event files, fast for messages of which most is the same each time."""

from __future__ import annotations

import functools

__all__ = ["crc32c", "masked"]

_POLYNOMIAL = 0x82F63B78  # of Castagnoli, reflected
_ALL = 0xFFFFFFFF


@functools.cache
def _byte_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


def _feed(state: int, data: bytes) -> int:
    table = _byte_table()
    for byte in data:
        state = table[(state ^ byte) & 0xFF] ^ state >> 8
    return state


@functools.cache
def _skip_tables(length: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """What ``length`` bytes of zero make of a state, by the four bytes of the state.

    A step of the checksum is linear over bits: the state after known bytes is the state after as many zeros,
    xor what those bytes give from state 0.
    """
    zeros = bytes(length)
    bits = [_feed(1 << bit, zeros) for bit in range(32)]
    tables: list[list[int]] = []
    for first in range(0, 32, 8):
        table = [0] * 256
        for value in range(1, 256):
            lowest = value & -value
            table[value] = table[value ^ lowest] ^ bits[first + lowest.bit_length() - 1]
        tables.append(table)
    return tables[0], tables[1], tables[2], tables[3]


@functools.lru_cache(maxsize=4096)
def _known(data: bytes) -> int:
    return _feed(0, data)


def crc32c(parts: list[tuple[bytes, bool]]) -> int:
    """The checksum of parts in a row.

    Parameters
    ----------
    parts : list of (bytes, bool)
        Bytes, and whether the same ones come again and again: of those the checksum is remembered.

    Returns
    -------
    int

    Examples
    --------
    >>> hex(crc32c([(b"123456789", False)])), hex(crc32c([(b"1234", True), (b"56789", False)]))
    ('0xe3069283', '0xe3069283')
    """
    state = _ALL
    table = _byte_table()
    for data, is_known in parts:
        if is_known:
            low, second, third, high = _skip_tables(len(data))
            state = (
                low[state & 0xFF]
                ^ second[state >> 8 & 0xFF]
                ^ third[state >> 16 & 0xFF]
                ^ high[state >> 24]
                ^ _known(data)
            )
        else:
            for byte in data:
                state = table[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ _ALL


def masked(checksum: int) -> int:
    """A checksum as it is stored, so that checksums of data with checksums in it stay meaningful."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & _ALL

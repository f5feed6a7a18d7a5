"""LiteFS's checksum of a whole database, computed from the file alone. Pure Python, about 100 MB a second.

The checksum is the XOR of one CRC-64 (Go's crc64.ISO) per page, taken over the page's number (4 bytes, big endian) and
its bytes, each with the highest bit set; the page that holds SQLite's lock byte does not count. It is what LiteFS shows
in /debug/vars, so a file proves by itself which position it is a copy of.
"""

from __future__ import annotations

import struct
from pathlib import Path

FLAG = 1 << 63
PENDING_BYTE = 0x40000000  # SQLite's lock byte

# x^64 = x^4 + x^3 + x + 1 modulo the ISO polynomial, and squaring is linear over GF(2), so for every k
# x^(64*2^k) = x^(4*2^k) + x^(3*2^k) + x^(2^k) + 1: a long message is folded in half again and again by shifts of big
# integers, which Python does at the speed of the machine.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ONES = (1 << 64) - 1


def crc64(data: bytes) -> int:
    """CRC-64/GO-ISO: what Go's crc64.Checksum(data, crc64.MakeTable(crc64.ISO)) returns."""
    number = int.from_bytes(data.translate(_REVERSED), "big")
    # The register starts as all ones, which is the same as inverting the first 64 bits; then 64 zero bits follow.
    number = (number << 64) ^ (_ONES << (8 * len(data)))
    k = max((8 * len(data)).bit_length() - 6, 0)
    while k >= 0:
        width = 64 << k
        while number >> width:
            high, low = number >> width, number & ((1 << width) - 1)
            number = low ^ high ^ (high << (1 << k)) ^ (high << (3 << k)) ^ (high << (4 << k))
        k -= 1
    return int(f"{number:064b}"[::-1], 2) ^ _ONES


def page(number: int, data: bytes) -> int:
    """The checksum of one page; pages are numbered from 1."""
    return FLAG | crc64(struct.pack(">I", number) + data)


def both(path: Path, page_size: int) -> tuple[str, str]:
    """LiteFS's checksum of the SQLite file as it is, and what it becomes by an import; 16 hex digits each.

    An import zeroes the change counter and the schema cookie in the first page, so that open connections read again.
    The file's size must be whole pages.
    """
    total = first = imported = 0
    lock_page = PENDING_BYTE // page_size + 1
    number = 0
    with path.open("rb") as file:
        while data := file.read(page_size):
            number += 1
            if len(data) != page_size:
                raise ValueError(f"{path} ends in the middle of page {number}: it is not whole.")
            if number == 1:
                first = page(1, data)
                imported = page(1, data[:24] + bytes(4) + data[28:40] + bytes(4) + data[44:])
            elif number != lock_page:
                total ^= page(number, data)
    return f"{FLAG | total ^ first:016x}", f"{FLAG | total ^ imported:016x}"

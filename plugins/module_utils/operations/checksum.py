"""LiteFS's checksum of a whole database, computed from the file alone. Pure Python, about 100 MB a second.

The checksum is the XOR of one CRC-64 (Go's crc64.ISO) per page, taken over the page's number (4 bytes, big endian) and
its bytes, each with the highest bit set; the page that holds SQLite's lock byte does not count. It is what LiteFS shows
in /debug/vars, so a file proves by itself which position it is a copy of.
"""

from __future__ import annotations

import struct
from pathlib import Path

from ..archive.crc import crc64
from ..telling import Reading

FLAG = 1 << 63
PENDING_BYTE = 0x40000000  # SQLite's lock byte


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
        reading = Reading(file, f"LiteFS's checksum of {path.name}", path.stat().st_size)
        while data := reading.read(page_size):
            number += 1
            if len(data) != page_size:
                raise ValueError(f"{path} ends in the middle of page {number}: it is not whole.")
            if number == 1:
                first = page(1, data)
                imported = page(1, data[:24] + bytes(4) + data[28:40] + bytes(4) + data[44:])
            elif number != lock_page:
                total ^= page(number, data)
    return f"{FLAG | total ^ first:016x}", f"{FLAG | total ^ imported:016x}"

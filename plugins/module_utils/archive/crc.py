"""CRC-64 as Go's crc64.ISO has it. Pure; fastcrc where it can be imported, else about 100 MB a second."""

from __future__ import annotations

import functools

try:
    from fastcrc.crc64 import go_iso as _fast
except ImportError:
    _fast = None

# x^64 = x^4 + x^3 + x + 1 modulo the ISO polynomial, and squaring is linear over GF(2), so for every k
# x^(64*2^k) = x^(4*2^k) + x^(3*2^k) + x^(2^k) + 1: a long message is folded in half again and again by shifts of big
# integers, which Python does at the speed of the machine.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ONES = (1 << 64) - 1


def crc64(data: bytes) -> int:
    """What Go's crc64.Checksum(data, crc64.MakeTable(crc64.ISO)) returns."""
    if _fast is not None:
        return int(_fast(data))
    number = int.from_bytes(data.translate(_REVERSED), "big")
    # The register starts as all ones, which is the same as inverting the first 64 bits; then 64 zero bits follow.
    return _turned(_folded((number << 64) ^ (_ONES << (8 * len(data))), len(data))) ^ _ONES


def joined(first: int, second: int, size: int) -> int:
    """The CRC of two messages one after the other, from the CRC of each and the size of the second in bytes."""
    a, b, c, d, e, f, g, h = _shift(size)
    return (
        second
        ^ a[first & 255]
        ^ b[first >> 8 & 255]
        ^ c[first >> 16 & 255]
        ^ d[first >> 24 & 255]
        ^ e[first >> 32 & 255]
        ^ f[first >> 40 & 255]
        ^ g[first >> 48 & 255]
        ^ h[first >> 56]
    )


def _folded(number: int, size: int) -> int:
    """A message of so many bytes and the register after it, modulo the polynomial."""
    k = max((8 * size).bit_length() - 6, 0)
    while k >= 0:
        width = 64 << k
        while number >> width:
            high, low = number >> width, number & ((1 << width) - 1)
            number = low ^ high ^ (high << (1 << k)) ^ (high << (3 << k)) ^ (high << (4 << k))
        k -= 1
    return number


def _turned(number: int) -> int:
    """64 bits in the other order."""
    return int.from_bytes(number.to_bytes(8, "big").translate(_REVERSED), "little")


@functools.lru_cache(maxsize=16)
def _shift(size: int) -> tuple[tuple[int, ...], ...]:
    """What so many zero bytes make of each byte of a CRC: linear, so a table for each of the eight."""
    bits = [_turned(_folded(_turned(1 << bit) << (8 * size), size)) for bit in range(64)]
    tables = []
    for place in range(8):
        table = [0]
        for bit in bits[8 * place : 8 * place + 8]:
            table += [known ^ bit for known in table]
        tables.append(tuple(table))
    return tuple(tables)

"""LTX, LiteFS's file of one transaction (version 1): read as a stream, verified, applied to a copy. I/O."""

from __future__ import annotations

import os
import struct
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .crc import crc64, joined

FLAG = 1 << 63  # set in every checksum
PENDING_BYTE = 0x40000000  # SQLite's lock byte: its page has no checksum
SPOOLED = 1 << 20  # bytes of a transaction that are held in memory until it is verified
_HEADER = struct.Struct(">4sIIIQQQQqqIIQ20x")
_NUMBER = struct.Struct(">I")
_TRAILER = struct.Struct(">QQ")
_LZ4 = b"\x04\x22\x4d\x18"  # how a frame begins


class Source(Protocol):
    """What a file is read from; read() gives all that was asked for unless the file ends."""

    def read(self, size: int) -> bytes:
        """So many bytes."""


class Altered(Exception):
    """A file is cut or altered, or does not follow; one sentence that names it."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name} {what}.")
        self.name = name


class Compressed(Exception):
    """The pages are LZ4: kept as they came, not verified."""


@dataclass(frozen=True)
class Position:
    """Where a database stands. ``str()`` writes it as LiteFS does."""

    txid: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.txid:016x}/{self.checksum:016x}"


@dataclass(frozen=True)
class Header:
    """The first 100 bytes. A snapshot has min_txid 1."""

    flags: int
    page_size: int
    commit: int  # pages of the database afterwards
    min_txid: int
    max_txid: int
    time: float  # seconds since 1970, by the primary's clock
    before: int  # checksum of the database before; 0 for a snapshot


@dataclass(frozen=True)
class File:
    """What one whole LTX file says."""

    header: Header
    after: int  # checksum of the database afterwards
    pages: int  # in the file; 0 where compressed
    size: int
    verified: bool  # False where compressed

    @property
    def position(self) -> Position:
        """Where the database stands afterwards."""
        return Position(self.header.max_txid, self.after)


def header(data: bytes, name: str) -> Header:
    """What the first 100 bytes say."""
    if len(data) < _HEADER.size:
        raise Altered(name, f"is cut: it ends within the header of a transaction ({len(data)} of 100 bytes)")
    magic, flags, page_size, commit, first, last, ms, before = _HEADER.unpack(data)[:8]
    if magic != b"LTX1":
        raise Altered(name, f"is no LTX file of version 1: it begins with {magic!r}")
    sound = (
        flags & ~1 == 0
        and 512 <= page_size <= 65536
        and page_size & (page_size - 1) == 0
        and 0 < first <= last
        and (before == 0) == (first == 1)
    )
    if not sound:
        raise Altered(name, "is altered: its header says what no LTX file has")
    return Header(flags, page_size, commit, first, last, ms / 1000, before)


def lock_page(page_size: int) -> int:
    """The number of the page that has SQLite's lock byte."""
    return PENDING_BYTE // page_size + 1


def page_checksum(number: int, data: bytes) -> int:
    """What one page adds to the database's checksum."""
    return FLAG | crc64(_NUMBER.pack(number) + data)


class Reader:
    """One LTX file of a stream: ``header`` at once, then pages() or skip(), then ``after``. Constant memory."""

    def __init__(self, stream: Source, name: str) -> None:
        self._stream, self._name = stream, name
        head = stream.read(_HEADER.size)
        self.header = header(head, name)
        self._crc = crc64(head)
        self.after = 0  # checksum of the database afterwards, once it is read
        self.count = 0  # pages read
        self.size = 0  # bytes of the file, once it is read
        self._own = 0  # checksum of the file, as it states it
        self._total = 0  # of the pages read, for a snapshot

    def pages(self) -> Iterator[tuple[int, bytes, int]]:
        """Number, content and checksum of each page; Altered where the file is cut or its own checksum differs."""
        header = self.header
        for number, data in self._walk():
            block = number + data
            crc = crc64(block)
            self._crc = joined(self._crc, crc, len(block))
            self._total ^= crc
            yield _NUMBER.unpack(number)[0], data, FLAG | crc
        end = struct.pack(">IQ", 0, self.after)
        if FLAG | joined(self._crc, crc64(end), len(end)) != self._own:
            raise Altered(self._name, "is altered: the checksum of the file differs from its content")
        missing = header.commit - self.count - (header.commit >= lock_page(header.page_size))
        if header.min_txid == 1 and (missing or FLAG | self._total != self.after):
            raise Altered(self._name, "is altered: the checksum of the database differs from the pages of the snapshot")

    def skip(self) -> None:
        """Go to the end without verifying."""
        for _page in self._walk():
            pass

    def _walk(self) -> Iterator[tuple[bytes, bytes]]:
        if self.header.flags & 1:
            raise Compressed(f"{self._name} is compressed (LZ4): LiteFS has to run with data.compress: false.")
        size, previous, lock = self.header.page_size, 0, lock_page(self.header.page_size)
        while (number := self._exactly(_NUMBER.size)) != b"\0\0\0\0":
            found = _NUMBER.unpack(number)[0]
            if not previous < found <= self.header.commit or found == lock:
                raise Altered(self._name, f"is altered: it has page {found} after page {previous}")
            yield number, self._exactly(size)
            previous = found
            self.count += 1
        self.after, self._own = _TRAILER.unpack(self._exactly(_TRAILER.size))
        self.size = _HEADER.size + self.count * (_NUMBER.size + size) + _NUMBER.size + _TRAILER.size

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) != size:
            raise Altered(self._name, f"is cut: it ends after {self.count} pages of transaction {self.header.max_txid}")
        return data


def read_header(path: Path, name: str = "") -> Header:
    """The header alone, not verified."""
    with path.open("rb") as stream:
        return header(stream.read(_HEADER.size), name or path.name)


def read_after(path: Path, name: str = "") -> int:
    """The checksum of the database afterwards, as the trailer states it; not verified."""
    read_header(path, name)
    with path.open("rb") as stream:
        stream.seek(-_TRAILER.size, os.SEEK_END)
        return int(_TRAILER.unpack(stream.read(_TRAILER.size))[0])


def inspect(path: Path, name: str = "") -> File:
    """Verify one file wholly (but for a compressed one); Altered names it."""
    size, name = path.stat().st_size, name or path.name
    with path.open("rb") as stream:
        reader = Reader(stream, name)
        if reader.header.flags & 1:
            if size < _HEADER.size + len(_LZ4) + _TRAILER.size or stream.read(len(_LZ4)) != _LZ4:
                raise Altered(name, "is cut or altered: its header says that it is compressed (LZ4), and it is not")
            stream.seek(-_TRAILER.size, os.SEEK_END)
            after = _TRAILER.unpack(stream.read(_TRAILER.size))[0]
            return File(reader.header, after, 0, size, False)
        for _page in reader.pages():
            pass
        if stream.read(1):
            raise Altered(name, f"is altered: it goes on after its end at byte {reader.size}")
        return File(reader.header, reader.after, reader.count, size, True)


class Copy:
    """A database file with the checksums of its pages (8 bytes a page in memory)."""

    def __init__(self, path: Path, txid: int = 0) -> None:
        """What the file holds; none or an empty one is a database without pages."""
        self.path, self.txid, self.page_size = path, txid, 0
        self._sums = array("Q")
        self._total = 0
        path.touch()
        self._file = path.open("r+b")
        head = self._file.read(18)
        if head:
            self.page_size = {1: 65536}.get(found := int.from_bytes(head[16:18], "big"), found)
            self._read_sums()

    def _read_sums(self) -> None:
        if self.page_size < 512:
            raise Altered(self.path.name, "is no SQLite database")
        self._file.seek(0)
        lock = lock_page(self.page_size)
        while data := self._file.read(self.page_size):
            if len(data) != self.page_size:
                raise Altered(self.path.name, f"is cut: it ends within page {len(self._sums) + 1}")
            number = len(self._sums) + 1
            self._sums.append(0 if number == lock else page_checksum(number, data))
            self._total ^= self._sums[-1]

    @property
    def position(self) -> Position:
        """Where it stands; the checksum of no pages is bit 63 alone, as LiteFS has it."""
        return Position(self.txid, FLAG | self._total)

    @property
    def commit(self) -> int:
        """Pages."""
        return len(self._sums)

    def close(self) -> None:
        """Close the file; what was applied is in it."""
        self._file.close()

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def apply(self, stream: Source, name: str) -> Position:
        """One LTX file of the stream; Altered where it does not fit, and then the copy is as before."""
        return self.follow(Reader(stream, name), name)

    def follow(self, reader: Reader, name: str) -> Position:
        """The same, where the header was read already."""
        header = reader.header
        if header.min_txid == 1:
            self._replace(reader)
        else:
            at = self.position
            if header.min_txid != at.txid + 1 or header.before != at.checksum:
                follows = f"{header.min_txid - 1:016x}/{header.before:016x}"
                raise Altered(name, f"does not follow: it is for {follows}, and the database before it is at {at}")
            if self._sums and header.page_size != self.page_size:
                raise Altered(name, f"has pages of {header.page_size} bytes, and the database {self.page_size}")
            self._change(reader, name)
        self.txid, self.page_size = header.max_txid, header.page_size
        return self.position

    def _replace(self, reader: Reader) -> None:
        """A snapshot: beside the old file until it is verified."""
        fresh = self.path.with_name(self.path.name + ".new")
        header = reader.header
        sums, total = array("Q", bytes(8 * header.commit)), 0
        try:
            with fresh.open("wb") as file:
                for number, data, checksum in reader.pages():
                    file.seek((number - 1) * header.page_size)
                    file.write(data)
                    sums[number - 1] = checksum
                    total ^= checksum
                file.truncate(header.commit * header.page_size)
            fresh.replace(self.path)
        finally:
            fresh.unlink(missing_ok=True)
        self._file.close()
        self._file = self.path.open("r+b")
        self._sums, self._total = sums, total

    def _change(self, reader: Reader, name: str) -> None:
        """Other transactions: the pages are set aside until all of them are verified."""
        header, known = reader.header, len(self._sums)
        numbers, sums, total = array("Q"), array("Q"), self._total
        with tempfile.SpooledTemporaryFile(SPOOLED, dir=str(self.path.parent)) as spool:
            for number, data, checksum in reader.pages():
                spool.write(data)
                numbers.append(number)
                sums.append(checksum)
                total ^= checksum ^ (self._sums[number - 1] if number <= known else 0)
            for number in range(header.commit, known):
                total ^= self._sums[number]
            if FLAG | total != reader.after:
                raise Altered(name, f"does not lead to the checksum that it states after transaction {header.max_txid}")
            spool.seek(0)
            for number in numbers:
                self._file.seek((number - 1) * header.page_size)
                self._file.write(spool.read(header.page_size))
        self._file.truncate(header.commit * header.page_size)
        self._file.flush()
        del self._sums[header.commit :]
        self._sums.extend([0] * (header.commit - len(self._sums)))
        for number, checksum in zip(numbers, sums):
            self._sums[number - 1] = checksum
        self._total = total

"""LTX, LiteFS's file of one transaction (version 1): read as a stream, verified, applied to a copy. I/O on what is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


class Altered(Exception):
    """A file is cut or altered, or does not follow; one sentence that names it."""


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
        return Position(self.header.max_txid, self.after)


def inspect(path: Path) -> File:
    """Verify one file wholly (but for a compressed one); Altered names it."""
    raise NotImplementedError


class Reader:
    """One LTX file of a stream: ``header`` at once, then pages(), then ``after``. Constant memory."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        raise NotImplementedError

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Number and content of each page; Altered where the file is cut or its checksum differs."""
        raise NotImplementedError


class Copy:
    """A database file with the checksums of its pages (8 bytes a page in memory)."""

    def __init__(self, path: Path, txid: int = 0) -> None:
        """What the file holds; none or an empty one is a database without pages."""
        raise NotImplementedError

    @property
    def position(self) -> Position:
        raise NotImplementedError

    def apply(self, stream: BinaryIO, name: str) -> Position:
        """One LTX file of the stream; Altered where it does not fit, and then the copy is as before."""
        raise NotImplementedError

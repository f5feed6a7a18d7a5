"""Packs (LTX files one after the other, compressed) and bases (a copy of the database, compressed). I/O.

Both count once their description is beside them, which is written last: a file without one is what a killed process
left, and a description without its file is a loss.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from . import disk, layout, ltx

BROKEN = (zlib.error, EOFError, gzip.BadGzipFile)
RAW = 0  # the level of a file that is in no pack
STAYS = 1 << 32  # and of one that goes into none, because it is compressed
_Note = TypeVar("_Note", "Pack", "BaseNote")


@dataclass(frozen=True)
class Pack:
    """The description of a pack; of a raw file the same is read from it."""

    first: int
    last: int
    count: int
    first_time: float  # the earliest and the latest of its transactions
    last_time: float
    before: str  # checksum of the database before and after, 16 hex digits
    after: str
    level: int  # seconds that it spans
    size: int  # of the LTX files
    sha256: str  # of the pack


@dataclass(frozen=True)
class BaseNote:
    """The description of a base."""

    txid: int
    time: float  # of the transaction
    checksum: str
    page_size: int
    pages: int
    sha256: str


def _read(path: Path, kind: type[_Note]) -> _Note:
    note = layout.note_of(path)
    try:
        return kind(**disk.read_note(note))  # type: ignore[arg-type]
    except disk.BadNote as exc:
        if not path.exists():
            raise FileNotFoundError(path) from None  # packed or pruned meanwhile
        raise ltx.Altered(layout.label(note), str(exc)) from None
    except TypeError:
        raise ltx.Altered(layout.label(note), "is of another version") from None


def describe(piece: layout.Piece) -> Pack:
    """What a pack's description says, or a raw file's header (which is not verified by this)."""
    if piece.packed:
        note = _read(piece.path, Pack)
        if (note.first, note.last) != (piece.first, piece.last):
            raise ltx.Altered(piece.name, "has the description of another pack")
        return note
    header = ltx.read_header(piece.path, piece.name)
    if (header.min_txid, header.max_txid) != (piece.first, piece.last):
        raise ltx.Altered(piece.name, "is altered: its header has other TXIDs than its name")
    before, level = f"{header.before:016x}", STAYS if header.flags & 1 else RAW
    return Pack(piece.first, piece.last, 1, header.time, header.time, before, "", level, 0, "")


def base_note(base: layout.Base) -> BaseNote:
    """The description of a base."""
    note = _read(base.path, BaseNote)
    if note.txid != base.txid:
        raise ltx.Altered(base.name, "has the description of another base")
    return note


class Content:
    """What is in a gzip file, read once; Altered where it is broken. finish() compares ``sha256``, if any is given."""

    def __init__(self, path: Path, sha256: str) -> None:
        self._name, self._sha256 = layout.label(path), sha256
        self._source = disk.Hashed(path)
        self._stream = gzip.GzipFile(fileobj=self._source, mode="rb")  # type: ignore[call-overload]

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._source.close()

    def read(self, size: int = disk.BLOCK) -> bytes:
        """As of a file."""
        try:
            return bytes(self._stream.read(size))
        except BROKEN as exc:
            raise ltx.Altered(self._name, f"is cut or altered ({exc})") from None

    def more(self) -> bool:
        """Whether anything is left."""
        try:
            return bool(self._stream.peek(1))
        except BROKEN as exc:
            raise ltx.Altered(self._name, f"is cut or altered ({exc})") from None

    def blocks(self) -> Iterator[bytes]:
        """All of it, compared at the end."""
        while block := self.read():
            yield block
        self.finish()

    def finish(self) -> None:
        """Once all was read."""
        if self._sha256 and self._source.finish() != self._sha256:
            raise ltx.Altered(self._name, "is altered: its SHA-256 differs from its description")


def streams(piece: layout.Piece) -> Iterator[ltx.Source]:
    """The piece once for each of its LTX files, each to be read to its end; then what remains is compared.

    Whoever stops before the last has what was read verified by the checksums of the LTX files alone.
    """
    if not piece.packed:
        with piece.path.open("rb") as file:
            yield file
            if file.read(1):
                raise ltx.Altered(piece.name, "is altered: it goes on after its end")
        return
    try:
        sha256 = describe(piece).sha256
    except ltx.Altered:
        sha256 = ""  # told at the end: its transactions can be verified without it
    with Content(piece.path, sha256) as content:
        while content.more():
            yield content
        content.finish()
    if not sha256:
        describe(piece)


def transactions(piece: layout.Piece) -> Iterator[ltx.Reader]:
    """Each LTX file of a piece, read but not verified."""
    if not piece.packed and describe(piece).level == STAYS:
        with piece.path.open("rb") as file:
            reader = ltx.Reader(file, piece.name)
        reader.after, reader.size = ltx.read_after(piece.path, piece.name), piece.path.stat().st_size
        yield reader
        return
    at = piece.first
    for stream in streams(piece):
        reader = ltx.Reader(stream, piece.name)
        reader.skip()
        if reader.header.min_txid != at or reader.header.max_txid > piece.last:
            raise ltx.Altered(piece.name, f"is altered: it has transaction {reader.header.min_txid} in place of {at}")
        at = reader.header.max_txid + 1
        yield reader
    if at != piece.last + 1:
        raise ltx.Altered(piece.name, f"is cut: it ends before transaction {at}")


def verify(piece: layout.Piece) -> None:
    """Read all of it, every checksum compared; Altered names it, Compressed where its pages are."""
    at: ltx.Position | None = None
    for stream in streams(piece):
        reader = ltx.Reader(stream, piece.name)
        for _page in reader.pages():
            pass
        header = reader.header
        if at and (header.min_txid, header.before) != (at.txid + 1, at.checksum):
            raise ltx.Altered(piece.name, f"is altered: transaction {header.min_txid} does not follow")
        if not at and header.min_txid != piece.first:
            raise ltx.Altered(piece.name, f"is altered: it begins with transaction {header.min_txid}")
        at = ltx.Position(header.max_txid, reader.after)
    if not at or at.txid != piece.last:
        raise ltx.Altered(piece.name, f"is cut: it ends at transaction {at.txid if at else 0}")
    describe(piece)


def make(parts: Sequence[layout.Piece], level: int) -> layout.Piece:
    """Pack them, read it back, and only then remove them. Altered where a part is not as it came; then all stay."""
    first, last = parts[0].first, parts[-1].last
    target = parts[0].path.parent / (layout.raw_name(first, last) + ".gz")
    beside = disk.unfinished(target)
    with disk.dropped_on_error(beside):
        notes, size, sha256 = _written(parts, beside)
    note = Pack(
        first,
        last,
        sum(one.count for one in notes),
        min(one.first_time for one in notes),
        max(one.last_time for one in notes),
        notes[0].before,
        notes[-1].after,
        level,
        size,
        sha256,
    )
    disk.rename(beside, target)
    disk.write_note(layout.note_of(target), asdict(note))
    for part in parts:
        withdraw(part.path)
    return layout.Piece(first, last, target.parent, True)


def _written(parts: Sequence[layout.Piece], path: Path) -> tuple[list[Pack], int, str]:
    """Write the parts as one gzip file and read it back: what they are, their size, the file's SHA-256."""
    notes: list[Pack] = []
    content, size = hashlib.sha256(), 0
    with disk.zipped(path, 6) as stream:
        for part in parts:
            notes.append(_verified(part))
            if len(notes) > 1 and notes[-1].before != notes[-2].after:
                raise ltx.Altered(part.name, "does not follow: it is for another checksum than the file before it has")
            for block in _blocks(part, notes[-1]):
                stream.write(block)
                content.update(block)
                size += len(block)
    sha256 = disk.sha256(path)
    _read_back(path, sha256, content.hexdigest())
    return notes, size, sha256


def _verified(part: layout.Piece) -> Pack:
    if part.packed:
        return describe(part)  # its SHA-256 is compared while it is read
    found = ltx.inspect(part.path, part.name)
    header = found.header
    if not found.verified:
        raise ltx.Compressed(f"{part.name} is compressed (LZ4) and stays as it came.")
    if (header.min_txid, header.max_txid) != (part.first, part.last):
        raise ltx.Altered(part.name, "has other TXIDs than its name")
    before, after = f"{header.before:016x}", f"{found.after:016x}"
    return Pack(part.first, part.last, 1, header.time, header.time, before, after, RAW, found.size, "")


def _blocks(part: layout.Piece, note: Pack) -> Iterator[bytes]:
    if part.packed:
        with Content(part.path, note.sha256) as content:
            yield from content.blocks()
        return
    with part.path.open("rb") as file:
        while block := file.read(disk.BLOCK):
            yield block


def _read_back(path: Path, sha256: str, content: str) -> None:
    found = hashlib.sha256()
    with Content(path, sha256) as stream:
        for block in stream.blocks():
            found.update(block)
    if found.hexdigest() != content:
        raise ltx.Altered(layout.label(path), "reads back differently from what was written")


def withdraw(path: Path) -> None:
    """Remove a raw file, or a pack or base, which first loses its name, so that it cannot be taken for a loss."""
    if path.suffix == ".gz":
        disk.rename(path, disk.unfinished(path))
        disk.remove(layout.note_of(path))
        path = disk.unfinished(path)
    disk.remove(path)


def make_base(database: Path, folder: Path, position: ltx.Position, time: float, page_size: int) -> layout.Base:
    """Put a verified copy of the database beside the chain; read back before it counts."""
    target = folder / f"base-{position.txid:016x}.gz"
    beside = disk.unfinished(target)
    content = hashlib.sha256()
    with disk.dropped_on_error(beside):
        with disk.zipped(beside, 4) as stream, database.open("rb") as file:
            while block := file.read(disk.BLOCK):
                content.update(block)
                stream.write(block)
        sha256 = disk.sha256(beside)
        _read_back(beside, sha256, content.hexdigest())
    pages = database.stat().st_size // page_size if page_size else 0
    note = BaseNote(position.txid, time, f"{position.checksum:016x}", page_size, pages, sha256)
    disk.rename(beside, target)
    disk.write_note(layout.note_of(target), asdict(note))
    return layout.Base(position.txid, target)


def open_base(base: layout.Base, path: Path) -> ltx.Copy:
    """Write a base to a file, its checksum compared."""
    note = base_note(base)
    with Content(base.path, note.sha256) as content, path.open("wb") as file:
        for block in content.blocks():
            file.write(block)
    copy = ltx.Copy(path, base.txid)
    if copy.position.checksum != int(note.checksum, 16):
        copy.close()
        raise ltx.Altered(base.name, "is altered: its pages have another checksum than its description")
    return copy


def check_base(base: layout.Base) -> None:
    """Read all of it, every checksum compared; Altered names it."""
    note, total, number = base_note(base), 0, 0
    lock = ltx.lock_page(note.page_size) if note.page_size else 0
    with Content(base.path, note.sha256) as content:
        while note.page_size and (data := content.read(note.page_size)):
            number += 1
            total ^= 0 if number == lock else ltx.page_checksum(number, data)
        content.finish()
    if ltx.FLAG | total != int(note.checksum, 16):
        raise ltx.Altered(base.name, "is altered: its pages have another checksum than its description")

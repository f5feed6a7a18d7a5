"""What follows a position, file by file, each proven before it is given away. I/O, reading only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from . import layout, ltx, packs, reading
from .ltx import Position

NOTHING = Position(0, 0)


@dataclass(frozen=True)
class Given:
    """One LTX file. ``content`` begins at its first byte, and is of no use once the next one is asked for."""

    header: ltx.Header
    after: int  # checksum of the database afterwards
    history: str
    content: BinaryIO

    @property
    def position(self) -> Position:
        """Where the database stands afterwards."""
        return Position(self.header.max_txid, self.after)


class _Tee:
    """A source whose bytes are kept as they are read."""

    def __init__(self, source: ltx.Source, kept: BinaryIO) -> None:
        self._source, self._kept = source, kept

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._kept.write(data)
        return data


def files(of: reading.Reading, database: str, at: Position) -> Iterator[Given]:
    """The LTX files after a position of the newest history; NOTHING is that of a database that is not there.

    Each was verified by its own checksum, and begins at the checksum at which the one before it ended. Refused where
    the position is in another history, or a transaction is missing; Altered or Compressed where a file cannot be
    proven.
    """
    history = next((name for name in reversed(of.histories()) if reading.last_txid(of.folder(name))), "")
    tries = 0
    while history:
        try:
            for one in _files(of.folder(history), database, at):
                at, tries = one.position, 0
                yield one
            return
        except FileNotFoundError:  # packed or pruned meanwhile
            tries += 1
            if tries == reading.TRIES:
                raise reading.Refused(f"The files of {database} change faster than they can be read.") from None


def _files(folder: layout.Folder, database: str, at: Position) -> Iterator[Given]:
    last = reading.tail(folder, True)[0]
    if at.txid == last.txid and at != last:
        raise _other(folder, database, at, last)
    for link in layout.chain(folder.pieces, at.txid):
        if isinstance(link, layout.Missing):
            raise reading.Lacking(
                f"Transactions {link.first:016x} to {link.last:016x} of {database} are not in history "
                f"{folder.history} of the archive."
            )
        for one in _proven(link, folder.history):
            header = one.header
            if header.max_txid <= at.txid:
                continue
            if at.txid and header.min_txid == 1:
                raise reading.Refused(
                    f"{database} at {at} is not in history {folder.history} of the archive, which begins with all of "
                    f"it at {one.position}."
                )
            if (header.min_txid, header.before) != (at.txid + 1, at.checksum):
                raise _other(folder, database, at, Position(header.min_txid - 1, header.before))
            at = one.position
            yield one


def _proven(piece: layout.Piece, history: str) -> Iterator[Given]:
    if piece.packed or packs.describe(piece).level != packs.STAYS:
        for stream in packs.streams(piece):
            with tempfile.SpooledTemporaryFile(ltx.SPOOLED) as kept:
                reader = ltx.Reader(_Tee(stream, kept), piece.name)  # type: ignore[arg-type]
                for _page in reader.pages():
                    pass
                kept.seek(0)
                yield Given(reader.header, reader.after, history, kept)  # type: ignore[arg-type]
        return
    raise ltx.Compressed(f"{piece.name} is compressed (LZ4), so the archive cannot prove it.")


def _other(folder: layout.Folder, database: str, at: Position, ours: Position) -> reading.Refused:
    return reading.Refused(
        f"{database} at {at} is of another history than {folder.history} of the archive, which has {ours} there."
    )

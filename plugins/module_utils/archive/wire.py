"""The stream with which a LiteFS primary feeds a replica (version 0.5): bytes in, events out. Pure.

A frame is a number of four bytes that says its kind, and its fields, all big endian. The file of an LTX frame comes in
chunks whose end is a chunk of length 0; it may be as large as the database, so its bytes are passed on as they arrive.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# LiteFS itself has no limit; without one, a stream that is none would be read into memory for ever.
LONGEST_NAME = 4096

_LTX, _READY, _END, _DROP, _HANDOFF, _HIGH_WATER, _HEARTBEAT = range(1, 8)


class WireError(ValueError):
    """What came is no stream of LiteFS."""


@dataclass(frozen=True)
class FileBegin:
    """An LTX file of this database begins."""

    database: str


@dataclass(frozen=True)
class FileData:
    """The next bytes of the file that began."""

    data: bytes


@dataclass(frozen=True)
class FileEnd:
    """The file is whole, as far as the stream tells; its own checksum has to prove it."""

    database: str


@dataclass(frozen=True)
class Ready:
    """All that the primary had at the start of the stream was sent."""


@dataclass(frozen=True)
class End:
    """The primary ends the stream."""


@dataclass(frozen=True)
class Drop:
    """The primary has no database of this name, whose position it was given."""

    database: str


@dataclass(frozen=True)
class Handoff:
    """The lease of the primary comes to this client. Under a static lease it never does."""

    lease: str


@dataclass(frozen=True)
class HighWater:
    """How far LiteFS's own backup is."""

    database: str
    txid: int


@dataclass(frozen=True)
class Heartbeat:
    """The primary is there; its clock in milliseconds."""

    time_ms: int


Event = FileBegin | FileData | FileEnd | Ready | End | Drop | Handoff | HighWater | Heartbeat


def positions(held: Mapping[str, tuple[int, int]]) -> bytes:
    """The body of the request: TXID and checksum of each database that the client has."""
    parts = [struct.pack(">I", len(held))]
    for name in sorted(held):
        encoded = name.encode()
        parts.append(struct.pack(">I", len(encoded)) + encoded + struct.pack(">QQ", *held[name]))
    return b"".join(parts)


class Parser:
    """Takes the stream in pieces of any size. Holds no more than one piece, or one field, at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._file = ""
        self._in_file = False
        self._chunk_left = 0

    @property
    def whole(self) -> bool:
        """Whether the stream may end here: no frame is half received."""
        return not self._buffer and not self._in_file

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete. Raises WireError; the parser is then of no use any more."""
        self._buffer += data
        while (event := self._in_chunks() if self._in_file else self._frame()) is not None:
            yield event

    def _in_chunks(self) -> Event | None:
        if not self._chunk_left:
            if len(self._buffer) < 2:
                return None
            (self._chunk_left,) = struct.unpack_from(">H", self._buffer)
            del self._buffer[:2]
            if not self._chunk_left:
                self._in_file = False
                return FileEnd(self._file)
        if not self._buffer:
            return None
        piece = bytes(self._buffer[: self._chunk_left])
        del self._buffer[: len(piece)]
        self._chunk_left -= len(piece)
        return FileData(piece)

    def _frame(self) -> Event | None:
        if len(self._buffer) < 4:
            return None
        (kind,) = struct.unpack_from(">I", self._buffer)
        if kind not in range(_LTX, _HEARTBEAT + 1):
            raise WireError(f"a frame of kind {kind}, which LiteFS 0.5 does not have")
        if kind in (_READY, _END):
            del self._buffer[:4]
            return Ready() if kind == _READY else End()
        if kind == _HEARTBEAT:
            return self._heartbeat()
        return self._named(kind)

    def _heartbeat(self) -> Event | None:
        if len(self._buffer) < 12:
            return None
        (time_ms,) = struct.unpack_from(">q", self._buffer, 4)
        del self._buffer[:12]
        return Heartbeat(time_ms)

    def _named(self, kind: int) -> Event | None:
        """Of a frame with a name, and before it a number where the kind has one."""
        at = 12 if kind in (_LTX, _HIGH_WATER) else 4
        if len(self._buffer) < at + 4:
            return None
        (length,) = struct.unpack_from(">I", self._buffer, at)
        if length > LONGEST_NAME:
            raise WireError(f"a name of {length} bytes, and none may have more than {LONGEST_NAME}")
        end = at + 4 + length
        if len(self._buffer) < end:
            return None
        try:
            name = self._buffer[at + 4 : end].decode()
        except UnicodeDecodeError as exc:
            raise WireError("a name that is no UTF-8") from exc
        if kind != _HANDOFF and (name in ("", ".", "..") or "/" in name or "\0" in name):
            raise WireError(f"the name {name!r}, which is no file's")
        (number,) = struct.unpack_from(">Q", self._buffer, 4) if at == 12 else (0,)
        del self._buffer[:end]
        if kind == _LTX:
            self._file, self._in_file = name, True
            return FileBegin(name)
        if kind == _HIGH_WATER:
            return HighWater(name, number)
        return Drop(name) if kind == _DROP else Handoff(name)


# What a primary says: the same frames, the other way round.

READY = struct.pack(">I", _READY)
FILE_END = struct.pack(">H", 0)
CHUNK = 0xFFFF


def held(body: bytes) -> dict[str, tuple[int, int]]:
    """What positions() made. WireError where it is cut or goes on."""
    found: dict[str, tuple[int, int]] = {}
    try:
        (count,) = struct.unpack_from(">I", body)
        at = 4
        for _ in range(count):
            (length,) = struct.unpack_from(">I", body, at)
            name = body[at + 4 : at + 4 + length].decode()
            txid, checksum = struct.unpack_from(">QQ", body, at + 4 + length)
            found[name] = (txid, checksum)
            at += 20 + length
    except (struct.error, UnicodeDecodeError) as exc:
        raise WireError("positions that are cut") from exc
    if at != len(body):
        raise WireError("positions that go on after their end")
    return found


def file_begin(database: str) -> bytes:
    """What comes before the chunks of an LTX file."""
    name = database.encode()
    return struct.pack(">IQI", _LTX, 0, len(name)) + name


def chunk(data: bytes) -> bytes:
    """At most CHUNK bytes of the file."""
    return struct.pack(">H", len(data)) + data


def heartbeat(time_ms: int) -> bytes:
    """The primary is there."""
    return struct.pack(">Iq", _HEARTBEAT, time_ms)

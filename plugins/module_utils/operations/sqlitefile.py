"""What a SQLite file on the controller is: its header, whether it is whole and sound, and LiteFS's checksum of it."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import struct
from pathlib import Path
from typing import TypedDict

from ..telling import Reading, tell
from . import checksum

MAGIC = b"SQLite format 3\x00"
_MODES = {(1, 1): "delete", (2, 2): "wal"}


class Header(TypedDict):
    """What a file's first 100 bytes and its length say."""

    page_size: int
    journal_mode: str  # "delete" stands for every rollback journal
    pages: int
    size: int  # bytes


class Schema(TypedDict):
    """What migrations go by."""

    tables_sha256: str  # of sqlite_master's statements
    user_version: int


class Facts(Header, Schema):
    """All that a sound file shows."""

    checksum: str  # LiteFS's
    imported_checksum: str  # LiteFS's after an import of this file
    sha256: str


class BadFile(Exception):
    """The file is not a whole, sound SQLite database; the message ends a sentence that begins with its name."""


def shape(head: bytes) -> tuple[int, str]:
    """Page size and journal mode (delete stands for every rollback journal), as a file's first 100 bytes say."""
    if head[:16] != MAGIC or len(head) < 100:
        raise BadFile(f"is no SQLite database (begins with {head[:60].decode(errors='replace').strip()!r})")
    page_size = struct.unpack(">H", head[16:18])[0]
    page_size = 65536 if page_size == 1 else page_size
    if page_size < 512 or page_size & (page_size - 1):
        raise BadFile(f"has the page size {page_size}, which SQLite does not know")
    mode = _MODES.get((head[18], head[19]))
    if mode is None:
        raise BadFile(f"has the format bytes {head[18]},{head[19]}, neither rollback journal (1,1) nor WAL (2,2)")
    return page_size, mode


def said_size(head: bytes) -> int | None:
    """How many bytes a database has, as its first 100 bytes say; None where they say nothing to rely on."""
    try:
        page_size, _mode = shape(head[:100])
    except BadFile:
        return None
    # As SQLite does it: the count holds where both change counters agree.
    counted: int = struct.unpack(">I", head[28:32])[0] if head[24:28] == head[92:96] else 0
    return page_size * counted or None


def header(path: Path) -> Header:
    """What the file says of itself; BadFile where its length does not fit."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(100)
    if size == 0:
        raise BadFile("is no SQLite database (0 bytes)")
    page_size, mode = shape(head)
    if size % page_size:
        raise BadFile(
            f"has {size} bytes, which is not a whole number of {page_size}-byte pages: the export broke off, or an "
            "error text stands at its end"
        )
    pages = size // page_size
    counted = struct.unpack(">I", head[28:32])[0]
    # SQLite trusts its own count only where both change counters agree; LiteFS resets one at an import.
    if head[24:28] == head[92:96] and counted and counted != pages:
        raise BadFile(f"says that it has {counted} pages of {page_size} bytes, but has {pages}")
    return {"page_size": page_size, "journal_mode": mode, "pages": pages, "size": size}


def verify(path: Path) -> Facts:
    """Check everything that the file itself can show; BadFile where something is wrong.

    Nothing is written beside the file.
    """
    for ending in ("-wal", "-journal"):
        left = path.with_name(path.name + ending)
        if left.exists() and left.stat().st_size:
            raise BadFile(
                f"has a file {left.name} beside it with transactions that are not in it: open it once with sqlite3 "
                "(PRAGMA wal_checkpoint(TRUNCATE)) and try again"
            )
    facts = header(path)
    problem = integrity(path)
    if problem:
        raise BadFile(f"fails its integrity check: {problem}")
    own, imported = checksum.both(path, facts["page_size"])
    return {**facts, "checksum": own, "imported_checksum": imported, "sha256": sha256(path), **schema(path)}


def settle(path: Path) -> None:
    """Let SQLite roll back or check point what stands beside a copied database, so that the one file is whole."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as exc:
            raise BadFile(f"cannot be opened: {exc}") from exc
    for ending in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        reading = Reading(file, f"SHA-256 of {path.name}", path.stat().st_size)
        while block := reading.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def integrity(path: Path) -> str | None:
    """What PRAGMA integrity_check finds, None for ok. The file is opened as one that nobody changes."""
    tell(f"Integrity check of {path.name}")
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as exc:
        return str(exc)
    return None if found == ["ok"] else "; ".join(found)


def schema(path: Path) -> Schema:
    """What migrations go by, of a sound file."""
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        statements = sorted(str(row) for row in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
    return {"tables_sha256": hashlib.sha256("\n".join(statements).encode()).hexdigest(), "user_version": version}


def rows(path: Path) -> dict[str, int]:
    """How many rows each table of a sound file has."""
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        tables = db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite^_%' ESCAPE '^' ORDER BY 1"
        )
        names = [str(name) for (name,) in tables]
        quoted = {name: '"' + name.replace('"', '""') + '"' for name in names}
        found = {}
        for name in names:
            with contextlib.suppress(sqlite3.Error):  # a virtual table whose module is not here
                found[name] = int(db.execute(f"SELECT count(*) FROM {quoted[name]}").fetchone()[0])
        return found

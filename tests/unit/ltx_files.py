"""LTX files as LiteFS writes them, from real SQLite databases: each commit is the pages that it changed."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.abaci.infra.plugins.module_utils.archive import ltx
from ansible_collections.abaci.infra.plugins.module_utils.archive.crc import crc64

START = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


def file_of(
    pages: dict[int, bytes],
    page_size: int,
    commit: int,
    txids: tuple[int, int],
    checksums: tuple[int, int],
    time: float,
    flags: int = 0,
) -> bytes:
    """One LTX file; checksums are those of the database before and after."""
    parts = [
        struct.pack(
            ">4sIIIQQQQqqIIQ20x",
            *(b"LTX1", flags, page_size, commit, *txids, round(time * 1000), checksums[0], 0, 0, 0, 0, 0),
        )
    ]
    parts += [struct.pack(">I", number) + pages[number] for number in sorted(pages)]
    parts.append(struct.pack(">IQ", 0, checksums[1]))
    if flags & 1:  # what stands in it is not read; a frame begins so
        parts[1:-1] = [b"\x04\x22\x4d\x18", *parts[1:-1]]
    body = b"".join(parts)
    return body + struct.pack(">Q", ltx.FLAG | crc64(body))


class Primary:
    """A SQLite database with a TXID; every commit is an LTX file in ``folder``."""

    def __init__(self, folder: Path, page_size: int = 1024, name: str = "db") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.page_size = folder, page_size
        self.path = folder / f"{name}.sqlite"
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute(f"PRAGMA page_size = {page_size}")
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.execute("PRAGMA journal_mode = MEMORY")
        self.txid, self.time = 0, START
        self._pages: dict[int, bytes] = {}
        self._sums: dict[int, int] = {}
        self._files = 0

    @property
    def checksum(self) -> int:
        total = 0
        for value in self._sums.values():
            total ^= value
        return ltx.FLAG | total

    @property
    def position(self) -> ltx.Position:
        return ltx.Position(self.txid, self.checksum)

    def write(self, *statements: str, seconds: float = 1.0) -> Path:
        """One transaction, and its LTX file."""
        before = self.checksum
        self.db.execute("BEGIN IMMEDIATE")
        for statement in statements or ("INSERT INTO t (body) VALUES (hex(randomblob(20)))",):
            self.db.execute(statement)
        self.db.execute("COMMIT")
        return self.commit(before, seconds)

    def commit(self, before: int, seconds: float) -> Path:
        """What the file on disk differs in from what was known becomes a transaction."""
        changed, number = {}, 0
        with self.path.open("rb") as file:
            while data := file.read(self.page_size):
                number += 1
                if self._pages.get(number) != data:
                    self._pages[number] = changed[number] = data
                    self._sums[number] = ltx.page_checksum(number, data)
        for gone in [known for known in self._pages if known > number]:
            del self._pages[gone], self._sums[gone]
        self.txid += 1
        self.time += seconds
        first = 0 if self.txid == 1 else before
        return self._file(changed, number, (self.txid, self.txid), (first, self.checksum), self.time)

    def snapshot(self, flags: int = 0) -> Path:
        """What LiteFS sends to a follower that it cannot continue."""
        pages = dict(self._pages)
        return self._file(pages, len(pages), (1, self.txid), (0, self.checksum), self.time, flags)

    def rows(self) -> list[str]:
        return [row[0] for row in self.db.execute("SELECT body FROM t ORDER BY id")]

    def state(self) -> tuple[int, dict[int, bytes], bytes]:
        """To be put back by restore(): a primary that goes back in time."""
        return self.txid, dict(self._pages), self.path.read_bytes()

    def restore(self, state: tuple[int, dict[int, bytes], bytes]) -> None:
        self.db.close()
        self.txid, self._pages = state[0], dict(state[1])
        self._sums = {number: ltx.page_checksum(number, data) for number, data in self._pages.items()}
        self.path.write_bytes(state[2])
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.execute("PRAGMA journal_mode = MEMORY")

    def _file(
        self,
        pages: dict[int, bytes],
        commit: int,
        txids: tuple[int, int],
        checksums: tuple[int, int],
        time: float,
        flags: int = 0,
    ) -> Path:
        self._files += 1
        path = self.folder / f"{self._files}.incoming"
        path.write_bytes(file_of(pages, self.page_size, commit, txids, checksums, time, flags))
        return path


def primary(folder: Path, transactions: int = 1, page_size: int = 1024) -> tuple[Primary, list[Path]]:
    """A primary with a table t and so many transactions, the first of which makes the table."""
    made = Primary(folder, page_size)
    files = [made.write("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")]
    files += [made.write() for _ in range(transactions - 1)]
    return made, files


def many(made: Primary, count: int, seconds: float) -> Iterator[Path]:
    """So many small transactions on a table that stays small, by SQLite's own pages: a row is changed each time."""
    made.db.execute("PRAGMA cache_size = 10")
    for number in range(count):
        if made.txid < 300:
            statement = "INSERT INTO t (body) VALUES (hex(randomblob(20)))"
        else:
            statement = f"UPDATE t SET body = 'changed {number}' WHERE id = {number * 7 % 290 + 1}"
        yield made.write(statement, seconds=seconds)

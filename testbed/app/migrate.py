#!/usr/bin/env python3
"""Bring the sample application's database to the current schema.

Run by LiteFS on the primary only (`if-candidate` in the exec list), before the server. The database is the file
DATABASE_URL names; JOURNAL_MODE (`delete` or `wal`, may be unset) is the mode a new database gets. Running it again
writes nothing, so the replication position does not move. Exit 0: the schema is current. Exit 1: one sentence on
stderr says what is wrong; nothing was changed, since each step is one transaction.
"""

from __future__ import annotations

import os
import sqlite3
import sys

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,"
        " created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
        "CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL,"
        " created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    ),
)
"""One entry for each schema version, 1 first. Only ever appended to; each must leave the older code working."""

JOURNAL_MODES = ("", "delete", "wal")


def use_journal_mode(db: sqlite3.Connection, wanted: str) -> str:
    """Switch to the journal mode where that is safe and return the mode in force.

    From `delete` to `wal` the switch is done. The way back is never taken: on a living LiteFS cluster it ends every
    replica, so a database in WAL mode stays in it.
    """
    mode = str(db.execute("PRAGMA journal_mode").fetchone()[0])
    if wanted == "wal" and mode != "wal":
        mode = str(db.execute("PRAGMA journal_mode=WAL").fetchone()[0])
    return mode


def migrate(path: str, journal_mode: str = "", steps: tuple[tuple[str, ...], ...] = STEPS) -> tuple[int, int]:
    """Apply the missing steps to the database file and return the schema version before and after.

    Raises ValueError for a journal mode that does not exist or a schema newer than this code, sqlite3.Error for what
    SQLite refuses (a replica's database is read-only).
    """
    if journal_mode not in JOURNAL_MODES:
        raise ValueError(f"JOURNAL_MODE is {journal_mode!r}: set it to delete or wal")
    db = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        before = int(db.execute("PRAGMA user_version").fetchone()[0])
        if before > len(steps):
            raise ValueError(
                f"{path} has schema version {before}, this code knows {len(steps)}: run the newer application"
            )
        use_journal_mode(db, journal_mode)
        for version, statements in enumerate(steps[before:], before + 1):
            db.execute("BEGIN IMMEDIATE")
            try:
                for statement in statements:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={version}")
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
        return before, len(steps)
    finally:
        db.close()


def main() -> int:
    """Migrate the database of the environment; see the module's promise for the exit code."""
    path = os.environ.get("DATABASE_URL", "")
    if not path:
        print("DATABASE_URL is not set: set it to the path of the database file", file=sys.stderr)
        return 1
    try:
        before, after = migrate(path, os.environ.get("JOURNAL_MODE", "").lower())
    except (ValueError, sqlite3.Error) as error:
        print(f"cannot migrate {path}: {error}", file=sys.stderr)
        return 1
    print(f"schema of {path}: version {before} -> {after}" if before != after else f"schema of {path}: version {after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

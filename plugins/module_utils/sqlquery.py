"""One statement on a SQLite file that nobody else changes, with limits; its answer as text, CSV or JSON. I/O: run()."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .telling import tell

Value = int | float | str | bytes | None
Format = Literal["text", "csv", "json"]
# What goes past the file, which is opened so that it cannot be written to. VACUUM INTO writes a copy by an ATTACH.
_BESIDE = {
    *(sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT),
    *(sqlite3.SQLITE_CREATE_TEMP_TABLE, sqlite3.SQLITE_CREATE_TEMP_VIEW, sqlite3.SQLITE_CREATE_TEMP_TRIGGER),
    *(sqlite3.SQLITE_CREATE_TEMP_INDEX, sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_DROP_VTABLE),
}
# Of those with an argument; one without only tells.
_PRAGMAS = {
    *("table_info", "table_xinfo", "table_list", "index_info", "index_xinfo", "index_list"),
    *("foreign_key_list", "foreign_key_check", "integrity_check", "quick_check"),
}


class Refused(Exception):
    """The statement is not one that is answered; one sentence."""


class Writes(Refused):
    """The statement does more than read."""


class Missing(Refused):
    """The database has no such table or column."""


@dataclass(frozen=True)
class Answer:
    columns: list[str]
    rows: list[tuple[Value, ...]]
    more: bool  # whether there are more rows than the limit
    changed: int = 0  # rows that it changed, with those of triggers and foreign keys


def run(path: Path, sql: str, rows: int, seconds: float, variable: str, *, write: bool = False) -> Answer:
    """What one statement answers; Refused, with the name of the user's variable, where it takes too long or does more.

    More is to write, but with ``write``, and to go beyond the file. Foreign keys are kept then.
    """
    end = time.monotonic() + seconds
    late = beside = False

    def allowed(action: int, one: str | None, two: str | None, *_where: str | None) -> int:
        nonlocal beside
        denied = _beyond(action, one, two)
        beside = beside or denied
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    def over() -> bool:
        nonlocal late
        late = time.monotonic() > end
        return late

    tell(f"Answer to {variable}", deadline=time.monotonic() + seconds)
    uri = f"{path.resolve().as_uri()}?{'mode=rw' if write else 'mode=ro&immutable=1'}"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
            db.execute(f"PRAGMA {'foreign_keys' if write else 'query_only'} = 1")
            db.set_authorizer(allowed)
            db.set_progress_handler(over, 1000)
            cursor = db.execute(sql)
            columns = [str(column[0]) for column in cursor.description or ()]
            found = cursor.fetchmany(rows + 1)
            changed = db.total_changes
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as exc:
        if late:
            raise Refused(f"{variable} took longer than {seconds:g} s: ask for less, or raise the limit.") from exc
        if write and beside:
            raise Refused(
                f"{variable} may change rows and tables of this database, and {sql.strip()[:80]!r} does something "
                "else: give one statement, without BEGIN, ATTACH, VACUUM or PRAGMA."
            ) from exc
        if beside or getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY:
            raise Writes(
                f"{variable} is answered from a copy, so it may only read, and {sql.strip()[:80]!r} does more: give "
                "one SELECT."
            ) from exc
        kind = Missing if str(exc).startswith("no such ") else Refused
        raise kind(f"{variable} is not answered: SQLite says {str(exc).rstrip('.')}.") from exc
    return Answer(columns, found[:rows], len(found) > rows, changed)


def _beyond(action: int, one: str | None, two: str | None) -> bool:
    """Whether a part of a statement, as SQLite names it, does more than read or write the file."""
    if action == sqlite3.SQLITE_PRAGMA:
        return two is not None and str(one).lower() not in _PRAGMAS
    return action in _BESIDE or (action == sqlite3.SQLITE_FUNCTION and two == "load_extension")


def shown(answer: Answer, form: Format) -> str:
    """The whole answer in one text."""
    if form == "json":
        named = [dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows]
        return json.dumps(named, ensure_ascii=False, indent=1)
    if form == "csv":
        made = io.StringIO()
        writer = csv.writer(made, lineterminator="\n")
        writer.writerows([answer.columns, *([_plain(value) for value in row] for row in answer.rows)])
        return made.getvalue()
    return "\n".join(table(answer.columns, [[_text(value) for value in row] for row in answer.rows]))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns one below the other."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [columns, ["-" * width for width in widths], *rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def number(answer: Answer) -> float | None:
    """The first value of the first row; None for none. Refused where it is no number."""
    value = answer.rows[0][0] if answer.rows and answer.rows[0] else None
    if value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value)
    raise Refused(f"The answer {_text(value)[:60]!r} is no number: ask for a count, or SELECT 1 FROM ... WHERE ....")


def _plain(value: Value) -> int | float | str | None:
    return value.hex() if isinstance(value, bytes) else value


def _text(value: Value) -> str:
    return "NULL" if value is None else " ".join(str(_plain(value)).splitlines())

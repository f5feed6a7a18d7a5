"""The archive's state as a document (schema 1, described in docs/archive.md) and as metrics. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from .alarms import Alarm
from .follower import Seen
from .ltx import Position
from .store import History, Moved, Transaction

SCHEMA = 1


class PrimaryDoc(TypedDict):
    connected: bool
    address: str
    cluster_id: str
    since: str
    heard: str | None
    error: str


class PointDoc(TypedDict):
    txid: str
    time: str


class GapDoc(TypedDict):
    first: str
    last: str


class HistoryDoc(TypedDict):
    cluster: str
    database: str
    history: str
    opened: str
    first: PointDoc
    last: PointDoc
    checksum: str
    followed: str
    gaps: list[GapDoc]
    bases: list[str]
    files: int
    bytes: int
    problems: list[str]


class DatabaseDoc(TypedDict):
    cluster: str
    database: str
    history: str
    received: PointDoc
    verified: PointDoc | None
    behind_seconds: float | None
    gaps: list[GapDoc]


class TargetDoc(TypedDict):
    behind_files: int
    behind_bytes: int
    behind_seconds: float
    lost: list[str]
    error: str


class BufferDoc(TypedDict):
    bytes: int
    max_bytes: int
    free_bytes: int


class LastDoc(TypedDict):
    time: str
    seconds: float
    problems: list[str]


class DrillDoc(TypedDict):
    """A moment that was rebuilt, only to see that it can be."""

    cluster: str
    database: str
    txid: str
    time: str
    seconds: float
    bytes: int
    answer: str


class AlarmDoc(TypedDict):
    kind: str
    database: str
    sentence: str
    since: str


class Document(TypedDict):
    schema: int
    time: str
    primary: PrimaryDoc
    databases: list[DatabaseDoc]
    target: TargetDoc | None
    remote_behind_seconds: float | None
    buffer: BufferDoc
    last: dict[str, LastDoc]
    drills: list[DrillDoc]
    alarms: list[AlarmDoc]


class TransactionDoc(TypedDict):
    txid: str
    time: str
    pages: int
    commit: int
    history: str
    bytes: int


class FollowingDoc(TypedDict):
    """What a copy lacks; without any ``last`` is where the copy is, and ``time`` null."""

    cluster: str
    database: str
    history: str
    count: int
    first_time: str | None
    last: str
    checksum: str
    time: str | None


@dataclass(frozen=True)
class Point:
    """Up to which TXID the archive is proven, and when that was."""

    txid: int
    time: float


@dataclass(frozen=True)
class Ran:
    """One run of a schedule."""

    time: float
    seconds: float
    problems: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """All that the document is made of, as it was at one moment."""

    now: float
    seen: Seen
    histories: Sequence[History]
    verified: Mapping[tuple[str, str], Point]
    moved: Moved | None
    remote: float | None  # when the remote was last level
    buffer: BufferDoc
    last: Mapping[str, Ran]
    drills: Sequence[DrillDoc]
    alarms: Sequence[Alarm]


def stamp(when: float) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    moment = datetime.datetime.fromtimestamp(when, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def hexadecimal(number: int) -> str:
    """A TXID or a checksum as LiteFS writes it."""
    return f"{number:016x}"


def newest(histories: Sequence[History]) -> list[History]:
    """Of each database the history that goes on."""
    last = {(one.cluster, one.database): one for one in histories}
    return list(last.values())


def history(one: History) -> HistoryDoc:
    return HistoryDoc(
        cluster=one.cluster,
        database=one.database,
        history=one.history,
        opened=stamp(one.opened),
        first={"txid": hexadecimal(one.first), "time": stamp(one.first_time)},
        last={"txid": hexadecimal(one.last), "time": stamp(one.last_time)},
        checksum=hexadecimal(one.checksum),
        followed=stamp(one.followed),
        gaps=_gaps(one),
        bases=[hexadecimal(base) for base in one.bases],
        files=one.files,
        bytes=one.size,
        problems=list(one.problems),
    )


def transaction(one: Transaction) -> TransactionDoc:
    return TransactionDoc(
        txid=hexadecimal(one.txid),
        time=stamp(one.time),
        pages=one.pages,
        commit=one.commit,
        history=one.history,
        bytes=one.size,
    )


def following(
    cluster: str, database: str, history: str, count: int, first: float, last: Position, time: float
) -> FollowingDoc:
    return FollowingDoc(
        cluster=cluster,
        database=database,
        history=history,
        count=count,
        first_time=stamp(first) if count else None,
        last=hexadecimal(last.txid),
        checksum=hexadecimal(last.checksum),
        time=stamp(time) if count else None,
    )


def document(view: View) -> Document:
    seen = view.seen
    return Document(
        schema=SCHEMA,
        time=stamp(view.now),
        primary={
            "connected": bool(seen.primary) and seen.ready,
            "address": seen.primary,
            "cluster_id": seen.cluster_id,
            "since": stamp(seen.since),
            "heard": stamp(seen.heard) if seen.heard else None,
            "error": seen.error,
        },
        databases=[_database(one, view) for one in newest(view.histories)],
        target=_target(view),
        remote_behind_seconds=None if view.remote is None else round(max(view.now - view.remote, 0.0), 1),
        buffer=view.buffer,
        last={
            name: {"time": stamp(ran.time), "seconds": round(ran.seconds, 1), "problems": list(ran.problems)}
            for name, ran in sorted(view.last.items())
        },
        drills=list(view.drills),
        alarms=[
            {
                "kind": one["kind"],
                "database": one["database"],
                "sentence": one["sentence"],
                "since": stamp(one["since"]),
            }
            for one in view.alarms
        ],
    )


def metrics(doc: Document) -> str:
    """Prometheus' text format."""
    lines: list[str] = []

    def add(name: str, help_: str, *values: tuple[Mapping[str, str], float], kind: str = "gauge") -> None:
        lines.append(f"# HELP abaci_archive_{name} {help_}")
        lines.append(f"# TYPE abaci_archive_{name} {kind}")
        for labels, value in values:
            inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(
                f"abaci_archive_{name}{{{inner}}} {value:.15g}" if inner else f"abaci_archive_{name} {value:.15g}"
            )

    databases = [({"cluster": one["cluster"], "database": one["database"]}, one) for one in doc["databases"]]
    verified = [(labels, one["verified"]) for labels, one in databases if one["verified"]]
    add("connected", "Whether the primary is followed.", ({}, float(doc["primary"]["connected"])))
    add("received_txid", "Last TXID kept.", *((lb, int(one["received"]["txid"], 16)) for lb, one in databases))
    add("received_time_seconds", "Its time.", *((lb, seconds(one["received"]["time"])) for lb, one in databases))
    add(
        "verified_txid",
        "Last TXID whose checksum was proven.",
        *((lb, int(at["txid"], 16)) for lb, at in verified if at),
    )
    add("verified_time_seconds", "Its time.", *((lb, seconds(at["time"])) for lb, at in verified if at))
    behind = [(lb, one["behind_seconds"]) for lb, one in databases if one["behind_seconds"] is not None]
    add("behind_seconds", "Since the primary was last level with the archive.", *((lb, at or 0.0) for lb, at in behind))
    target = doc["target"]
    if target is not None:
        add("target_lag_seconds", "Age of the oldest that is only in the buffer.", ({}, target["behind_seconds"]))
        add("target_lag_bytes", "Bytes that are only in the buffer.", ({}, target["behind_bytes"]))
        add("target_lost", "Times that the buffer was too small.", ({}, len(target["lost"])), kind="counter")
    if doc["remote_behind_seconds"] is not None:
        add("remote_lag_seconds", "Since the remote was last level.", ({}, doc["remote_behind_seconds"]))
    add("buffer_bytes", "Bytes in the buffer.", ({}, doc["buffer"]["bytes"]))
    add("buffer_free_bytes", "Bytes free on the buffer's volume.", ({}, doc["buffer"]["free_bytes"]))
    add(
        "last_run_seconds",
        "When a schedule ran last.",
        *(({"what": n}, seconds(r["time"])) for n, r in doc["last"].items()),
    )
    add("problems", "What its last run found.", *(({"what": n}, len(r["problems"])) for n, r in doc["last"].items()))
    add(
        "alarm",
        "Alarms that are active.",
        *(({"kind": a["kind"], "database": a["database"]}, 1) for a in doc["alarms"]),
    )
    return "\n".join(lines) + "\n"


def seconds(text: str) -> float:
    """Of a stamp."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _gaps(one: History) -> list[GapDoc]:
    return [{"first": hexadecimal(gap.first), "last": hexadecimal(gap.last)} for gap in one.gaps]


def _database(one: History, view: View) -> DatabaseDoc:
    key = (one.cluster, one.database)
    proven = view.verified.get(key)
    level = max(view.seen.level.get(key, 0.0), one.followed, one.last_time)
    ours = one.cluster == view.seen.cluster_id
    return DatabaseDoc(
        cluster=one.cluster,
        database=one.database,
        history=one.history,
        received={"txid": hexadecimal(one.last), "time": stamp(one.last_time)},
        verified={"txid": hexadecimal(proven.txid), "time": stamp(proven.time)} if proven else None,
        behind_seconds=round(max(view.now - level, 0.0), 1) if ours else None,
        gaps=_gaps(one),
    )


def _target(view: View) -> TargetDoc | None:
    moved = view.moved
    if moved is None:
        return None
    return TargetDoc(
        behind_files=moved.behind_files,
        behind_bytes=moved.behind_bytes,
        behind_seconds=round(max(view.now - moved.behind_since, 0.0), 1) if moved.behind_since is not None else 0.0,
        lost=list(moved.lost),
        error=moved.error,
    )


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

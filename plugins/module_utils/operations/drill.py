"""The result of a restore drill, beside the backups. I/O: write() and read()."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypedDict, cast

SCHEMA = 1


class Rebuilt(TypedDict):
    """One moment that was rebuilt beside the site."""

    which: str  # newest, or random
    txid: str
    moment: str  # the time of that transaction; "" where it was not rebuilt
    history: str
    cluster_id: str
    seconds: float  # from the question to the proven file
    size: int
    checksum: str
    answer: list[list[str]]  # to the query, with its columns first
    problem: str  # a sentence; "" for none


class Result(TypedDict):
    """The last drill of one database."""

    schema: int
    time: str
    namespace: str
    statefulset: str
    database: str
    ok: bool
    moments: list[Rebuilt]


def path_of(directory: Path, namespace: str, statefulset: str, database: str) -> Path:
    """Where it stands: several sites may share a directory."""
    return directory / f"{namespace}.{statefulset}.{database}.drill.json"


def write(directory: Path, result: Result) -> Path:
    """Put it in the place of the last one."""
    path = path_of(directory, result["namespace"], result["statefulset"], result["database"])
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    beside.chmod(0o600)
    beside.rename(path)
    return path


def read(directory: Path, namespace: str, statefulset: str, database: str) -> Result | None:
    """The last one; None where there was none, or it is of another version."""
    try:
        found = json.loads(path_of(directory, namespace, statefulset, database).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and found.get("schema") == SCHEMA
    return cast("Result", found) if known else None


def said(one: Rebuilt) -> str:
    """A line about one moment."""
    if one["problem"]:
        return f"The {one['which']} moment, transaction {one['txid']}, cannot be had: {one['problem']}"
    answers = f" The query answers {', '.join(one['answer'][1])}." if len(one["answer"]) > 1 else ""
    return (
        f"The {one['which']} moment, transaction {one['txid']} of {one['moment']}, was rebuilt and proven in "
        f"{one['seconds']:.1f} s, {one['size'] / 1e6:.1f} MB.{answers}"
    )

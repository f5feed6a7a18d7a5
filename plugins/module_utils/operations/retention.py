"""Which old backups go. The job in the cluster runs this file too: only the standard library, nothing of the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict, cast

SCHEMA = 1
SUFFIX = ".manifest.json"
SCHEDULED = "backup"  # the reason of a plain backup of the database
KEPT = (SCHEDULED, "cluster")  # only these are subject to retention; the second: a copy of the cluster's datastore
OWNER = ("namespace", "statefulset", "database", "cluster_id")


class Manifest(TypedDict, total=False):
    """What stands beside a backup, and what read() adds to it. What an operation exported has what the last lines name.

    Of a file that somebody else may have written: no key is sure to be there.
    """

    schema: int
    reason: str
    namespace: str
    statefulset: str
    database: str
    cluster_id: str | None
    pod: str
    image: str | None
    txid: str
    at_primary: bool  # whether it is at the primary's position
    seconds: float
    time: str
    page_size: int
    journal_mode: str
    pages: int
    size: int
    checksum: str
    imported_checksum: str
    sha256: str
    tables_sha256: str
    user_version: int
    table_rows: dict[str, int]  # how many rows each table has
    file: str
    stored_size: int
    stored_sha256: str
    encrypted: bool
    read_back: bool
    verified: bool
    path: str
    manifest: str
    whole: bool  # the stored file is there, and as long as the manifest says
    moment: str  # of a database from the archive, as the next: the time of its transaction
    history: str
    host: str  # of a copy of the cluster's datastore, as the next three
    k3s: str
    rows: int
    revision: int
    volume: str  # of an export from a volume, as the next three
    volume_of: int  # the ordinal
    position_proven: bool
    empty: bool  # it holds no database, so there is no file
    problem: str  # why there is no export


def read(directory: Path) -> list[Manifest]:
    """The manifests in a directory, each with ``path``, ``manifest`` and ``whole``; others are passed over.

    whole: the stored file is there, and as long as the manifest says.
    """
    found: list[Manifest] = []
    for note in sorted(directory.glob(f"*{SUFFIX}")) if directory.is_dir() else []:
        try:
            data = json.loads(note.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(data, dict) and data.get("schema") == SCHEMA:
            path = directory / str(data.get("file"))
            there = path.stat().st_size if path.is_file() else 0
            # An encrypted one of an older version does not say how long its file is.
            length = data.get("stored_size", there if data.get("encrypted") else data.get("size"))
            more = {"path": str(path), "manifest": str(note), "whole": 0 < there == length}
            found.append(cast("Manifest", data | more))
    return found


def expired(manifests: Iterable[Manifest], keep: int, made: Manifest) -> list[Manifest]:
    """The plain backups of the cluster of what this run ``made`` that are beyond the newest ``keep`` (0 keeps all).

    Never among them: what was made now, what another site or another cluster of this one made, what an operation
    exported before it acted, and what is stamped later than now, since one of the two clocks was wrong. What is not
    ``whole`` does not count as kept. After a backup that is not at the primary's position (at_primary) nothing goes.
    """
    if keep <= 0 or made.get("reason") not in KEPT or not all(made.get(key) for key in OWNER):
        return []
    if made.get("at_primary") is False:  # a copy of nobody knows how long ago takes no other's place
        return []
    group = [
        one
        for one in manifests
        if one.get("schema") == SCHEMA
        and one.get("reason") == made["reason"]
        and one.get("verified") is True
        and all(one.get(key) == made.get(key) for key in OWNER)
        and one.get("file") != made["file"]
        and str(one.get("time")) <= str(made["time"])
    ]
    kept, found = 1, []
    for one in sorted(group, key=lambda one: str(one.get("time")), reverse=True):
        if kept >= keep:
            found.append(one)
        elif one["whole"]:
            kept += 1
    return found


def prune(directory: Path, keep: int, made: Manifest) -> list[str]:
    """Remove what is expired, a manifest before its file, so that none is left without it. Returns the names."""
    gone = []
    for one in expired(read(directory), keep, made):
        Path(one["manifest"]).unlink(missing_ok=True)
        Path(one["path"]).unlink(missing_ok=True)
        gone.append(str(one["file"]))
    return gone

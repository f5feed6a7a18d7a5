"""What can be seen of the living database: its header, whether writes get through, and whether replicas could write.

None of it is in LiteFS's answers about itself: /info stays green on a primary whose writes are locked for good. An
export that is broken off after the header tells, because in WAL mode LiteFS takes the write lock for a moment before it
answers, and with a rollback journal a shared one. ``api`` is kube.Client, or has its dial, portforward_get and raw.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any, TypedDict

from . import kube, litefs, wording
from .operations import sqlitefile, transfer

HEADER = 100
WRITES_LOCKED = "docs/runbooks/writes-locked.md"
JOURNAL_MODE = "docs/runbooks/journal-mode.md"
_HELD = ("write", "reserved", "pending", "shared")


class Header(TypedDict):
    journal_mode: str  # wal or delete
    page_size: int  # bytes
    pages: int
    auto_vacuum: bool


def header(api: Any, namespace: str, pod: str, port: int, database: str, timeout: float = 10.0) -> Header:
    """The header of the database that the pod serves.

    Raises KubeError where no answer came within ``timeout`` (s), which is so while a write goes on, and where it is no
    database.
    """
    path = transfer.name_query("/export", database)
    where = f"GET {path} on port {port} of pod {namespace}/{pod}"
    with kube.forward(api, namespace, pod, port, timeout, where) as stream:
        stream.send(f"GET {path} HTTP/1.1\r\nHost: {pod}:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(stream)
        answer.begin()
        head = answer.read(HEADER)
    if answer.status != 200:
        raise kube.KubeError(f"{where} was answered {answer.status}: {wording.reason(head.decode(errors='replace'))}.")
    try:
        page_size, mode = sqlitefile.shape(head)
    except sqlitefile.BadFile as exc:
        raise kube.KubeError(f"The export of {database} by pod {namespace}/{pod} {exc}.") from exc
    return {
        "journal_mode": mode,
        "page_size": page_size,
        "pages": int.from_bytes(head[28:32], "big"),
        "auto_vacuum": any(head[52:56]),
    }


def locked(api: Any, namespace: str, pod: str, port: int, database: str, since: Mapping[str, str]) -> str | None:
    """Why no write gets through on the primary, as a sentence; None where one did, or the lock is free.

    ``since`` is the database as an earlier look saw it ({txid, ...}, see state_types.py); the time in between is how
    long the lock has to have been held.
    """
    status, _headers, body = api.portforward_get(namespace, pod, port, "/debug/vars")
    found = litefs.parse_vars(body).get(database) if status == 200 else None
    if found is None or f"{found.position.txid:016x}" != since["txid"]:
        return None
    held = [name for name in _HELD if found.locks.get(name) == "exclusive"]
    if not held:
        return None
    return (
        f"No write gets through on the primary {pod}: the lock {held[0]} of {database} is held at TXID "
        f"{since['txid']}, so a transaction is open, or LiteFS never gives it back (then the pod's log says `panic in "
        f"handler`): see {WRITES_LOCKED}."
    )


def is_read_only(mounts: str, mount: str) -> bool | None:
    """Whether the mount is read-only, as /proc/self/mounts says; None where it is not mounted."""
    found = None
    for line in mounts.splitlines():
        words = line.split()
        if len(words) > 3 and words[1] == mount:
            found = "ro" in words[3].split(",")  # what is mounted last hides the others
    return found


def notes(seen: Header, recorded: str, following: bool, writable: list[str], database: str) -> list[str]:
    """What the user has to know of it, in sentences.

    ``seen`` is header(); ``recorded`` the record's journalMode; ``following`` whether every replica is at the primary's
    position; ``writable`` the replicas whose mount is not read-only.
    """
    found = []
    if recorded == "wal" and seen["journal_mode"] == "delete" and not following:
        found.append(
            f"The journal mode of {database} was changed from WAL, and that ends every replica that is connected: "
            f"bring them back as {JOURNAL_MODE} says."
        )
    if seen["journal_mode"] == "wal" and seen["auto_vacuum"]:
        found.append(
            f"{database} has auto_vacuum in WAL mode, where a DELETE that makes it much smaller locks all writes for "
            f"good: switch it off as {WRITES_LOCKED} says."
        )
    if writable and seen["journal_mode"] == "wal":
        found.append(
            f"{' and '.join(writable)} can open {database} for writing, and in WAL mode such a write may be lost "
            "without an error: the log of the pod says why its mount is not read-only (roles/app/README.md)."
        )
    return found

"""The scheduled backup, in the cluster: export from a replica, verify, keep with a manifest. Standard library only.

Beside it, in the package `verified`, stand the collection's own files that are listed in roles/backup/vars. The API of
Kubernetes is not used: pods are the addresses of the headless Service, and the position of the export is proven by its
checksum against what LiteFS shows before, after and (GET /events) during it. Exit 0: one more verified backup of
what the primary has. Exit 1: one sentence on stderr says what is wrong; no file of this run is left, unless no primary
answered: then the newest copy that did is kept (at_primary false in its manifest), and nothing old is removed for it.

Environment: SERVICE, PORT, DATABASE, NAMESPACE, STATEFULSET, TARGET (folder), KEEP, IDENTITY (folder of the record),
PATIENCE (seconds, 120: how long a primary that does not answer is waited for).

What a killed run left on the target goes when a later one begins, or at once where it was told to end (SIGTERM).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from verified import clock
from verified.operations import keeping, positions, retention, sqlitefile

TRIES = 3
LOOK_S = 2  # from one look for a primary to the next
LEFT_S = 3600  # a folder that nobody wrote into for so long is of a run that is over


Failed = keeping.Failed


def ask(address: str, path: str, timeout: float = 10) -> bytes:
    """The body of a GET that is answered 200."""
    connection = http.client.HTTPConnection(address, int(os.environ["PORT"]), timeout=timeout)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    if answer.status != 200:
        raise Failed(f"GET {path} on {address} was answered {answer.status}.")
    return body


def node(address: str) -> dict[str, Any] | None:
    """What a pod's LiteFS says of itself; None where it does not answer or does not have the database."""
    try:
        info = json.loads(ask(address, "/info"))
        entry = json.loads(ask(address, "/debug/vars"))["store"]["dbs"][os.environ["DATABASE"]]
        lag = re.search(r"^litefs_lag_seconds (\S+)$", ask(address, "/metrics").decode(), re.MULTILINE)
    except (OSError, http.client.HTTPException, ValueError, KeyError, Failed):
        return None
    return {
        "address": address,
        "cluster_id": info.get("clusterID"),
        "primary": bool(info.get("isPrimary")),
        "follows": bool((info.get("primary") or {}).get("hostname")),
        "lag": float(lag[1]) if lag else None,
        "txid": str(entry["txid"]),
        "checksum": str(entry["checksum"]),
    }


def choose(nodes: list[dict[str, Any]], recorded: str) -> dict[str, Any]:
    """A connected replica at the primary's position, else the primary, else the node of the cluster with the most.

    ``at_primary`` of what is returned: whether that is the primary's position, so that it is no old copy.
    """
    leaders = [one for one in nodes if one["primary"]]
    cluster = recorded or (leaders[0]["cluster_id"] if len(leaders) == 1 else "")
    ours = [one for one in nodes if cluster and one["cluster_id"] == cluster and int(one["txid"], 16)]
    if not ours:
        raise Failed(f"No pod that answers holds the cluster {cluster or '(none is recorded)'} with the database.")
    leader = leaders[0] if len(leaders) == 1 and leaders[0] in ours else None
    if leader is not None:
        # It may have gone on since it was asked; a replica is as good as it was then.
        following = [one for one in ours if not one["primary"] and one["follows"] and one["lag"]]
        level = [one for one in following if int(one["txid"], 16) >= int(leader["txid"], 16)]
        return {**(level or [leader])[-1], "at_primary": True}
    top = max(int(one["txid"], 16) for one in ours)
    return {**[one for one in ours if int(one["txid"], 16) == top][-1], "at_primary": False}


class Positions:
    """Every position that a node shows while it is watched: checksum -> TXID."""

    def __init__(self, address: str) -> None:
        self.seen: dict[str, str] = {}
        self._address = address
        self._connection = http.client.HTTPConnection(address, int(os.environ["PORT"]), timeout=30)

    def __enter__(self) -> Positions:
        self.note()
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._connection.request("GET", "/events")
            answer = self._connection.getresponse()
            threading.Thread(target=self._watch, args=(answer,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.note()
        with contextlib.suppress(OSError):
            if self._connection.sock is not None:
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def note(self) -> None:
        found = node(self._address)
        if found is not None:
            self.seen[found["checksum"]] = found["txid"]

    def _watch(self, answer: http.client.HTTPResponse) -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
            for line in answer:
                positions.note(line, os.environ["DATABASE"], self.seen)


def fetch(address: str, path: Path) -> None:
    """The export into a file; whether it is whole shows only when it is verified."""
    query = urllib.parse.urlencode({"name": os.environ["DATABASE"]})
    connection = http.client.HTTPConnection(address, int(os.environ["PORT"]), timeout=60)
    with contextlib.closing(connection), path.open("wb") as file:
        connection.request("GET", f"/export?{query}")
        answer = connection.getresponse()
        if answer.status != 200:
            raise Failed(f"The export from {address} was answered {answer.status}.")
        shutil.copyfileobj(answer, file)


def look() -> dict[str, Any]:
    """What choose() says of the pods now."""
    service = os.environ["SERVICE"]
    try:
        found = socket.getaddrinfo(service, None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise Failed(f"The Service {service} has no addresses ({exc}): is the application running?") from exc
    nodes = [one for one in map(node, sorted({str(item[4][0]) for item in found})) if one]
    record = Path(os.environ["IDENTITY"]) / "clusterID"
    return choose(nodes, record.read_text().strip() if record.is_file() else "")


def find(until: float) -> dict[str, Any]:
    """The node to export, at the primary's position where one answers before ``until`` (time.monotonic()).

    The network policies of other nodes let a new pod through only seconds after its start, and a primary that restarts
    comes back.
    """
    while True:
        late = time.monotonic() >= until
        try:
            chosen = look()
        except Failed:
            if late:
                raise
        else:
            if late or chosen["at_primary"]:
                return chosen
        print(f"no primary answers yet: looking again for {max(until - time.monotonic(), 0):.0f} s", flush=True)
        time.sleep(LOOK_S)


def back_up(target: Path, until: float) -> dict[str, Any]:
    """Make one backup; its manifest. ``until``: see find()."""
    chosen = find(until)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as folder:
        path = Path(folder) / "database"
        with Positions(chosen["address"]) as shown:
            fetch(chosen["address"], path)
        try:
            facts = sqlitefile.verify(path)
        except sqlitefile.BadFile as exc:
            raise Failed(f"The export from {chosen['address']} {exc}.") from exc
        txid = shown.seen.get(facts["checksum"])
        if txid is None:
            raise Failed(f"The export from {chosen['address']} is sound, but its position cannot be proven.")
        stamp = clock.now()
        manifest = {
            "time": stamp,
            "database": os.environ["DATABASE"],
            "namespace": os.environ["NAMESPACE"],
            "statefulset": os.environ["STATEFULSET"],
            "pod": "job",
            "reason": retention.SCHEDULED,
            **facts,
            "txid": txid,
            "cluster_id": chosen["cluster_id"],
            "at_primary": chosen["at_primary"],
        }
        stem = f"{os.environ['DATABASE']}.{clock.compact(stamp)}.job.{txid}"
        return keeping.put(path, target, stem, ".sqlite", manifest)


def make_room(target: Path) -> None:
    """Remove what runs that were killed left: each is as large as the database."""
    for left in target.glob(".export-*"):
        newest = max((one.stat().st_mtime for one in [left, *left.glob("*")]), default=0)
        if time.time() - newest > LEFT_S:
            shutil.rmtree(left, ignore_errors=True)


def told_to_end(_signal: int, _frame: object) -> None:
    """SIGTERM (the deadline, an eviction) ends like an error, so that the folder of this run goes."""
    raise SystemExit("no backup was made: the run was told to end before it was done")


def main() -> int:
    signal.signal(signal.SIGTERM, told_to_end)
    target = Path(os.environ["TARGET"])
    with contextlib.suppress(OSError):
        make_room(target)
    problem = ""
    until = time.monotonic() + float(os.environ.get("PATIENCE", "120"))
    for _try in range(TRIES):
        try:
            made = back_up(target, until)
        except (Failed, OSError, http.client.HTTPException, KeyError) as exc:
            problem = str(exc)
            time.sleep(1)
            continue
        print(f"backed up to {made['file']}")
        if not made["at_primary"]:
            print("no primary answered: that is the newest of the copies that did, and may be old", file=sys.stderr)
            return 1
        try:
            for file in retention.prune(target, int(os.environ["KEEP"]), made):
                print(f"removed {file}")
        except OSError as exc:
            print(f"old backups could not be removed: {exc}", file=sys.stderr)
        return 0
    print(f"no backup was made: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

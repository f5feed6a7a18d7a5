"""What the archive answers over HTTP. I/O.

On the pod's address only that it lives, and figures. What tells of the data, or is the data, is on 127.0.0.1 alone: a
port-forward through the API, for which Kubernetes asks for rights, comes from within the pod.
"""

from __future__ import annotations

import datetime
import json
import shutil
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

from . import giving, status
from .ltx import Altered, Compressed, Position
from .store import History, Moment, Rebuilt, Refused, Transaction


class Archive(Protocol):
    """What is served."""

    def alive(self) -> bool: ...
    def document(self) -> status.Document: ...
    def histories(self) -> list[History]: ...
    def transactions(self, cluster: str, database: str, since: float, until: float) -> Iterator[Transaction]: ...

    def following(self, cluster: str, database: str, at: Position) -> Iterator[giving.Given]: ...

    def rebuilt(
        self, cluster: str, database: str, moment: Moment, history: str | None
    ) -> AbstractContextManager[tuple[Path, Rebuilt]]:
        """A file that is gone afterwards."""
        ...


class Wrong(Exception):
    """An answer that is an error: its status and a sentence."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Query:
    """Of a question about one database; see query()."""

    cluster: str
    database: str
    history: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)


def query(text: str, allowed: tuple[str, ...], databases: list[tuple[str, str]]) -> Query:
    """The question in a URL. Without a cluster it is the newest that has the database. Wrong says what does not fit."""
    given: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(text, keep_blank_values=True):
        if name not in allowed:
            raise Wrong(400, f"{name} is no parameter here: it may be {', '.join(allowed)}.")
        if name in given:
            raise Wrong(400, f"{name} is given twice: give it once.")
        given[name] = value
    database = given.get("database", "")
    if not database:
        raise Wrong(400, "The parameter database is missing: name the database, as in database=sqlite.db.")
    clusters = [cluster for cluster, name in databases if name == database]
    cluster = given.get("cluster") or (clusters[-1] if clusters else "")
    if (cluster, database) not in databases:
        known = ", ".join(sorted({name for _, name in databases})) or "none"
        raise Wrong(404, f"The archive has no database {database} of cluster {cluster or '(any)'}: it has {known}.")
    return Query(cluster, database, given.get("history"), given)


def moment(values: Mapping[str, str]) -> Moment:
    """Which state of the database is asked for: a TXID as LiteFS writes it, or a time with its zone."""
    if ("txid" in values) == ("time" in values):
        raise Wrong(400, "Give either txid= (hexadecimal, as LiteFS writes it) or time= (with its zone).")
    if "time" in values:
        return when(values, "time")
    try:
        return int(values["txid"], 16)
    except ValueError as exc:
        raise Wrong(400, f"txid={values['txid']} is no hexadecimal number, as 00000000000000a7.") from exc


def position(values: Mapping[str, str]) -> Position:
    """TXID and checksum of a copy, as LiteFS writes them."""
    try:
        return Position(int(values["txid"], 16), int(values["checksum"], 16))
    except (KeyError, ValueError) as exc:
        raise Wrong(400, "Give txid= and checksum= of the copy (hexadecimal, as LiteFS writes them).") from exc


def when(values: Mapping[str, str], name: str) -> datetime.datetime:
    """A time of a parameter."""
    try:
        found = datetime.datetime.fromisoformat(values[name].replace("Z", "+00:00"))
    except ValueError as exc:
        raise Wrong(400, f"{name}={values[name]} is no time such as 2026-11-30T14:05:00Z.") from exc
    if found.tzinfo is None:
        raise Wrong(400, f"{name}={values[name]} has no zone: add one, as in 2026-11-30T14:05:00%2B01:00.")
    return found


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 60
    _begun = False

    def do_GET(self) -> None:
        path, _, text = self.path.partition("?")
        asked = self.server.routes.get(path)
        try:
            if asked is None:
                raise Wrong(404, f"There is nothing at {path}: there are {', '.join(sorted(self.server.routes))}.")
            asked(self, text)
        except Wrong as exc:
            self.give(exc.code, {"error": str(exc)})
        except (Refused, Altered, Compressed) as exc:
            if not self._begun:
                self.give(409, {"error": str(exc)})
        except (BrokenPipeError, ConnectionResetError):
            pass
        except OSError as exc:
            # In the midst of an answer, only its end tells that it is cut.
            if not self._begun:
                self.give(500, {"error": f"The archive could not read or write: {exc}."})

    def healthz(self, _text: str) -> None:
        alive = self.server.archive.alive()
        self.give(200 if alive else 503, {"ok": alive})

    def metrics(self, _text: str) -> None:
        self.body(200, "text/plain; version=0.0.4", status.metrics(self.server.archive.document()).encode())

    def status(self, _text: str) -> None:
        self.give(200, self.server.archive.document())

    def moments(self, _text: str) -> None:
        found = [status.history(one) for one in self.server.archive.histories()]
        self.give(200, {"schema": status.SCHEMA, "histories": found})

    def transactions(self, text: str) -> None:
        """One JSON object a line; the last line says how many there were, so that a cut shows."""
        asked = query(text, ("cluster", "database", "since", "until"), self.server.databases())
        since = when(asked.values, "since").timestamp() if "since" in asked.values else 0.0
        until = when(asked.values, "until").timestamp() if "until" in asked.values else float("inf")
        found = self.server.archive.transactions(asked.cluster, asked.database, since, until)
        self._begun = True
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        count = 0
        for one in found:
            count += 1
            self.wfile.write(json.dumps(status.transaction(one)).encode() + b"\n")
        self.wfile.write(json.dumps({"end": True, "count": count}).encode() + b"\n")

    def following(self, text: str) -> None:
        """What a copy at this position lacks, every file of it read and proven."""
        asked = query(text, ("cluster", "database", "txid", "checksum"), self.server.databases())
        at = position(asked.values)
        count, first, last, history, time, pages = 0, 0.0, at, "", 0.0, 0
        for one in self.server.archive.following(asked.cluster, asked.database, at):
            count, last, history = count + 1, one.position, one.history
            time, pages = one.header.time, one.header.commit
            first = first or time
        if count and not pages and not at.txid:
            count, last = 0, at  # it was removed since, and a copy that never had it lacks nothing
        self.give(200, status.following(asked.cluster, asked.database, history, count, first, last, time))

    def database(self, text: str) -> None:
        allowed = ("cluster", "database", "history", "txid", "time")
        asked = query(text, allowed, self.server.databases())
        which = moment(asked.values)
        rebuilt = self.server.archive.rebuilt(asked.cluster, asked.database, which, asked.history)
        with rebuilt as (path, made), path.open("rb") as file:
            self._begun = True
            self.send_response(200)
            headers = {
                "Content-Type": "application/vnd.sqlite3",
                "Content-Length": str(path.stat().st_size),
                "Archive-Cluster": asked.cluster,
                "Archive-History": made.history,
                "Archive-Txid": status.hexadecimal(made.txid),
                "Archive-Time": status.stamp(made.time),
                "Archive-Checksum": status.hexadecimal(made.checksum),
                "Archive-Following": "" if made.following is None else status.hexadecimal(made.following),
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            shutil.copyfileobj(file, self.wfile)

    def give(self, code: int, document: object) -> None:
        self.body(code, "application/json", json.dumps(document).encode())

    def body(self, code: int, kind: str, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Probes every few seconds are no news."""


class Server(ThreadingHTTPServer):
    """One of the two; ``local`` is the one that shows the data."""

    daemon_threads = True

    def __init__(self, archive: Archive, port: int, local: bool) -> None:
        self.archive = archive
        self.routes: dict[str, Callable[[_Handler, str], None]] = {
            "/healthz": _Handler.healthz,
            "/metrics": _Handler.metrics,
        }
        if local:
            self.routes = {
                "/status": _Handler.status,
                "/moments": _Handler.moments,
                "/transactions": _Handler.transactions,
                "/following": _Handler.following,
                "/database": _Handler.database,
            }
        self.address_family = socket.AF_INET if local or not socket.has_dualstack_ipv6() else socket.AF_INET6
        super().__init__(("127.0.0.1" if local else "", port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def databases(self) -> list[tuple[str, str]]:
        """Cluster and database of all histories, the oldest first."""
        return list(dict.fromkeys((one.cluster, one.database) for one in self.archive.histories()))

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()

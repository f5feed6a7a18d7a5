"""The archive as LiteFS's nodes see it, on one port: a replica that may be asked, and a primary that gives. I/O.

A promotion points its successor's LiteFS here before it is primary, so that LiteFS itself applies, by its own proofs,
what the archive has more. Nothing but the transactions after the replica's own position is ever sent, so that nothing
that a replica has can be replaced. The guard reads /info and /debug/vars, as of any other node.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from . import giving, status, stream, wire
from .ltx import Altered, Compressed, Position
from .reading import History, Refused

with contextlib.suppress(ImportError):
    import h2.events
    import h2.exceptions

PREFACE = b"PRI"
LONGEST_BODY = 1 << 20
BEAT_S = 1.0
# What could not be given is tried again: files are packed, moved and healed meanwhile.
AGAIN_S = 30.0


class Archive(Protocol):
    """What is served."""

    def newest_cluster(self) -> str: ...
    def histories(self) -> list[History]: ...
    def heard(self) -> float: ...
    def given_up(self) -> str: ...
    def following(self, cluster: str, database: str, at: Position) -> Iterator[giving.Given]: ...


def info(archive: Archive) -> dict[str, object]:
    """/info of a node that is no primary; ``heard``: until when it was level with one that is, by this clock.

    ``givenUp``: what the record said then of what was given up; where it says something else now, nothing that the
    archive has is of after that.
    """
    heard, cluster = status.stamp(archive.heard())[:19] + "Z", archive.newest_cluster()
    return {
        "isPrimary": False,
        "clusterID": cluster,
        "archive": True,
        "heard": heard,
        "givenUp": archive.given_up(),
    }


def variables(archive: Archive) -> dict[str, object]:
    """/debug/vars, as far as a position is in it."""
    cluster = archive.newest_cluster()
    ends = {one.database: one for one in archive.histories() if one.cluster == cluster and one.last}
    databases = {
        name: {"name": name, "txid": status.hexadecimal(one.last), "checksum": status.hexadecimal(one.checksum)}
        for name, one in sorted(ends.items())
    }
    return {"store": {"isPrimary": False, "dbs": databases}}


class _Handler(BaseHTTPRequestHandler):
    server: Feed
    timeout = 30

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            if self.connection.recv(len(PREFACE), socket.MSG_PEEK) == PREFACE:
                _Session(self.connection, self.server.archive).run()
            else:
                super().handle()

    def do_GET(self) -> None:
        found = {"/info": info, "/debug/vars": variables}.get(self.path)
        body = json.dumps(found(self.server.archive) if found else {}, separators=(",", ":")).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Guards that ask are no news."""


class Feed(ThreadingHTTPServer):
    """The port."""

    daemon_threads = True

    def __init__(self, archive: Archive, port: int) -> None:
        self.archive = archive
        self.address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        super().__init__(("", port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Without the look-up of a name that HTTPServer makes.
        socketserver.TCPServer.server_bind(self)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Session(stream.Connection):
    """One connection of a replica: its positions, then what follows them for as long as it stays."""

    def __init__(self, connection: socket.socket, archive: Archive) -> None:
        super().__init__(connection, client=False)
        self._archive = archive
        self._stream, self._path, self._body, self._asked = 0, "", b"", False

    def run(self) -> None:
        with contextlib.suppress(stream.StreamError, h2.exceptions.ProtocolError, wire.WireError):
            self._h2.initiate_connection()
            self._flush()
            while not self._asked:
                self._receive()
            if self._path.partition("?")[0] != "/stream":
                self._h2.send_headers(self._stream, [(":status", "404")], end_stream=True)
                self._flush()
                return
            self._give(wire.held(self._body))

    def _give(self, held: dict[str, tuple[int, int]]) -> None:
        cluster = self._archive.newest_cluster()
        self._h2.send_headers(self._stream, [(":status", "200"), ("litefs-cluster-id", cluster)])
        self._flush()
        at = {name: Position(*where) for name, where in held.items()}
        refused: dict[str, float] = {}
        self._follow_all(cluster, at, refused)
        self._send(wire.READY)
        self._socket.settimeout(BEAT_S)
        while True:
            self._send(wire.heartbeat(round(time.time() * 1000)))
            with contextlib.suppress(TimeoutError):
                self._receive()
                continue
            self._follow_all(cluster, at, refused)

    def _follow_all(self, cluster: str, at: dict[str, Position], refused: dict[str, float]) -> None:
        for one in self._archive.histories():
            if one.cluster == cluster:
                at.setdefault(one.database, giving.NOTHING)
        for name in sorted(at):
            self._follow(cluster, name, at, refused)

    def _follow(self, cluster: str, name: str, at: dict[str, Position], refused: dict[str, float]) -> None:
        """What cannot be proven to follow is not sent; whoever waits for it asks the archive why."""
        if time.monotonic() < refused.get(name, 0.0):
            return
        try:
            for one in self._archive.following(cluster, name, at[name]):
                self._send(wire.file_begin(name))
                while data := one.content.read(wire.CHUNK):
                    self._send(wire.chunk(data))
                self._send(wire.FILE_END)
                at[name] = one.position
        except (Refused, Altered, Compressed):
            refused[name] = time.monotonic() + AGAIN_S

    def _send(self, data: bytes) -> None:
        """Within the window that the replica gives."""
        while data:
            room = min(self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size, len(data))
            if room <= 0:
                with contextlib.suppress(TimeoutError):
                    self._receive()
                continue
            self._h2.send_data(self._stream, data[:room])
            data = data[room:]
            self._flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._stream = event.stream_id or 0
            self._path = {str(name): str(value) for name, value in event.headers or ()}.get(":path", "")
        elif isinstance(event, h2.events.DataReceived):
            self._body += event.data or b""
            if len(self._body) > LONGEST_BODY:
                raise stream.StreamError("what the replica has is too long")
        elif isinstance(event, h2.events.StreamEnded):
            self._asked = True

#!/usr/bin/env python3
"""The sample application: a small site whose SQLite database LiteFS replicates. Standard library only.

Environment: PORT (3000), DATABASE_URL (path of the database file), JOURNAL_MODE (`delete`, `wal` or unset),
LITEFS_CANDIDATE (`false` on a replica), REDIS_URL (`redis://[:password@]host[:port][/db]`, may be unset), POD_NAME,
APP_VERSION (else the file VERSION beside this one), APP_COMMIT.

It never creates the database and never migrates: LiteFS runs migrate.py where it may write. Each statement is its own
transaction, because an open one on a replica stops replication there. A write that a read-only database refuses is
answered 503, never 2xx; 201 is sent after the commit. On SIGTERM the requests under way are finished, then exit 0.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import hashlib
import html
import http.server
import json
import os
import re
import secrets
import signal
import socket
import socketserver
import sqlite3
import struct
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from migrate import JOURNAL_MODES, use_journal_mode

BODY_LIMIT = 1 << 20
RECORD_LIMIT = 1 << 16
LIST_LIMIT = 1000
BUSY_SECONDS = 5.0
DRAIN_SECONDS = 8.0
SESSION_SECONDS = 86400
SOCKET_PATH = "/api/socket"
WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Config:
    """What the environment says."""

    database: str
    port: int = 3000
    host: str = "0.0.0.0"
    journal_mode: str = ""
    candidate: str = ""
    redis_url: str = ""
    pod: str = ""
    version: str = "dev"
    commit: str = "unknown"


def read_config(env: dict[str, str], folder: Path) -> Config:
    """Read the configuration from an environment; raises ValueError with the variable's name."""
    database = env.get("DATABASE_URL", "")
    if not database:
        raise ValueError("DATABASE_URL is not set: set it to the path of the database file")
    mode = env.get("JOURNAL_MODE", "").lower()
    if mode not in JOURNAL_MODES:
        raise ValueError(f"JOURNAL_MODE is {mode!r}: set it to delete or wal")
    port = env.get("PORT") or "3000"
    if not port.isdigit() or int(port) > 65535:
        raise ValueError(f"PORT is {port!r}: set it to a port number")
    version = env.get("APP_VERSION", "")
    if not version:
        with contextlib.suppress(FileNotFoundError):
            version = (folder / "VERSION").read_text(encoding="utf-8").strip()
    redis_url = env.get("REDIS_URL", "")
    if redis_url:
        parse_redis_url(redis_url)
    return Config(
        database=database,
        port=int(port),
        journal_mode=mode,
        candidate=env.get("LITEFS_CANDIDATE", "").lower(),
        redis_url=redis_url,
        pod=env.get("POD_NAME") or socket.gethostname(),
        version=version or "dev",
        commit=env.get("APP_COMMIT") or "unknown",
    )


# --- SQLite -----------------------------------------------------------------------------------------------------------


class Database:
    """A pool of autocommit connections to a file that must already exist.

    On a replica SQLite opens the file read-only by itself. A connection that failed is closed, so that one opened
    read-only does not outlive the node's becoming primary.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._writer = threading.Lock()

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; it comes back without a transaction, or is closed."""
        with self._lock:
            db = self._idle.pop() if self._idle else None
        if db is None:
            uri = f"file:{urllib.parse.quote(self._path)}?mode=rw"
            db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
        try:
            yield db
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    db.rollback()
            db.close()
            raise
        with self._lock:
            if len(self._idle) < 16:
                self._idle.append(db)
                return
        db.close()

    def read(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of one SELECT; the read transaction is over when this returns."""
        with self.connection() as db:
            return db.execute(sql, values).fetchall()

    def insert(self, sql: str, *values: object) -> int:
        """Run one INSERT and return the new row's id after its commit; raises sqlite3.OperationalError."""
        # SQLite has one writer; waiting here is fair, its busy handler is not.
        if not self._writer.acquire(timeout=BUSY_SECONDS):
            raise sqlite3.OperationalError("database is busy")
        try:
            with self.connection() as db:
                row = db.execute(sql, values).lastrowid
                if row is None:
                    raise sqlite3.OperationalError("the insert made no row")
                return row
        finally:
            self._writer.release()

    def start(self, config: Config) -> str:
        """Set the journal mode where that is allowed and return a line for the log.

        A replica must not try: `.primary` in LiteFS's mount and LITEFS_CANDIDATE=false both say that this is one.
        """
        if config.candidate == "false" or Path(self._path).with_name(".primary").exists():
            return "replica: journal mode left alone"
        if not config.journal_mode:
            return "JOURNAL_MODE unset: journal mode left alone"
        try:
            with self.connection() as db:
                mode = use_journal_mode(db, config.journal_mode)
        except sqlite3.Error as error:
            return f"journal mode not set: {error}"
        kept = "" if mode == config.journal_mode else f" ({config.journal_mode} asked; never switched back from {mode})"
        return f"journal mode {mode}{kept}"


# --- Redis ------------------------------------------------------------------------------------------------------------


class RedisError(Exception):
    """Redis is not configured, cannot be reached in time, or refused a command."""


def parse_redis_url(url: str) -> tuple[str, int, str | None, str | None, int]:
    """Split a REDIS_URL into host, port, user, password and database number; raises ValueError."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or 6379
        database = int(parts.path.strip("/") or "0")
    except ValueError as error:
        raise ValueError("REDIS_URL is malformed: use redis://[:password@]host[:port][/db]") from error
    if parts.scheme != "redis" or not parts.hostname:
        raise ValueError("REDIS_URL is malformed: use redis://[:password@]host[:port][/db]")
    user = urllib.parse.unquote(parts.username) if parts.username else None
    password = urllib.parse.unquote(parts.password) if parts.password else None
    return parts.hostname, port, user, password, database


class Redis:
    """A client with one connection. Every command ends within `deadline` seconds, name resolution included.

    A connection that turned out to be dead is opened anew once; after a failure the next second's commands fail at
    once, so that a missing Redis slows nothing down.
    """

    def __init__(self, url: str, deadline: float = 0.5, backoff: float = 1.0) -> None:
        self._target = parse_redis_url(url) if url else None
        self._deadline = deadline
        self._backoff = backoff
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="redis")
        self._stream: BufferedIOBase | None = None
        self._failed_at = float("-inf")

    def command(self, *words: str) -> Any:
        """Run one command: str, int, None or a list of these. Raises RedisError."""
        if self._target is None:
            raise RedisError("REDIS_URL is not set")
        if time.monotonic() - self._failed_at < self._backoff:
            raise RedisError("not reachable a moment ago")
        future = self._worker.submit(self._run, words)
        try:
            return future.result(timeout=self._deadline)
        except RedisError:
            raise
        except concurrent.futures.TimeoutError:
            future.cancel()
            self._failed_at = time.monotonic()
            raise RedisError(f"no answer within {self._deadline:g} s") from None
        except (OSError, ValueError, EOFError) as error:
            self._failed_at = time.monotonic()
            raise RedisError(str(error) or type(error).__name__) from error

    def _run(self, words: tuple[str, ...]) -> Any:
        for fresh in (self._stream is None, True):
            if fresh:
                self._connect()
            try:
                return self._exchange(words)
            except (OSError, ValueError, EOFError):
                self._close()
                if fresh:
                    raise
        raise AssertionError("unreachable")

    def _connect(self) -> None:
        assert self._target is not None
        host, port, user, password, database = self._target
        with socket.create_connection((host, port), timeout=self._deadline) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The file keeps the socket open after this block.
            self._stream = connection.makefile("rwb")
        try:
            if password is not None:
                self._exchange(("AUTH", user, password) if user else ("AUTH", password))
            if database:
                self._exchange(("SELECT", str(database)))
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream = None

    def _exchange(self, words: tuple[str, ...]) -> Any:
        assert self._stream is not None
        encoded = [word.encode() for word in words]
        self._stream.write(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded))
        self._stream.flush()
        return self._reply(self._stream)

    def _reply(self, stream: BufferedIOBase) -> Any:
        line = stream.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("connection closed by Redis")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            data = stream.read(int(rest) + 2)
            if len(data) != int(rest) + 2:
                raise EOFError("connection closed by Redis")
            return data[:-2].decode()
        if kind == b"*":
            return [self._reply(stream) for _ in range(int(rest))]
        raise ValueError(f"unexpected reply from Redis: {line[:40]!r}")


# --- WebSocket --------------------------------------------------------------------------------------------------------


class SocketClosed(Exception):
    """The WebSocket has to be closed with this code (RFC 6455 section 7.4)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def websocket_accept(key: str) -> str:
    """The Sec-WebSocket-Accept value for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1((key + WEBSOCKET_GUID).encode()).digest()).decode()


def websocket_frame(opcode: int, payload: bytes) -> bytes:
    """One final, unmasked frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


def read_frame(stream: BufferedIOBase) -> tuple[bool, int, bytes]:
    """Read one client frame: final, opcode, unmasked payload. Raises SocketClosed, 1006 at the end of the stream."""

    def exactly(size: int) -> bytes:
        data = stream.read(size)
        if len(data) != size:
            raise SocketClosed(1006)
        return data

    first, second = exactly(2)
    size = second & 0x7F
    if first & 0x70 or not second & 0x80:
        raise SocketClosed(1002)
    opcode, final = first & 0x0F, bool(first & 0x80)
    if opcode & 0x8 and (size > 125 or not final):
        raise SocketClosed(1002)
    if size == 126:
        (size,) = struct.unpack("!H", exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", exactly(8))
    if size > BODY_LIMIT:
        raise SocketClosed(1009)
    mask = exactly(4)
    data = exactly(size)
    whole = int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return final, opcode, whole.to_bytes(size, "big")


def echo_frames(reader: BufferedIOBase, send: Callable[[bytes], object]) -> int:
    """Echo text and binary messages and answer pings until the socket closes; returns the code of the closing."""
    kind, message = 0, b""
    while True:
        try:
            final, opcode, data = read_frame(reader)
            if opcode == 0x8:
                code = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1000
                send(websocket_frame(0x8, data[:2]))
                return int(code)
            if opcode == 0x9:
                send(websocket_frame(0xA, data))
            elif opcode in (0x0, 0x1, 0x2):
                # A continuation needs an open message, a new message needs none.
                if (opcode == 0x0) != bool(kind):
                    raise SocketClosed(1002)
                kind, message = kind or opcode, message + data
                if len(message) > BODY_LIMIT:
                    raise SocketClosed(1009)
                if final:
                    if kind == 0x1:
                        try:
                            message.decode()
                        except UnicodeDecodeError:
                            raise SocketClosed(1007) from None
                    send(websocket_frame(kind, message))
                    kind, message = 0, b""
            elif opcode != 0xA:
                raise SocketClosed(1002)
        except SocketClosed as closed:
            if closed.code != 1006:
                send(websocket_frame(0x8, struct.pack("!H", closed.code)))
            return closed.code


# --- HTTP -------------------------------------------------------------------------------------------------------------


class Refusal(Exception):
    """An answer other than success: status and one sentence."""

    def __init__(self, status: int, error: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = headers or {}


class Server(http.server.ThreadingHTTPServer):
    """The HTTP server with what its handlers share."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, config: Config) -> None:
        self.config = config
        self.database = Database(config.database)
        self.redis = Redis(config.redis_url)
        self.draining = False
        self._busy = 0
        self._quiet = threading.Condition()
        self._sockets: set[socket.socket] = set()
        super().__init__((config.host, config.port), Handler)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Count a request as under way, so that `drain` waits for it."""
        with self._quiet:
            self._busy += 1
        try:
            yield
        finally:
            with self._quiet:
                self._busy -= 1
                self._quiet.notify_all()

    @contextlib.contextmanager
    def open_socket(self, connection: socket.socket) -> Iterator[None]:
        """Turn the request under way into a WebSocket: `drain` tells its client, and does not wait long for it."""
        with self._quiet:
            self._sockets.add(connection)
            self._busy -= 1
            self._quiet.notify_all()
        try:
            yield
        finally:
            with self._quiet:
                self._sockets.discard(connection)
                self._busy += 1
                self._quiet.notify_all()

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Take no new connection, tell the WebSockets, and wait for the requests under way, at most so long."""
        self.draining = True
        self.shutdown()
        self.server_close()
        with self._quiet:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.send(websocket_frame(0x8, struct.pack("!H", 1001)), socket.MSG_DONTWAIT)
            self._quiet.wait_for(lambda: self._busy == 0, timeout=seconds)
            self._quiet.wait_for(lambda: not self._sockets and self._busy == 0, timeout=0.5)

    def server_bind(self) -> None:
        """As the base class, without its look-up of the host's name: that can take as long as a broken DNS likes."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.config.host, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection. Answers are JSON, but for the page; every answer names the pod in `X-Pod`."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "abaci-sample"
    sys_version = ""
    timeout = 120
    disable_nagle_algorithm = True
    wbufsize = -1  # header and body in one packet

    def handle_one_request(self) -> None:
        """As the base class, but any method is passed on: routing, not this, knows what exists."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
            return
        if len(self.raw_requestline) > 65536:
            self.requestline, self.request_version, self.command = "", "", ""
            self.send_error(414)
            return
        if not self.parse_request():
            return
        with self.server.working():
            started = time.monotonic()
            self.status = 0
            path, _, query = self.path.partition("?")
            self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
            try:
                body = self.read_body()
                if not self.route(path, body):
                    return
            except Refusal as refusal:
                self.answer(refusal.status, {"error": refusal.error}, refusal.headers)
            except sqlite3.Error as error:
                # A replica says READONLY in DELETE mode and IOERR in WAL mode; a busy or full database is no better.
                self.answer(503, {"error": f"database: {error}"}, {"Retry-After": "1"})
            except RedisError as error:
                self.answer(503, {"error": f"redis: {error}"}, {"Retry-After": "1"})
            except (ConnectionError, TimeoutError):
                raise
            except Exception as error:
                log(f"error in {self.command} {path}: {type(error).__name__}: {error}")
                self.answer(500, {"error": "internal error"})
            self.wfile.flush()
            client = self.headers.get("X-Forwarded-For", self.client_address[0])
            took = (time.monotonic() - started) * 1000
            log(f"{self.command} {path} {self.status} {took:.1f}ms client={client}")

    def route(self, path: str, body: bytes) -> bool:
        """Answer the request; False when the connection became a WebSocket and is over."""
        if path == SOCKET_PATH or path.startswith(SOCKET_PATH + "/"):
            return self.upgrade()
        routes = ROUTES.get(path)
        if routes is None:
            raise Refusal(404, "no such path")
        name = routes.get(self.command)
        if name is None:
            raise Refusal(405, f"method {self.command} is not allowed here", {"Allow": ", ".join(routes)})
        getattr(self, name)(body)
        return True

    # Reading and writing

    def read_body(self) -> bytes:
        """The request's body, by Content-Length or chunks; Refusal when it is too big or malformed."""
        length = self.headers.get("Content-Length")
        if "Transfer-Encoding" in self.headers:
            if self.headers["Transfer-Encoding"].lower() != "chunked" or length is not None:
                self.close_connection = True
                raise Refusal(400, "malformed body length")
            return self.read_chunks()
        if length is None:
            return b""
        if not length.isdigit():
            self.close_connection = True
            raise Refusal(400, "malformed body length")
        if int(length) > BODY_LIMIT:
            self.close_connection = True
            raise Refusal(413, f"the body is over {BODY_LIMIT} bytes")
        self.expect_more()
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            raise ConnectionError("the client went away in the middle of a body")
        return body

    def read_chunks(self) -> bytes:
        """A chunked body without its trailers."""
        self.expect_more()
        body = b""
        while True:
            line = self.rfile.readline(1024)
            size = re.fullmatch(rb"([0-9a-fA-F]{1,8})(;[^\r\n]*)?\r\n", line)
            if size is None:
                self.close_connection = True
                raise Refusal(400, "malformed chunk")
            count = int(size[1], 16)
            if len(body) + count > BODY_LIMIT:
                self.close_connection = True
                raise Refusal(413, f"the body is over {BODY_LIMIT} bytes")
            if count == 0:
                while self.rfile.readline(65537) not in (b"\r\n", b""):
                    pass
                return body
            body += self.rfile.read(count)
            self.rfile.readline(3)

    def handle_expect_100(self) -> bool:
        """Put off until the body is wanted, so that a refused request costs no upload."""
        return True

    def expect_more(self) -> None:
        """Send 100 Continue to a client that waits for it."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()

    def answer(self, status: int, content: dict[str, Any] | str, headers: dict[str, str] | None = None) -> None:
        """Send JSON, or a page when the content is text."""
        if isinstance(content, dict):
            if status >= 400:
                content = {**content, "pod": self.server.config.pod}
            kind, data = "application/json", json.dumps(content).encode() + b"\n"
        else:
            kind, data = "text/html; charset=utf-8", content.encode()
        self.status = status
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Pod", self.server.config.pod)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.server.draining:
            self.close_connection = True
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """What the base class reports, on stdout like everything else."""
        log(format % args)

    # Endpoints

    def page(self, _body: bytes) -> None:
        """The page: version and pod."""
        config = self.server.config
        version, pod = html.escape(config.version), html.escape(config.pod)
        self.answer(
            200,
            "<!doctype html>\n<html lang=en><meta charset=utf-8><title>abaci sample</title>\n"
            f"<h1>abaci sample</h1>\n<p>version <b>{version}</b>, served by <b>{pod}</b></p>\n",
        )

    def health(self, _body: bytes) -> None:
        """healthy or degraded (no Redis): 200; unhealthy (no database): 503."""
        report: dict[str, Any] = {"status": "healthy"}
        started = time.monotonic()
        try:
            self.server.redis.command("PING")
            report["redis"] = {"ok": True, "latency_ms": milliseconds_since(started)}
        except RedisError as error:
            report["status"] = "degraded"
            report["redis"] = {"ok": False, "error": str(error)}
        started = time.monotonic()
        try:
            # `SELECT 1` alone would not touch the file.
            self.server.database.read("SELECT 1 FROM sqlite_master LIMIT 1")
            report["database"] = {"ok": True, "latency_ms": milliseconds_since(started)}
        except sqlite3.Error as error:
            report["status"] = "unhealthy"
            report["database"] = {"ok": False, "error": str(error)}
        config = self.server.config
        report |= {"version": config.version, "commit": config.commit, "pod": config.pod}
        self.answer(503 if report["status"] == "unhealthy" else 200, report)

    def add_record(self, body: bytes) -> None:
        """Store a record; 201 with its id after the commit."""
        try:
            record = json.loads(body)["body"]
        except (ValueError, TypeError, LookupError):
            raise Refusal(400, 'send JSON {"body": "..."}') from None
        if not isinstance(record, str) or len(record.encode("utf-8", "surrogatepass")) > RECORD_LIMIT:
            raise Refusal(400, f"body must be text of at most {RECORD_LIMIT} bytes")
        try:
            record.encode()
        except UnicodeEncodeError:
            raise Refusal(400, "body is not valid Unicode") from None
        self.answer(201, {"id": self.server.database.insert("INSERT INTO records (body) VALUES (?)", record)})

    def list_records(self, _body: bytes) -> None:
        """The records whose id is over `after`, in order, at most `limit`."""
        after = self.number("after", 0, (1 << 63) - 1)
        limit = self.number("limit", 100, LIST_LIMIT)
        rows = self.server.database.read("SELECT id, body FROM records WHERE id > ? ORDER BY id LIMIT ?", after, limit)
        self.answer(200, {"records": [{"id": row[0], "body": row[1]} for row in rows], "pod": self.server.config.pod})

    def count_records(self, _body: bytes) -> None:
        """How many records this pod sees."""
        (count,) = self.server.database.read("SELECT count(*) FROM records")[0]
        self.answer(200, {"count": count, "pod": self.server.config.pod})

    def callback(self, _body: bytes) -> None:
        """A GET that writes, as Auth.js's callbacks do: a row in `users` for each call."""
        user = self.query.get("user", "")
        if not 0 < len(user) <= 200:
            raise Refusal(400, "user must be 1 to 200 characters")
        self.answer(200, {"id": self.server.database.insert("INSERT INTO users (name) VALUES (?)", user)})

    def read_session(self, _body: bytes) -> None:
        """The counter of the caller's session, 0 without one."""
        token = self.session_token()
        counter = self.server.redis.command("GET", f"session:{token}") if token else None
        self.answer(200, {"counter": int(counter or 0)})

    def count_session(self, _body: bytes) -> None:
        """Add one to the counter of the caller's session, which this makes when there is none."""
        token = self.session_token() or secrets.token_urlsafe(24)
        counter = self.server.redis.command("INCR", f"session:{token}")
        self.server.redis.command("EXPIRE", f"session:{token}", str(SESSION_SECONDS))
        cookie = f"session={token}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Lax"
        self.answer(200, {"counter": counter}, {"Set-Cookie": cookie})

    def session_token(self) -> str | None:
        """The session cookie, if it looks like one of ours."""
        try:
            morsel = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        except CookieError:
            return None
        return morsel.value if morsel and re.fullmatch(r"[A-Za-z0-9_-]{32}", morsel.value) else None

    def number(self, name: str, default: int, highest: int) -> int:
        """A whole number of the query string, 0 to `highest`."""
        text = self.query.get(name, str(default))
        if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > highest:
            raise Refusal(400, f"{name} must be a number from 0 to {highest}")
        return int(text)

    def upgrade(self) -> bool:
        """Become a WebSocket that echoes. True when the request was refused instead."""
        if self.command != "GET":
            raise Refusal(405, f"method {self.command} is not allowed here", {"Allow": "GET"})
        key = self.headers.get("Sec-WebSocket-Key", "")
        tokens = {token.strip().lower() for token in self.headers.get("Connection", "").split(",")}
        if self.headers.get("Upgrade", "").lower() != "websocket" or "upgrade" not in tokens:
            raise Refusal(426, "this path speaks WebSocket", {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
        if self.headers.get("Sec-WebSocket-Version") != "13":
            raise Refusal(426, "WebSocket version 13 is spoken here", {"Sec-WebSocket-Version": "13"})
        if not re.fullmatch(r"[A-Za-z0-9+/]{22}==", key):
            raise Refusal(400, "Sec-WebSocket-Key is malformed")
        self.close_connection = True
        self.send_response_only(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", websocket_accept(key))
        self.send_header("X-Pod", self.server.config.pod)
        self.end_headers()
        self.wfile.flush()
        log(f"socket open {self.path} client={self.client_address[0]}")
        # No time limit: a quiet socket is not a dead one.
        self.connection.settimeout(None)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with self.server.open_socket(self.connection):
            code = echo_frames(self.rfile, self.connection.sendall)
        log(f"socket closed {self.path} code={code}")
        return False


ROUTES: dict[str, dict[str, str]] = {
    "/": {"GET": "page", "HEAD": "page"},
    "/api/health": {"GET": "health", "HEAD": "health"},
    "/api/records": {"GET": "list_records", "HEAD": "list_records", "POST": "add_record"},
    "/api/records/count": {"GET": "count_records", "HEAD": "count_records"},
    "/api/auth/callback": {"GET": "callback"},
    "/api/guest": {"GET": "callback"},  # the same where nobody has said that it writes
    "/api/session": {"GET": "read_session", "HEAD": "read_session", "PUT": "count_session"},
}


def milliseconds_since(started: float) -> float:
    """Milliseconds since a time.monotonic(), to two places."""
    return round((time.monotonic() - started) * 1000, 2)


def log(line: str) -> None:
    """One line on stdout."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stdout.write(f"{stamp} {line}\n")
    sys.stdout.flush()


def main() -> int:
    """Serve until SIGTERM or SIGINT; 0 then, 1 with a sentence when it cannot start."""
    try:
        config = read_config(dict(os.environ), Path(__file__).resolve().parent)
        server = Server(config)
    except (ValueError, OSError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log(server.database.start(config))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    log(f"version {config.version} on {config.pod} listening on {config.host}:{server.server_address[1]}")
    stop.wait()
    log("stopping: finishing the requests under way")
    server.drain()
    log("stopped")
    # Idle keep-alive connections and a Redis call without an answer must not hold the exit up.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

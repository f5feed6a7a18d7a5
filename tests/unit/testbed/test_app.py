"""The sample application on loopback, against a plain SQLite file."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import socketserver
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

APP = Path(__file__).resolve().parents[3] / "testbed" / "app"
sys.path.insert(0, str(APP))

import migrate  # noqa: E402
import server  # noqa: E402


class FakeRedis(socketserver.ThreadingTCPServer):
    """The five commands that the application uses, over RESP. `mute` takes commands and answers none."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, password: str = "", port: int = 0) -> None:
        self.password = password
        self.mute = False
        self.values: dict[str, int] = {}
        self.connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), FakeRedisHandler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        auth = f":{self.password}@" if self.password else ""
        return f"redis://{auth}127.0.0.1:{self.server_address[1]}"

    def drop_connections(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.drop_connections()


class FakeRedisHandler(socketserver.StreamRequestHandler):
    server: FakeRedis

    def handle(self) -> None:
        self.server.connections.append(self.connection)
        welcome = not self.server.password
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int(self.rfile.readline()[1:])
                    words.append(self.rfile.read(size + 2)[:-2].decode())
                if self.server.mute:
                    continue
                if words[0] == "AUTH":
                    welcome = words[1] == self.server.password
                    reply = "+OK" if welcome else "-WRONGPASS invalid username-password pair"
                elif not welcome:
                    reply = "-NOAUTH Authentication required."
                elif words[0] == "PING":
                    reply = "+PONG"
                elif words[0] == "INCR":
                    self.server.values[words[1]] = self.server.values.get(words[1], 0) + 1
                    reply = f":{self.server.values[words[1]]}"
                elif words[0] == "GET":
                    value = self.server.values.get(words[1])
                    reply = "$-1" if value is None else f"${len(str(value))}\r\n{value}"
                else:
                    reply = ":1"
                self.wfile.write(reply.encode() + b"\r\n")


class Site:
    """A running application and a client for it."""

    def __init__(self, config: server.Config) -> None:
        self.server = server.Server(config)
        self.port = int(self.server.server_address[1])
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            # A server that refuses a body before it has all of it closes while the client still sends.
            with contextlib.suppress(BrokenPipeError):
                connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
            names = dict(response.getheaders())
            is_json = names.get("Content-Type") == "application/json" and data
            return response.status, names, json.loads(data) if is_json else data
        finally:
            connection.close()

    def post(self, body: object) -> tuple[int, dict[str, str], Any]:
        return self.request("POST", "/api/records", json.dumps({"body": body}).encode())

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def site_for(path: Path, **settings: Any) -> Iterator[Site]:
    config = server.Config(
        database=str(path), host="127.0.0.1", port=0, pod="abaci-app-1", version="1.2.3", commit="abc", **settings
    )
    site = Site(config)
    try:
        yield site
    finally:
        site.stop()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "sqlite.db"
    migrate.migrate(str(path))
    return path


@pytest.fixture
def site(database: Path) -> Iterator[Site]:
    with site_for(database) as running:
        yield running


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


# Page, health


def test_page_shows_version_and_pod(site: Site) -> None:
    status, headers, page = site.request("GET", "/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert headers["X-Pod"] == "abaci-app-1"
    assert b"1.2.3" in page and b"abaci-app-1" in page


def test_health_is_healthy_with_database_and_redis(database: Path) -> None:
    redis = FakeRedis("s3cret")
    with site_for(database, redis_url=redis.url) as site:
        status, _, report = site.request("GET", "/api/health")
    redis.stop()
    assert (status, report["status"]) == (200, "healthy")
    assert report["database"]["ok"] and report["database"]["latency_ms"] >= 0
    assert report["redis"]["ok"] and report["redis"]["latency_ms"] >= 0
    assert (report["commit"], report["version"], report["pod"]) == ("abc", "1.2.3", "abaci-app-1")


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1"], ids=["not configured", "refused"])
def test_health_without_redis_is_degraded_and_still_200(database: Path, url: str) -> None:
    with site_for(database, redis_url=url) as site:
        status, _, report = site.request("GET", "/api/health")
    assert (status, report["status"]) == (200, "degraded")
    assert report["database"]["ok"] and not report["redis"]["ok"]


def test_health_of_a_wrong_redis_password_is_degraded_and_shows_no_password(database: Path) -> None:
    redis = FakeRedis("right")
    with site_for(database, redis_url=redis.url.replace("right", "wrong")) as site:
        status, _, report = site.request("GET", "/api/health")
    redis.stop()
    assert (status, report["status"]) == (200, "degraded")
    assert report["redis"]["error"].startswith("WRONGPASS")
    assert "wrong" not in json.dumps(report)


def test_health_with_a_silent_redis_answers_within_a_second(database: Path) -> None:
    redis = FakeRedis()
    redis.mute = True
    with site_for(database, redis_url=redis.url) as site:
        started = time.monotonic()
        status, _, report = site.request("GET", "/api/health")
        assert time.monotonic() - started < 1
    redis.stop()
    assert (status, report["status"]) == (200, "degraded")


def test_health_without_a_database_is_unhealthy_and_makes_none(tmp_path: Path) -> None:
    with site_for(tmp_path / "sqlite.db") as site:
        status, _, report = site.request("GET", "/api/health")
    assert (status, report["status"]) == (503, "unhealthy")
    assert not (tmp_path / "sqlite.db").exists()


def test_health_of_a_damaged_database_is_unhealthy(tmp_path: Path) -> None:
    (tmp_path / "sqlite.db").write_bytes(b"not a database" * 100)
    with site_for(tmp_path / "sqlite.db") as site:
        status, _, report = site.request("GET", "/api/health")
    assert (status, report["status"]) == (503, "unhealthy")


def test_health_recovers_when_redis_comes_back(database: Path) -> None:
    redis = FakeRedis()
    port = int(redis.server_address[1])
    redis.stop()
    with site_for(database, redis_url=f"redis://127.0.0.1:{port}") as site:
        assert site.request("GET", "/api/health")[2]["status"] == "degraded"
        redis = FakeRedis(port=port)
        deadline = time.monotonic() + 3
        while site.request("GET", "/api/health")[2]["status"] != "healthy":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    redis.stop()


# Records, users


def test_record_is_committed_when_201_arrives(site: Site, database: Path) -> None:
    status, _, answer = site.post("hello")
    assert (status, answer) == (201, {"id": 1})
    assert rows(database, "SELECT id, body FROM records") == [(1, "hello")]


def test_records_are_listed_after_an_id_up_to_a_limit(site: Site) -> None:
    for number in range(1, 6):
        assert site.post(f"r{number}")[2] == {"id": number}
    status, _, answer = site.request("GET", "/api/records?after=1&limit=2")
    assert (status, answer["records"]) == (200, [{"id": 2, "body": "r2"}, {"id": 3, "body": "r3"}])
    assert len(site.request("GET", "/api/records")[2]["records"]) == 5
    assert site.request("GET", "/api/records/count")[2] == {"count": 5, "pod": "abaci-app-1"}


def test_many_writers_at_once_lose_nothing(site: Site, database: Path) -> None:
    ids: list[int] = []

    def write() -> None:
        for _ in range(20):
            status, _, answer = site.post("x")
            assert status == 201
            ids.append(answer["id"])

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids) == list(range(1, 161))
    assert rows(database, "SELECT count(*) FROM records") == [(160,)]


def test_get_that_writes_adds_a_user(site: Site, database: Path) -> None:
    assert site.request("GET", "/api/auth/callback?user=ann%20b")[::2] == (200, {"id": 1})
    assert site.request("GET", "/api/auth/callback?user=x")[2] == {"id": 2}
    assert rows(database, "SELECT name FROM users ORDER BY id") == [("ann b",), ("x",)]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/records", b"", 400),
        ("POST", "/api/records", b"[1]", 400),
        ("POST", "/api/records", b'{"body": 5}', 400),
        ("POST", "/api/records", b'{"body": "\\ud800"}', 400),
        ("POST", "/api/records", b'{"body": "' + b"x" * 70000 + b'"}', 400),
        ("POST", "/api/records", b"x" * ((1 << 20) + 1), 413),
        ("GET", "/api/records?after=-1", None, 400),
        ("GET", "/api/records?limit=1001", None, 400),
        ("GET", "/api/records?after=99999999999999999999", None, 400),
        ("GET", "/api/auth/callback", None, 400),
        ("GET", "/.well-known/abaci-infra", None, 404),
        ("POST", "/.well-known/abaci-infra", b'{"body": "x"}', 404),
        ("PUT", "/.well-known/abaci-infra", b"x", 404),
        ("DELETE", "/.well-known/abaci-infra", None, 404),
        ("OPTIONS", "/.well-known/abaci-infra", None, 404),
        ("BREW", "/nowhere", None, 404),
        ("DELETE", "/api/records", None, 405),
        ("OPTIONS", "/api/records", None, 405),
        ("POST", "/api/auth/callback?user=x", b"", 405),
        ("HEAD", "/api/auth/callback?user=x", None, 405),
        ("POST", "/api/socket", b"", 405),
        ("GET", "/api/socket", None, 426),
    ],
)
def test_refused_requests_write_nothing(
    site: Site, database: Path, method: str, path: str, body: bytes | None, status: int
) -> None:
    answered, headers, answer = site.request(method, path, body)
    assert answered == status
    assert headers["Content-Type"] == "application/json"
    if method != "HEAD":
        assert answer["error"] and answer["pod"] == "abaci-app-1"
    if status == 405:
        assert headers["Allow"]
    assert rows(database, "SELECT (SELECT count(*) FROM records) + (SELECT count(*) FROM users)") == [(0,)]


def test_head_sends_no_body_and_the_connection_goes_on(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
    for _ in range(2):
        connection.request("HEAD", "/api/records/count")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
    connection.request("POST", "/nowhere", b"x" * 5000)
    response = connection.getresponse()
    assert response.status == 404
    response.read()
    connection.request("GET", "/api/records/count")
    assert json.loads(connection.getresponse().read())["count"] == 0
    connection.close()


def test_chunked_body_is_read(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
    connection.request(
        "POST",
        "/api/records",
        iter([b'{"body":', b' "in parts"}']),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert connection.getresponse().status == 201
    connection.close()
    assert site.request("GET", "/api/records")[2]["records"] == [{"id": 1, "body": "in parts"}]


def test_expect_100_continue_is_answered(site: Site) -> None:
    body = b'{"body": "later"}'
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as client:
        client.sendall(
            b"POST /api/records HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(body)
        assert client.recv(100).startswith(b"HTTP/1.1 201")


# A replica


def test_write_on_a_read_only_database_is_503_json_and_never_2xx(database: Path) -> None:
    with site_for(database) as site:
        # root ignores a file's mode, so the read-only state is made inside SQLite.
        with site.server.database.connection() as db:
            db.execute("PRAGMA query_only=ON")
        status, headers, answer = site.post("lost?")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "readonly" in answer["error"]
        assert headers["Content-Type"] == "application/json"
        # The failed connection is gone: nothing stays open, and a database that became writable is written.
        assert site.post("after")[0] == 201
    assert rows(database, "SELECT body FROM records") == [("after",)]


def test_get_that_writes_on_a_read_only_database_is_503(database: Path) -> None:
    with site_for(database) as site:
        with site.server.database.connection() as db:
            db.execute("PRAGMA query_only=ON")
        assert site.request("GET", "/api/auth/callback?user=x")[0] == 503
    assert rows(database, "SELECT count(*) FROM users") == [(0,)]


def test_locked_database_is_503_and_no_transaction_stays_open(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BUSY_SECONDS", 0.2)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other, site_for(database) as site:
        other.execute("BEGIN EXCLUSIVE")
        assert site.post("x")[0] == 503
        other.execute("COMMIT")
        assert site.post("y")[0] == 201
        other.execute("BEGIN EXCLUSIVE")  # nobody holds a lock
        other.execute("COMMIT")


@pytest.mark.parametrize(
    ("candidate", "primary_file", "expected"),
    [("true", False, "wal"), ("", False, "wal"), ("false", False, "delete"), ("true", True, "delete")],
)
def test_journal_mode_is_set_on_the_primary_only(
    database: Path, candidate: str, primary_file: bool, expected: str
) -> None:
    if primary_file:
        (database.parent / ".primary").write_text("abaci-app-0")
    config = server.Config(database=str(database), journal_mode="wal", candidate=candidate)
    server.Database(str(database)).start(config)
    assert rows(database, "PRAGMA journal_mode") == [(expected,)]


def test_wal_is_never_switched_back_to_delete_because_that_kills_replicas(tmp_path: Path) -> None:
    path = tmp_path / "sqlite.db"
    migrate.migrate(str(path), "wal")
    line = server.Database(str(path)).start(server.Config(database=str(path), journal_mode="delete", candidate="true"))
    assert "never switched back" in line
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


# Sessions


def test_session_counts_over_two_pods(database: Path) -> None:
    redis = FakeRedis("pw")
    with site_for(database, redis_url=redis.url) as one, site_for(database, redis_url=redis.url) as two:
        status, headers, answer = one.request("PUT", "/api/session")
        assert (status, answer["counter"]) == (200, 1)
        assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Lax" in headers["Set-Cookie"]
        cookie = {"Cookie": headers["Set-Cookie"].split(";")[0]}
        assert two.request("PUT", "/api/session", None, cookie)[2]["counter"] == 2
        assert one.request("GET", "/api/session", None, cookie)[2]["counter"] == 2
        assert one.request("GET", "/api/session")[2]["counter"] == 0
        assert one.request("GET", "/api/session", None, {"Cookie": "session=forged*"})[2]["counter"] == 0
    redis.stop()


def test_session_survives_a_dropped_redis_connection(database: Path) -> None:
    redis = FakeRedis()
    with site_for(database, redis_url=redis.url) as site:
        assert site.request("PUT", "/api/session")[0] == 200
        redis.drop_connections()
        time.sleep(0.05)
        assert site.request("PUT", "/api/session")[0] == 200
    redis.stop()


def test_session_without_redis_is_503(site: Site) -> None:
    assert site.request("PUT", "/api/session")[0] == 503


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis:6379", ("redis", 6379, None, None, 0)),
        ("redis://redis", ("redis", 6379, None, None, 0)),
        ("redis://:p%40ss@redis:6380/2", ("redis", 6380, None, "p@ss", 2)),
        ("redis://ann:pw@redis", ("redis", 6379, "ann", "pw", 0)),
    ],
)
def test_redis_url_is_split(url: str, expected: tuple[object, ...]) -> None:
    assert server.parse_redis_url(url) == expected


@pytest.mark.parametrize("url", ["redis", "http://redis", "redis://", "redis://:s3cret@redis:port", "redis://r/x"])
def test_malformed_redis_url_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="REDIS_URL") as error:
        server.parse_redis_url(url)
    assert "s3cret" not in str(error.value)


# WebSocket


class Client:
    """A WebSocket client that can also send what it should not."""

    def __init__(self, port: int, path: str = "/api/socket", **changes: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        headers = {
            "Host": "abaci.localhost",
            "Upgrade": "websocket",
            "Connection": "keep-alive, Upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
        } | {name.replace("_", "-"): value for name, value in changes.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.socket.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        self.reader = self.socket.makefile("rb")
        self.status = int(self.reader.readline().split()[1])
        self.headers = {}
        while (line := self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            self.headers[name] = value.strip()

    def send(self, opcode: int, data: bytes, final: bool = True, masked: bool = True, reserved: int = 0) -> None:
        mask = os.urandom(4)
        size = len(data)
        bit = 0x80 if masked else 0
        if size < 126:
            head = struct.pack("!BB", final << 7 | reserved | opcode, bit | size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", final << 7 | reserved | opcode, bit | 126, size)
        else:
            head = struct.pack("!BBQ", final << 7 | reserved | opcode, bit | 127, size)
        if masked:
            head += mask
            data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self.socket.sendall(head + data)

    def receive(self) -> tuple[int, bytes]:
        first, second = self.reader.read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.reader.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.reader.read(8))
        assert first & 0x80 and not second & 0x80
        return first & 0x0F, self.reader.read(size)

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    client = Client(site.port)
    yield client
    client.close()


def test_upgrade_answers_101_with_the_accept_value_of_the_rfc(client: Client) -> None:
    assert client.status == 101
    assert client.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert client.headers["X-Pod"] == "abaci-app-1"


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536, 300000])
def test_socket_echoes_every_length(client: Client, size: int) -> None:
    data = os.urandom(size)
    client.send(0x2, data)
    assert client.receive() == (0x2, data)
    client.send(0x1, b"a" * size)
    assert client.receive() == (0x1, b"a" * size)


def test_socket_answers_a_ping_between_the_parts_of_a_message(client: Client) -> None:
    client.send(0x1, "grü".encode()[:3], final=False)
    client.send(0x9, b"are you there")
    assert client.receive() == (0xA, b"are you there")
    client.send(0xA, b"unasked pong")
    client.send(0x0, "grü".encode()[3:])
    assert client.receive() == (0x1, "grü".encode())


def test_socket_echoes_the_close_code(client: Client) -> None:
    client.send(0x8, struct.pack("!H", 1000) + b"bye")
    assert client.receive() == (0x8, struct.pack("!H", 1000))
    assert client.reader.read(1) == b""


@pytest.mark.parametrize(
    ("opcode", "data", "options", "code"),
    [
        (0x1, b"x", {"masked": False}, 1002),
        (0x1, b"x", {"reserved": 0x40}, 1002),
        (0x3, b"x", {}, 1002),
        (0x0, b"x", {}, 1002),
        (0x9, b"x" * 126, {}, 1002),
        (0x9, b"x", {"final": False}, 1002),
        (0x1, b"\xff", {}, 1007),
        (0x2, b"x" * ((1 << 20) + 1), {}, 1009),
    ],
)
def test_socket_closes_on_a_broken_frame(
    client: Client, opcode: int, data: bytes, options: dict[str, Any], code: int
) -> None:
    with contextlib.suppress(ConnectionError):
        client.send(opcode, data, **options)
    assert client.receive() == (0x8, struct.pack("!H", code))


def test_socket_under_a_longer_path_and_not_under_a_longer_name(site: Site) -> None:
    for path, status in (("/api/socket/?EIO=4", 101), ("/api/socketry", 404)):
        client = Client(site.port, path)
        assert client.status == status
        client.close()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Upgrade": "h2c"}, 426),
        ({"Connection": "keep-alive"}, 426),
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Key": base64.b64encode(b"short").decode()}, 400),
    ],
)
def test_malformed_upgrade_is_refused(site: Site, changes: dict[str, str], status: int) -> None:
    client = Client(site.port, **changes)
    assert client.status == status
    client.close()


# Start and stop


def start_process(database: Path, *command: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": str(database), "POD_NAME": "abaci-app-0"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_sigterm_finishes_the_request_tells_sockets_and_exits_0_fast(database: Path) -> None:
    port = free_port()
    process = start_process(database, sys.executable, str(APP / "server.py"), PORT=str(port), JOURNAL_MODE="wal")
    assert process.stdout
    while "listening" not in process.stdout.readline():
        assert process.poll() is None
    websocket = Client(port)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # holds the POST up
        post = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        post.request("POST", "/api/records", b'{"body": "in time"}')
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert websocket.receive() == (0x8, struct.pack("!H", 1001))
        websocket.send(0x8, struct.pack("!H", 1001))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
        other.execute("COMMIT")
    response = post.getresponse()
    assert (response.status, response.getheader("Connection")) == (201, "close")
    assert process.wait(5) == 0
    assert time.monotonic() - started < 2
    assert "POST /api/records 201" in process.stdout.read()
    assert rows(database, "SELECT body FROM records") == [("in time",)]


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({}, "DATABASE_URL"),
        ({"DATABASE_URL": "/x", "JOURNAL_MODE": "truncate"}, "JOURNAL_MODE"),
        ({"DATABASE_URL": "/x", "PORT": "http"}, "PORT"),
        ({"DATABASE_URL": "/x", "REDIS_URL": "redis"}, "REDIS_URL"),
    ],
)
def test_wrong_environment_is_named(tmp_path: Path, env: dict[str, str], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        server.read_config(env, tmp_path)


def test_version_is_the_variable_else_the_file_else_dev(tmp_path: Path) -> None:
    env = {"DATABASE_URL": "/litefs/sqlite.db", "POD_NAME": "abaci-app-2"}
    assert server.read_config(env, tmp_path).version == "dev"
    (tmp_path / "VERSION").write_text("7\n")
    assert server.read_config(env, tmp_path).version == "7"
    config = server.read_config(env | {"APP_VERSION": "8"}, tmp_path)
    assert (config.version, config.port, config.host, config.pod) == ("8", 3000, "0.0.0.0", "abaci-app-2")


# Migration


def test_migration_makes_the_tables_and_a_second_one_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sqlite.db"
    assert migrate.migrate(str(path), "delete") == (0, 1)
    before = path.read_bytes()
    assert migrate.migrate(str(path), "delete") == (1, 1)
    assert path.read_bytes() == before
    assert rows(path, "SELECT name FROM sqlite_master WHERE name IN ('users', 'records') ORDER BY 1") == [
        ("records",),
        ("users",),
    ]


def test_migration_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "sqlite.db"
    assert migrate.migrate(str(path), "wal") == (0, 1)
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_failed_step_leaves_the_version_before_it(database: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        migrate.migrate(str(database), steps=(*migrate.STEPS, ("CREATE TABLE more (id)", "NONSENSE")))
    assert rows(database, "PRAGMA user_version") == [(1,)]
    assert rows(database, "SELECT count(*) FROM sqlite_master WHERE name = 'more'") == [(0,)]


def test_newer_schema_is_refused(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA user_version=9")
    process = start_process(database, sys.executable, str(APP / "migrate.py"))
    assert process.wait(10) == 1
    assert process.stdout and "schema version 9" in process.stdout.read()


def test_migration_process_says_what_it_did(tmp_path: Path) -> None:
    for expected in ("version 0 -> 1", "version 1"):
        process = start_process(tmp_path / "sqlite.db", sys.executable, str(APP / "migrate.py"), JOURNAL_MODE="delete")
        assert process.wait(10) == 0
        assert process.stdout and process.stdout.read().strip().endswith(expected)

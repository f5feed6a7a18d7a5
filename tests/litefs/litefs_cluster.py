"""Real LiteFS nodes on loopback, with a static lease, over FUSE."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "testbed" / "app"
DATABASE = "sqlite.db"
SAFE_CANDIDATE = '${POD_NAME == "abaci-app-0"}'
SERVER = f"env LITEFS_CANDIDATE={SAFE_CANDIDATE} {sys.executable} {APP}/server.py"
MIGRATE = f"{sys.executable} {APP}/migrate.py"


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; below the range from which the kernel takes those of clients."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(15000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports += [port] if port not in ports else []
    return ports


def until(condition: Callable[[], Any], seconds: float = 10.0, what: str = "") -> Any:
    """Poll until the condition holds and return its value; an assertion error after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except (OSError, http.client.HTTPException, sqlite3.Error, LookupError, ValueError) as error:
            last = f"{type(error).__name__}: {error}"
        else:
            last = ""
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition} {last}"
        time.sleep(0.03)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    host: str = "127.0.0.1",
) -> Answer:
    """One request on its own connection; header names of the answer are in lower case."""
    connection = http.client.HTTPConnection(host, port, timeout=15)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@dataclass
class Settings:
    """What differs from the configuration of our role."""

    candidate: str = SAFE_CANDIDATE
    exec: list[tuple[str, bool]] = field(default_factory=list)
    proxy: dict[str, str] = field(default_factory=dict)
    # LiteFS's own is 1 s; the tests would mostly wait for it.
    reconnect_delay: str = "200ms"
    # As LiteFS has it; that of our role is false.
    compress: bool = True
    extra: str = ""
    env: dict[str, str] = field(default_factory=dict)


class Node:
    """One LiteFS process with its volume; the application listens on `app` if the exec list starts one."""

    def __init__(self, binary: Path, root: Path, ordinal: int) -> None:
        self.name = f"abaci-app-{ordinal}"
        self.binary = binary
        self.root = root / self.name
        self.data = self.root / "data"
        self.mount = self.root / "mount"
        self.log_file = self.root / "log"
        self.config_file = self.root / "litefs.yml"
        self.host = "127.0.0.1"
        self.api, self.proxy, self.app = free_ports(3)
        self.primary: Node = self
        self.settings = Settings()
        self.process: subprocess.Popen[bytes] | None = None
        for folder in (self.data, self.mount):
            folder.mkdir(parents=True)

    # Running

    def config(self) -> str:
        """litefs.yml."""
        proxy = {"addr": f"127.0.0.1:{self.proxy}", "target": f"127.0.0.1:{self.app}", "db": DATABASE}
        lines = [
            f"fuse: {{dir: {self.mount}}}",
            f"data: {{dir: {self.data}, compress: {str(self.settings.compress).lower()}}}",
            f"http: {{addr: '{self.host}:{self.api}'}}",
            "proxy:",
            *(f"  {key}: {value}" for key, value in (proxy | self.settings.proxy).items()),
            "lease:",
            "  type: static",
            f"  candidate: {self.settings.candidate}",
            f"  hostname: {self.primary.name}",
            f"  advertise-url: http://{self.primary.host}:{self.primary.api}",
            f"  reconnect-delay: {self.settings.reconnect_delay}",
            self.settings.extra,
        ]
        if self.settings.exec:
            lines.append("exec:")
            for command, if_candidate in self.settings.exec:
                lines += [f"  - cmd: {json.dumps(command)}" if "${" not in command else f"  - cmd: '{command}'"]
                lines += ["    if-candidate: true"] if if_candidate else []
        return "\n".join(lines) + "\n"

    def launch(self, config: str | None = None) -> None:
        """Start LiteFS and do not wait."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} is running"
        self.config_file.write_text(self.config() if config is None else config)
        env = {
            "PATH": os.environ["PATH"],
            "POD_NAME": self.name,
            "PORT": str(self.app),
            "DATABASE_URL": str(self.mount / DATABASE),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [self.binary, "mount", "-config", self.config_file],
                env=env | self.settings.env,
                cwd=self.root,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start LiteFS and wait until its proxy and, if there is one, the application answer."""
        self.launch()
        self.wait_ready()

    def wait_ready(self, seconds: float = 15) -> None:
        """Wait until the proxy and, if there is one, the application answer."""
        path = "/api/health" if any("server.py" in command for command, _ in self.settings.exec) else "/litefs/health"
        try:
            until(self.alive(lambda: request(self.proxy, "GET", path).status == 200), seconds, f"{self.name} ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def wait_up(self) -> None:
        """Wait until the HTTP API answers, which it also does while LiteFS waits for its primary."""
        until(self.alive(self.info), 15, f"{self.name} up")

    def alive(self, condition: Callable[[], Any]) -> Callable[[], Any]:
        """The condition, ended by an error as soon as the process is gone."""

        def check() -> Any:
            assert self.process and self.process.poll() is None, f"{self.name} ended: {self.log()}"
            return condition()

        return check

    def exit_code(self, seconds: float = 10) -> int:
        """Wait for the process to end by itself."""
        assert self.process
        return self.process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.exit_code()

    def kill(self) -> None:
        """SIGKILL to LiteFS and what it started; the dead mount stays, as on a node."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def unmount(self) -> None:
        """Take the mount away, dead or not."""
        subprocess.run(["umount", "-l", self.mount], capture_output=True, check=False, timeout=10)

    def empty_volume(self) -> None:
        """As a new claim: nothing in it."""
        shutil.rmtree(self.data)
        self.data.mkdir()

    def copy_volume(self, source: Path) -> None:
        """Replace the volume by a copy of another."""
        shutil.rmtree(self.data)
        shutil.copytree(source, self.data)

    # Looking

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def call(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Ask LiteFS's own API."""
        return request(self.api, method, path, body, host=self.host)

    def info(self) -> dict[str, Any]:
        info: dict[str, Any] = self.call("GET", "/info").json()
        return info

    def cluster_id(self) -> str:
        return str(self.info()["clusterID"])

    def databases(self) -> dict[str, dict[str, Any]]:
        databases: dict[str, dict[str, Any]] = self.call("GET", "/debug/vars").json()["store"]["dbs"]
        return databases

    def position(self) -> tuple[str, str]:
        """TXID and checksum by the API, as hex."""
        database = self.databases()[DATABASE]
        return str(database["txid"]), str(database["checksum"])

    def metric(self, name: str) -> float:
        """A metric without labels."""
        for line in self.call("GET", "/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise LookupError(name)

    def lag_file(self) -> str:
        return (self.mount / ".lag").read_text()

    @contextlib.contextmanager
    def database(self, timeout: float = 5) -> Iterator[sqlite3.Connection]:
        """An autocommit connection through the mount, which must have the database already."""
        uri = f"file:{self.mount / DATABASE}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)) as db:
            yield db

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self.database() as db:
            return db.execute(sql, values).fetchall()

    def bodies(self) -> list[str]:
        return [row[0] for row in self.query("SELECT body FROM records ORDER BY id")]

    # Writing

    def create(self, journal_mode: str = "delete", rows: int = 3) -> None:
        """Make the application's tables through the mount, with some rows."""
        env = {"DATABASE_URL": str(self.mount / DATABASE), "JOURNAL_MODE": journal_mode}
        subprocess.run([sys.executable, APP / "migrate.py"], env=env, check=True, capture_output=True, timeout=20)
        self.insert(*(f"row {number}" for number in range(1, rows + 1)))

    def insert(self, *bodies: str) -> None:
        """One transaction each, through the mount."""
        with self.database() as db:
            for body in bodies:
                db.execute("INSERT INTO records (body) VALUES (?)", (body,))

    def post(self, body: str, port: int | None = None) -> Answer:
        """POST a record to the application through LiteFS's proxy, or to another port."""
        return request(port or self.proxy, "POST", "/api/records", json.dumps({"body": body}).encode())


class Cluster:
    """Nodes of which one is everybody's primary."""

    def __init__(self, binary: Path, root: Path, size: int = 3, primary: int = 0) -> None:
        self.nodes = [Node(binary, root, ordinal) for ordinal in range(size)]
        self.primary = self.nodes[primary]
        self.replicas = [node for node in self.nodes if node is not self.primary]
        for node in self.nodes:
            node.primary = self.primary

    def on_one_port(self) -> Cluster:
        """Give each node an address of its own and all the same API port, as pods have."""
        (port,) = free_ports(1)
        for number, node in enumerate(self.nodes, 2):
            node.host, node.api = f"127.0.0.{number}", port
        return self

    def with_app(self, journal_mode: str, redis_url: str = "") -> Cluster:
        """Run the sample application on each node, the migration where LiteFS says so."""
        for node in self.nodes:
            node.settings.exec = [(MIGRATE, True), (SERVER, False)]
            node.settings.env = {"JOURNAL_MODE": journal_mode, "REDIS_URL": redis_url}
            node.settings.proxy["always-forward"] = '["/api/auth/callback*"]'
        return self

    def start(self) -> Cluster:
        self.primary.start()
        for node in self.replicas:
            node.launch()
        for node in self.replicas:
            node.wait_ready()
        return self

    def wait_replicated(self, seconds: float = 10) -> None:
        """Wait until every node shows the primary's position and checksum."""
        until(
            lambda: len({node.position() for node in self.nodes}) == 1,
            seconds,
            f"one position: {[node.position() for node in self.nodes]}",
        )

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
            node.unmount()


MakeCluster = Callable[..., Cluster]
"""The fixture `make_cluster`: makes a cluster of `size` nodes, not started, with the ordinal of its primary."""

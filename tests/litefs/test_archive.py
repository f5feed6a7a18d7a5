"""The archive's follower against the real LiteFS: nothing is missing, and a primary that went back is told."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import archive_bundle
from ansible_collections.abaci.infra.plugins.module_utils.archive import follower
from ansible_collections.abaci.infra.plugins.module_utils.archive.alarms import Alarm, Alarms
from ansible_collections.abaci.infra.plugins.module_utils.archive.ltx import Position
from ansible_collections.abaci.infra.plugins.module_utils.archive.store import Store
from litefs_cluster import DATABASE, Answer, Cluster, MakeCluster, Node, free_ports, request, until
from test_our_configuration import on_this_machine

WRITES = 300
LARGE_MB = int(os.environ.get("ARCHIVE_LARGE_MB", "40"))


@dataclass(frozen=True)
class Raw:
    """One file that was kept, and how many milliseconds after it was made: both by this machine's clock."""

    history: str
    first: int
    last: int
    delay: float
    compressed: bool


def raw(folder: Path, database: str = DATABASE) -> list[Raw]:
    """What an archive keeps of a database, as it came."""
    found = []
    for path in sorted(folder.glob(f"archive/*/{database}/*/*.ltx")):
        head = path.read_bytes()[:48]
        (flags,), (made,) = struct.unpack_from(">I", head, 4), struct.unpack_from(">q", head, 32)
        first, last = (int(part, 16) for part in path.stem.split("-"))
        found.append(Raw(path.parent.name, first, last, path.stat().st_ctime * 1000 - made, bool(flags & 1)))
    return found


class Archive:
    """A follower in a thread of this process, with the real store."""

    def __init__(self, folder: Path, nodes: list[Node]) -> None:
        self.told = list[Alarm]()
        self.alarms = Alarms(folder / "alarms.json", self.told.append)
        self.recorded = ""
        self.folder, self._nodes = folder, nodes
        self.start()

    def newest_cluster(self) -> str:
        return self.store.databases()[-1][0] if self.store.databases() else ""

    def start(self) -> None:
        """As a new process: all that it knows is on disk."""
        self.store = Store(self.folder / "archive", time.time)
        self.store.newest_cluster = self.newest_cluster  # type: ignore[attr-defined]
        self.follower = follower.Follower(
            self.store,  # type: ignore[arg-type]
            self.alarms,
            self.folder,
            follower.node_identity(self.folder / "node-id"),
            lambda: [(node.host, node.api) for node in self._nodes],
            lambda: self.recorded,
        )
        for one in self.store.moments():
            self.follower.heard_before(one.cluster, one.database, one.followed)
        self._thread = threading.Thread(target=self.follower.run)
        self._thread.start()

    def stop(self) -> None:
        self.follower.end()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def position(self, node: Node) -> Position | None:
        return self.store.position(node.cluster_id(), DATABASE)

    def level(self, node: Node, seconds: float = 15) -> None:
        """Wait until the archive holds what the node shows."""
        until(lambda: str(self.position(node)) == "/".join(node.position()), seconds, f"{self.follower.seen}")

    def kinds(self) -> list[str]:
        return [alarm["kind"] for alarm in self.told]


class Program:
    """The archive as its pod runs it, beside the primary's processes."""

    def __init__(self, folder: Path, node: Node, **settings: object) -> None:
        self.folder = folder
        self.metrics, self.local, feed = free_ports(3)
        (folder / "archive.pyz").write_bytes(base64.b64decode(archive_bundle.pack(archive_bundle.collect()).data))
        self._told = {
            "namespace": "abaci",
            "app": "abaci-app",
            "record": "",
            "buffer": str(folder / "buffer"),
            "metrics_port": self.metrics,
            "local_port": self.local,
            "feed_port": feed,
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.follow(node)

    def follow(self, node: Node) -> None:
        """Start it beside this primary."""
        self.node = node
        (self.folder / "settings.json").write_text(json.dumps({**self._told, "service": node.host, "port": node.api}))
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-I", str(self.folder / "archive.pyz"), str(self.folder / "settings.json")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process
        self.process.send_signal(number)
        assert self.process.wait(15) in (0, -number), (self.folder / "log").read_text()

    def get(self, path: str) -> Answer:
        return request(self.local, "GET", path)

    def status(self) -> Any:
        return self.get("/status").json()

    def level(self, seconds: float = 20) -> None:
        """Wait until a file ends with the primary's TXID: the status is some seconds old."""
        end = f"-{self.node.position()[0]}.ltx"
        buffer = self.folder / "buffer"
        until(lambda: list(buffer.glob(f"archive/*/{DATABASE}/*/*{end}")), seconds, (self.folder / "log").read_text())


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[Cluster], Program]]:
    made: list[Program] = []

    def make(cluster: Cluster) -> Program:
        made.append(Program(tmp_path, cluster.primary))
        return made[-1]

    yield make
    for one in made:
        if one.process and one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Callable[[Cluster], Archive]]:
    made: list[Archive] = []

    def make(cluster: Cluster) -> Archive:
        made.append(Archive(tmp_path, cluster.nodes))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def whole(files: list[Raw]) -> bool:
    """One history, in which each file begins after the end of the one before."""
    pairs = itertools.pairwise(files)
    return len({one.history for one in files}) == 1 and all(b.first == a.last + 1 for a, b in pairs)


def write(node: Node, count: int) -> float:
    """One transaction each as fast as one client can; how many a second."""
    began = time.monotonic()
    node.insert(*(f"write {number}" for number in range(count)))
    return count / (time.monotonic() - began)


def small(make_cluster: MakeCluster, mode: str = "wal", size: int = 1) -> Cluster:
    cluster = make_cluster(size)
    for node in cluster.nodes:
        node.settings.compress = False
    cluster.start()
    cluster.primary.create(mode)
    return cluster


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_every_transaction_is_archived_within_milliseconds(
    make_cluster: MakeCluster, program: Callable[[Cluster], Program], mode: str
) -> None:
    cluster = small(make_cluster, mode, 2)
    kept = program(cluster)
    kept.level()
    before = len(raw(kept.folder / "buffer"))
    rate = write(cluster.primary, WRITES)
    kept.level()
    files = raw(kept.folder / "buffer")
    delays = sorted(one.delay for one in files[before:])
    print(
        f"\n{mode}: {rate:.0f} writes/s, {len(delays)} files, delay median {statistics.median(delays):.0f} ms, "
        f"p99 {delays[int(len(delays) * 0.99)]:.0f} ms, max {delays[-1]:.0f} ms"
    )
    assert len(delays) == WRITES and whole(files)
    txid, checksum = cluster.primary.position()
    found = kept.get(f"/database?database={DATABASE}&txid={txid}")
    assert (found.status, found.headers["archive-checksum"]) == (200, checksum)
    (kept.folder / "found.sqlite").write_bytes(found.body)
    with closing(sqlite3.connect(kept.folder / "found.sqlite")) as db:
        assert [row[0] for row in db.execute("SELECT body FROM records ORDER BY id")] == cluster.primary.bodies()
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_program_that_was_killed_or_stopped_goes_on_from_its_position(
    make_cluster: MakeCluster, program: Callable[[Cluster], Program]
) -> None:
    cluster = small(make_cluster)
    primary, kept = cluster.primary, program(cluster)
    kept.level()
    for number in (signal.SIGTERM, signal.SIGKILL):
        kept.stop(number)
        write(primary, 20)
        kept.start()
        kept.level()
    assert primary.stop() == 0
    primary.start()
    write(primary, 20)
    kept.level()
    assert whole(raw(kept.folder / "buffer"))
    found = until(
        lambda: (one := kept.status())["databases"][0]["received"]["txid"] == primary.position()[0] and one, 30
    )
    assert found["primary"]["connected"] and found["alarms"] == []
    assert found["databases"][0]["verified"]["txid"] == primary.position()[0]
    assert "abaci_archive_connected 1" in request(kept.metrics, "GET", "/metrics").body.decode()


def test_a_primary_that_moved_is_followed(make_cluster: MakeCluster, archive: Callable[[Cluster], Archive]) -> None:
    cluster = small(make_cluster, size=2)
    kept = archive(cluster)
    cluster.wait_replicated()
    old, new = cluster.nodes
    for node in cluster.nodes:
        assert node.stop() == 0
        node.primary = new
        node.settings.candidate = '${POD_NAME == "abaci-app-1"}'
    new.start()
    old.start()
    write(new, 5)
    kept.level(new)
    assert whole(raw(kept.folder)) and kept.told == []


def test_a_restore_continues_the_history(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive], tmp_path: Path
) -> None:
    cluster = small(make_cluster)
    primary, kept = cluster.primary, archive(cluster)
    before = primary.call("GET", f"/export?name={DATABASE}").body
    write(primary, 5)
    kept.level(primary)
    assert primary.call("POST", f"/import?name={DATABASE}", before).status == 200
    kept.level(primary)
    assert whole(raw(kept.folder)) and kept.told == []
    ((cluster_id, database),) = kept.store.databases()
    held = kept.position(primary)
    assert held is not None and len(primary.bodies()) == 3
    kept.store.rebuild(cluster_id, database, held.txid - 1, tmp_path / "before.sqlite")
    with closing(sqlite3.connect(tmp_path / "before.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM records").fetchall() == [(8,)]


def test_every_database_of_the_mount_is_archived(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive]
) -> None:
    cluster = small(make_cluster)
    kept = archive(cluster)
    kept.level(cluster.primary)
    with closing(sqlite3.connect(cluster.primary.mount / "other.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE t (a)")
    until(lambda: kept.store.position(cluster.primary.cluster_id(), "other.db"))


def test_an_older_primary_is_told_and_the_history_stays(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive], tmp_path: Path
) -> None:
    cluster = small(make_cluster)
    primary = cluster.primary
    kept = archive(cluster)
    primary.stop()
    shutil.copytree(primary.data, tmp_path / "older")
    primary.start()
    write(primary, 30)
    kept.level(primary)
    held, files = kept.position(primary), raw(kept.folder)
    primary.stop()
    primary.copy_volume(tmp_path / "older")
    primary.start()
    began = time.monotonic()
    until(lambda: "primary_behind" in kept.kinds())
    print(f"\nolder primary: told {time.monotonic() - began:.1f} s after it was ready")
    assert held is not None and kept.position(primary) != held
    assert raw(kept.folder)[: len(files)] == files and len(kept.store.moments()) == 2
    (alarm,) = kept.told
    assert "lost 30 transactions" in alarm["sentence"]


@pytest.mark.parametrize(("others", "kind"), [(9, "primary_behind"), (10, "fork"), (11, "fork")])
def test_a_primary_with_other_transactions_is_told(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive], tmp_path: Path, others: int, kind: str
) -> None:
    """An older copy that was written to while the archive was away: fewer, as many and more than the archive has."""
    cluster = small(make_cluster)
    primary, kept = cluster.primary, archive(cluster)
    primary.stop()
    shutil.copytree(primary.data, tmp_path / "older")
    primary.start()
    write(primary, 10)
    kept.level(primary)
    files = raw(kept.folder)
    kept.stop()
    primary.stop()
    primary.copy_volume(tmp_path / "older")
    primary.start()
    primary.insert(*(f"other {number}" for number in range(others)))
    kept.start()
    until(lambda: kept.kinds() == [kind])
    kept.level(primary)
    assert raw(kept.folder)[: len(files)] == files and len(kept.store.moments()) == 2
    write(primary, 2)
    kept.level(primary)
    assert kept.kinds() == [kind]


def test_an_empty_primary_with_the_old_cluster_id_is_told(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive]
) -> None:
    cluster = small(make_cluster)
    primary, kept = cluster.primary, archive(cluster)
    kept.level(primary)
    held, identity = kept.position(primary), primary.cluster_id()
    files = raw(kept.folder)
    primary.stop()
    primary.empty_volume()
    (primary.data / "clusterid").write_text(identity + "\n")
    primary.start()
    began = time.monotonic()
    until(lambda: kept.kinds() == ["no_database"])
    print(f"\nempty primary: told {time.monotonic() - began:.1f} s after it was ready")
    assert kept.position(primary) == held and raw(kept.folder) == files
    primary.create("wal")
    until(lambda: kept.kinds() == ["no_database", "primary_behind"])
    assert raw(kept.folder)[: len(files)] == files
    assert [one["kind"] for one in kept.alarms.active()] == ["primary_behind"]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "known from the archive"])
def test_nothing_is_taken_from_a_primary_of_another_cluster(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive], recorded: bool
) -> None:
    cluster = small(make_cluster)
    primary, kept = cluster.primary, archive(cluster)
    kept.level(primary)
    kept.recorded = primary.cluster_id() if recorded else ""
    files = raw(kept.folder)
    primary.stop()
    primary.empty_volume()
    primary.start()
    primary.create("wal")
    began = time.monotonic()
    until(lambda: kept.kinds() == ["foreign_cluster"])
    print(f"\nforeign primary: told {time.monotonic() - began:.1f} s after it was ready")
    assert raw(kept.folder) == files


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_archive_costs_the_primary_next_to_nothing(make_cluster: MakeCluster, mode: str) -> None:
    """In turns, so that what else the machine does falls on both."""
    cluster = small(make_cluster, mode)
    # In a cluster it has a disk of its own, too: what it flushes here would hold up the primary's.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        kept = Program(Path(folder), cluster.primary)
        try:
            compare(cluster, kept, mode)
        finally:
            kept.stop(signal.SIGKILL)


def compare(cluster: Cluster, kept: Program, mode: str) -> None:
    kept.level()
    # What the schedules do first is no part of following.
    until(lambda: "check" in kept.status()["last"])
    alone: list[float] = []
    followed: list[float] = []
    for turn in range(18):
        if turn >= 6 and max(followed) > 0.6 * max(alone):
            break
        kept.stop()
        alone.append(write(cluster.primary, 100))
        kept.start()
        assert kept.process
        # In a cluster it has a node's processors to itself; here it gets what the primary leaves.
        os.setpriority(os.PRIO_PROCESS, kept.process.pid, 19)
        kept.level(60)
        followed.append(write(cluster.primary, 100))
        kept.level(60)
    assert kept.process
    used = sum(float(part) for part in (Path("/proc") / str(kept.process.pid) / "schedstat").read_text().split()[:1])
    # The best of each, since what else the machine does takes from both.
    ratio = max(followed) / max(alone)
    print(f"\n{mode}: {max(alone):.0f} writes/s alone, {max(followed):.0f} followed: {ratio:.2f}")
    print(f"the archive's process, with its start: {used / 1e6:.0f} ms of a processor for 100 transactions")
    assert ratio > 0.6


def test_memory_is_flat_with_a_large_snapshot_and_a_large_transaction(
    make_cluster: MakeCluster, program: Callable[[Cluster], Program]
) -> None:
    cluster = small(make_cluster)
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
    grow = many.format(LARGE_MB * 100) + "INSERT INTO records (body) SELECT hex(randomblob(5000)) FROM n"
    cluster.primary.query(grow)
    kept = program(cluster)
    kept.level(120)
    cluster.primary.query(grow)
    kept.level(120)
    until(lambda: "check" in kept.status()["last"], 120)
    assert kept.get(f"/database?database={DATABASE}&txid={cluster.primary.position()[0]}").status == 200
    assert kept.process
    high = (Path("/proc") / str(kept.process.pid) / "status").read_text().split("VmHWM:")[1].split()[0]
    size = cluster.primary.query("SELECT sum(length(body)) FROM records")[0][0] >> 20
    print(f"\n{size} MB of rows: at most {int(high) >> 10} MB of memory")
    # The pod's limit is 128 MiB.
    assert int(high) < 100 << 10


@pytest.mark.parametrize("ours", [True, False], ids=["our litefs.yml", "LiteFS's default"])
def test_a_snapshot_can_be_proven_without_lz4(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive], ours: bool
) -> None:
    cluster = make_cluster(1).with_app("wal")
    cluster.primary.launch(on_this_machine(cluster.primary, 0) if ours else None)
    cluster.primary.wait_ready()
    write(cluster.primary, 3)
    kept = archive(cluster)
    kept.level(cluster.primary)
    assert [one.compressed for one in raw(kept.folder)] == [not ours]
    # By default LiteFS compresses each transaction as well.
    write(cluster.primary, 3)
    kept.level(cluster.primary)
    assert [one.compressed for one in raw(kept.folder)] == [not ours] * 4

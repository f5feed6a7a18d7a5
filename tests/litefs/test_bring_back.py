"""The archive gives a real LiteFS what it lacks: the same transactions, of which LiteFS proves each itself."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from litefs_cluster import DATABASE, Cluster, MakeCluster, Node, free_ports, until
from test_archive import Program, raw, small, whole, write
from test_guard_with_litefs import Pods

OTHER = "other.db"


class Fed(Program):  # type: ignore[misc]
    """The archive's program, with the port at which it gives."""

    def __init__(self, folder: Path, node: Node) -> None:
        (self.feed,) = free_ports(1)
        super().__init__(folder, node, feed_port=self.feed)

    def lacking(self, node: Node, database: str = DATABASE) -> Any:
        """What the archive says that it has more than a node."""
        at = node.databases()[database]
        return self.get(f"/following?database={database}&txid={at['txid']}&checksum={at['checksum']}")

    def feeds(self, node: Node) -> None:
        """Start the node as promote does: nobody is primary, and it follows the archive."""
        place = SimpleNamespace(name=f"abaci-app-archive-{node.name[-1]}", host="127.0.0.1", api=self.feed)
        node.primary = cast("Node", place)
        node.settings.candidate = f'${{POD_NAME == "{place.name}"}}'
        node.launch()


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[Callable[[Cluster], Fed]]:
    made: list[Fed] = []

    def make(cluster: Cluster) -> Fed:
        (tmp_path / str(len(made))).mkdir()
        made.append(Fed(tmp_path / str(len(made)), cluster.primary))
        return made[-1]

    yield make
    for one in made:
        if one.process and one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def lost(cluster: Cluster, archive: Fed, count: int) -> list[str]:
    """The replica is cut off, the primary writes so many more, and then its node is gone with its disk; what it had."""
    primary, (replica,) = cluster.primary, cluster.replicas
    cluster.wait_replicated()
    archive.level()
    replica.kill()
    replica.unmount()
    write(primary, count)
    archive.level(60)
    bodies = primary.bodies()
    primary.kill()
    primary.unmount()
    shutil.rmtree(primary.data)
    return bodies


def promote(node: Node) -> None:
    """Start it as primary."""
    node.primary = node
    node.settings.candidate = f'${{POD_NAME == "{node.name}"}}'
    node.start()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_only_the_archive_has_is_there_before_the_new_primary_takes_writes(
    make_cluster: MakeCluster, fed: Callable[[Cluster], Fed], mode: str
) -> None:
    cluster = small(make_cluster, mode, 2)
    archive, (replica,) = fed(cluster), cluster.replicas
    bodies = lost(cluster, archive, 200)
    began = time.monotonic()
    archive.feeds(replica)
    replica.wait_ready()
    until(lambda: replica.bodies() == bodies, 30)
    print(f"\n{mode}: 200 transactions brought back in {time.monotonic() - began:.1f} s, with LiteFS's start")
    said = archive.lacking(replica).json()
    assert said["count"] == 0
    with pytest.raises(sqlite3.OperationalError):
        replica.insert("nobody is primary")
    assert replica.stop() == 0
    promote(replica)
    assert replica.bodies() == bodies
    # In the pod the follower finds the new primary by the Service; here it is told.
    archive.stop()
    archive.follow(replica)
    write(replica, 5)
    archive.level()
    assert whole(raw(archive.folder / "buffer")) and archive.status()["alarms"] == []


def test_killed_anywhere_and_run_again_it_brings_back_all(
    make_cluster: MakeCluster, fed: Callable[[Cluster], Fed]
) -> None:
    cluster = small(make_cluster, size=2)
    archive, (replica,) = fed(cluster), cluster.replicas
    bodies = lost(cluster, archive, int(os.environ.get("BRING_BACK_WRITES", "1000")))
    for turn in range(8):
        archive.feeds(replica)
        until(lambda: replica.info(), 15)
        time.sleep(0.02 * turn)
        if turn % 2:
            archive.stop(signal.SIGKILL)
            archive.start()
            time.sleep(0.3)
        replica.kill()
        replica.unmount()
    archive.feeds(replica)
    replica.wait_ready(30)
    until(lambda: replica.bodies() == bodies, 60)
    assert replica.stop() == 0
    promote(replica)
    assert replica.bodies() == bodies
    assert replica.query("PRAGMA integrity_check") == [("ok",)]


def test_every_database_is_brought_back_also_one_that_no_replica_ever_had(
    make_cluster: MakeCluster, fed: Callable[[Cluster], Fed]
) -> None:
    cluster = small(make_cluster, size=2)
    archive, primary, (replica,) = fed(cluster), cluster.primary, cluster.replicas

    def fill(name: str, rows: int) -> None:
        with closing(sqlite3.connect(primary.mount / name, isolation_level=None)) as db:
            db.execute("CREATE TABLE IF NOT EXISTS t (a)")
            for row in range(rows):
                db.execute("INSERT INTO t VALUES (?)", (row,))

    fill(OTHER, 3)
    cluster.wait_replicated()
    until(lambda: replica.databases()[OTHER] and archive.lacking(replica, OTHER).json()["count"] == 0, 60)
    replica.kill()
    replica.unmount()
    fill(OTHER, 5)
    fill("new.db", 7)
    places = {name: one["txid"] for name, one in primary.databases().items()}
    # LiteFS sends each database for itself.
    for name, txid in places.items():
        until(lambda end=f"{name}/*/*-{txid}.ltx": list(archive.folder.glob(f"buffer/archive/*/{end}")), 30)
    primary.kill()
    primary.unmount()
    archive.feeds(replica)
    replica.wait_ready()
    until(lambda: {name: one["txid"] for name, one in replica.databases().items()} == places, 30)
    for name, rows in ((OTHER, 8), ("new.db", 7)):
        with closing(sqlite3.connect(replica.mount / name)) as db:
            assert db.execute("SELECT count(*) FROM t").fetchone() == (rows,)


def test_a_replica_of_another_history_gets_nothing(make_cluster: MakeCluster, fed: Callable[[Cluster], Fed]) -> None:
    """It was primary of an older copy for a moment: as many transactions, with other content."""
    cluster = small(make_cluster, size=2)
    archive, (replica,) = fed(cluster), cluster.replicas
    lost(cluster, archive, 10)
    promote(replica)
    replica.insert(*(f"other {number}" for number in range(5)))
    bodies, where = replica.bodies(), replica.position()
    refused = archive.lacking(replica)
    assert refused.status == 409 and "another history" in refused.json()["error"]
    replica.stop()
    archive.feeds(replica)
    replica.wait_ready()
    time.sleep(2)
    assert replica.position() == where and replica.bodies() == bodies


def test_of_another_cluster_nothing_is_taken(make_cluster: MakeCluster, fed: Callable[[Cluster], Fed]) -> None:
    cluster, stranger = small(make_cluster), small(make_cluster).primary
    archive = fed(cluster)
    archive.level()
    where = stranger.position()
    stranger.stop()
    archive.feeds(stranger)
    until(lambda: "different cluster id" in stranger.log())
    assert stranger.position() == where


def test_an_altered_file_is_refused_and_what_comes_before_it_is_given(
    make_cluster: MakeCluster, fed: Callable[[Cluster], Fed]
) -> None:
    cluster = small(make_cluster, size=2)
    archive, (replica,) = fed(cluster), cluster.replicas
    bodies = lost(cluster, archive, 10)
    path = sorted(archive.folder.glob(f"buffer/archive/*/{DATABASE}/*/*.ltx"))[-3]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    archive.feeds(replica)
    replica.wait_ready()
    until(lambda: replica.bodies() == bodies[:-3])
    time.sleep(2)
    refused = archive.lacking(replica)
    assert refused.status == 409 and path.name in refused.json()["error"]
    assert replica.bodies() == bodies[:-3]


@pytest.mark.parametrize("cut", [False, True], ids=["an older copy", "as new as the archive"])
def test_the_guard_lets_no_primary_start_that_has_less_than_the_archive(
    make_cluster: MakeCluster, fed: Callable[[Cluster], Fed], tmp_path: Path, cut: bool
) -> None:
    """No other pod is there to say so."""
    cluster = small(make_cluster)
    archive, primary = fed(cluster), cluster.primary
    archive.level()
    primary.stop()
    shutil.copytree(primary.data, tmp_path / "older")
    primary.start()
    write(primary, 5)
    archive.level()
    until(lambda: archive.status()["databases"][0]["received"]["txid"] == primary.position()[0], 30)
    identity, has = primary.cluster_id(), primary.position()[0]
    primary.stop()
    if not cut:
        primary.copy_volume(tmp_path / "older")
    pods = Pods(cluster, tmp_path)
    pods.record("recorded", identity)
    pods.archive_port = archive.feed
    if cut:
        code, log = pods.ask(primary)
        assert code == 0, log
        return
    assert "and the archive, which heard a primary of this cluster until 20" in pods.refusal(primary)
    assert f"has TXID {has}" in (tmp_path / "termination").read_text()
    # A person, or a restore, goes on without that.
    (pods.identity / "archiveGivenUpTime").write_text(
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    )
    code, log = pods.ask(primary)
    assert code == 0 and "was given up" in log, log
    (pods.identity / "archiveGivenUpTime").unlink()
    archive.stop()
    code, log = pods.ask(primary)
    assert code == 0, log

"""The archive's follower against the real LiteFS: nothing is missing, and a primary that went back is told."""

from __future__ import annotations

import shutil
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import follower
from ansible_collections.abaci.infra.plugins.module_utils.archive.alarms import Alarm, Alarms
from ansible_collections.abaci.infra.plugins.module_utils.archive.ltx import Position
from ansible_collections.abaci.infra.plugins.module_utils.archive.store import Received
from litefs_cluster import DATABASE, Cluster, MakeCluster, Node, until

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/archive"))
from kept import Kept

WRITES = 300


class Timed(Kept):
    """Notes when each file was kept, beside the primary's time of it: both are this machine's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []

    def receive(self, cluster: str, database: str, path_of_ltx: Path) -> Received:
        with path_of_ltx.open("rb") as file:
            (made,) = struct.unpack(">q", file.read(48)[32:40])
        received = super().receive(cluster, database, path_of_ltx)
        self.delays.append(time.time() * 1000 - made)
        return received


class Archive:
    """A follower in a thread, with its store."""

    def __init__(self, folder: Path, nodes: list[Node]) -> None:
        self.store, self.told = Timed(), list[Alarm]()
        self.alarms = Alarms(folder / "alarms.json", self.told.append)
        self.recorded = ""
        self._folder, self._nodes = folder, nodes
        self._start()

    def _start(self) -> None:
        self.follower = follower.Follower(
            self.store,
            self.alarms,
            self._folder,
            follower.node_identity(self._folder / "node-id"),
            lambda: [(node.host, node.api) for node in self._nodes],
            lambda: self.recorded,
        )
        self._thread = threading.Thread(target=self.follower.run)
        self._thread.start()

    def stop(self) -> None:
        self.follower.end()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def again(self) -> None:
        self.stop()
        self._start()

    def position(self, node: Node) -> Position | None:
        return self.store.position(node.cluster_id(), DATABASE)

    def level(self, node: Node, seconds: float = 15) -> None:
        """Wait until the archive holds what the node shows."""

        def same() -> bool:
            held = self.position(node)
            return held is not None and (f"{held.txid:016x}", f"{held.checksum:016x}") == node.position()

        until(same, seconds, f"archived {node.position()}: {self.follower.seen}")

    def ranges(self) -> list[tuple[int, int]]:
        return [struct.unpack_from(">QQ", data, 16) for _, name, data in self.store.files if name == DATABASE]  # type: ignore[misc]

    def kinds(self) -> list[str]:
        return [alarm["kind"] for alarm in self.told]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Callable[[Cluster], Archive]]:
    made: list[Archive] = []

    def make(cluster: Cluster) -> Archive:
        made.append(Archive(tmp_path, cluster.nodes))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def gaps(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where one does not begin after the end of the one before."""
    return [(a[1], b[0]) for a, b in zip(ranges, ranges[1:], strict=False) if b[0] != a[1] + 1]


def write(node: Node, count: int) -> float:
    """One transaction each as fast as one client can; how many a second."""
    began = time.monotonic()
    node.insert(*(f"write {number}" for number in range(count)))
    return count / (time.monotonic() - began)


def small(make_cluster: MakeCluster, mode: str = "wal", size: int = 1) -> Cluster:
    cluster = make_cluster(size).start()
    cluster.primary.create(mode)
    return cluster


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_every_transaction_is_archived_within_milliseconds(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive], mode: str
) -> None:
    cluster = small(make_cluster, mode, 2)
    kept = archive(cluster)
    kept.level(cluster.primary)
    before = len(kept.store.delays)
    rate = write(cluster.primary, WRITES)
    kept.level(cluster.primary)
    delays = sorted(kept.store.delays[before:])
    print(
        f"\n{mode}: {rate:.0f} writes/s, {len(delays)} files, delay median {statistics.median(delays):.0f} ms, "
        f"p99 {delays[int(len(delays) * 0.99)]:.0f} ms, max {delays[-1]:.0f} ms"
    )
    assert len(delays) == WRITES and gaps(kept.ranges()) == [] and kept.told == []
    assert kept.follower.seen.primary and kept.follower.seen.ready


def test_a_follower_that_was_stopped_goes_on_from_its_position(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive]
) -> None:
    cluster = small(make_cluster)
    kept = archive(cluster)
    kept.level(cluster.primary)
    kept.stop()
    write(cluster.primary, 20)
    kept._start()
    kept.level(cluster.primary)
    assert gaps(kept.ranges()) == [] and [first for first, _ in kept.ranges()].count(1) == 1
    assert cluster.primary.stop() == 0
    until(lambda: not kept.follower.seen.primary)
    cluster.primary.start()
    write(cluster.primary, 20)
    kept.level(cluster.primary)
    assert gaps(kept.ranges()) == [] and kept.told == []


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
    assert gaps(kept.ranges()) == [] and kept.told == []


def test_every_database_of_the_mount_is_archived(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive]
) -> None:
    cluster = small(make_cluster)
    kept = archive(cluster)
    kept.level(cluster.primary)
    import sqlite3

    other = sqlite3.connect(cluster.primary.mount / "other.db")
    other.execute("CREATE TABLE t (a)")
    other.commit()
    other.close()
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
    held, files = kept.position(primary), list(kept.store.files)
    primary.stop()
    primary.copy_volume(tmp_path / "older")
    primary.start()
    began = time.monotonic()
    until(lambda: "primary_behind" in kept.kinds())
    print(f"\nolder primary: told {time.monotonic() - began:.1f} s after it was ready")
    assert kept.store.files[: len(files)] == files and held is not None
    assert kept.position(primary) != held and kept.store.histories == 2
    (alarm,) = kept.told
    assert "lost 30 transactions" in alarm["sentence"]


def test_an_empty_primary_with_the_old_cluster_id_is_told(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive]
) -> None:
    cluster = small(make_cluster)
    primary, kept = cluster.primary, archive(cluster)
    kept.level(primary)
    held, identity = kept.position(primary), primary.cluster_id()
    files = list(kept.store.files)
    primary.stop()
    primary.empty_volume()
    (primary.data / "clusterid").write_text(identity + "\n")
    primary.start()
    began = time.monotonic()
    until(lambda: kept.kinds() == ["no_database"])
    print(f"\nempty primary: told {time.monotonic() - began:.1f} s after it was ready")
    assert kept.position(primary) == held and kept.store.files == files
    primary.create("wal")
    until(lambda: kept.kinds() == ["no_database", "primary_behind"])
    assert kept.store.files[: len(files)] == files and [one["kind"] for one in kept.alarms.active()] == [
        "primary_behind"
    ]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "known from the archive"])
def test_nothing_is_taken_from_a_primary_of_another_cluster(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive], recorded: bool
) -> None:
    cluster = small(make_cluster)
    primary, kept = cluster.primary, archive(cluster)
    kept.level(primary)
    kept.recorded = primary.cluster_id() if recorded else ""
    files = list(kept.store.files)
    primary.stop()
    primary.empty_volume()
    primary.start()
    primary.create("wal")
    began = time.monotonic()
    until(lambda: kept.kinds() == ["foreign_cluster"])
    print(f"\nforeign primary: told {time.monotonic() - began:.1f} s after it was ready")
    assert kept.store.files == files


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_follower_costs_the_primary_next_to_nothing(
    make_cluster: MakeCluster, archive: Callable[[Cluster], Archive], mode: str
) -> None:
    """In turns, so that what else the machine does falls on both."""
    cluster = small(make_cluster, mode)
    kept = archive(cluster)
    kept.level(cluster.primary)
    alone, followed = [], []
    for _round in range(5):
        kept.stop()
        alone.append(write(cluster.primary, 150))
        kept._start()
        kept.level(cluster.primary)
        followed.append(write(cluster.primary, 150))
    ratio = statistics.median(followed) / statistics.median(alone)
    print(
        f"\n{mode}: {statistics.median(alone):.0f} writes/s alone, {statistics.median(followed):.0f} followed: {ratio:.2f}"
    )
    # The follower of this test shares one processor's Python lock with the writer; on a cluster it is another pod.
    assert ratio > 0.6

"""Copying a database out of a volume's folder, as when the API is gone: while LiteFS writes to it, and after."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import folder, sqlitefile
from litefs_cluster import DATABASE, Cluster

MakeCluster = Callable[..., Cluster]


@pytest.fixture(params=["delete", "wal"])
def cluster(request: pytest.FixtureRequest, make_cluster: MakeCluster) -> Cluster:
    pair = make_cluster(2)
    pair.primary.start()
    pair.primary.create(request.param, rows=200)
    pair.replicas[0].start()
    pair.wait_replicated()
    return pair


def bodies(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT body FROM records ORDER BY id")]


@pytest.mark.parametrize("who", ["primary", "replica"])
def test_a_folder_that_litefs_runs_on_gives_its_position_and_every_row(
    cluster: Cluster, tmp_path: Path, who: str
) -> None:
    node = cluster.primary if who == "primary" else cluster.replicas[0]
    made = folder.copy(node.data, DATABASE, tmp_path / "copy.sqlite")
    assert made["position_proven"] and (made["txid"], made["checksum"]) == node.position()
    assert made["cluster_id"] == node.cluster_id() and bodies(tmp_path / "copy.sqlite") == node.bodies()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == ["copy.sqlite"]


def test_a_folder_that_is_written_to_gives_a_prefix_of_the_writes_and_says_whether_its_position_is_proven(
    cluster: Cluster, tmp_path: Path
) -> None:
    stop, rows_at_start = threading.Event(), len(cluster.primary.bodies())
    start = int(cluster.primary.position()[0], 16)

    def write() -> None:
        while not stop.wait(0.02):
            cluster.primary.insert("under load")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = folder.copy(cluster.primary.data, DATABASE, tmp_path / "copy.sqlite", tries=60, pause=0.01)
    finally:
        stop.set()
        writer.join()
    rows = bodies(tmp_path / "copy.sqlite")
    assert rows == cluster.primary.bodies()[: len(rows)]
    assert made["position_proven"]
    assert int(made["txid"], 16) - start == len(rows) - rows_at_start


def test_a_folder_after_a_power_cut_gives_what_litefs_would_start_with(cluster: Cluster, tmp_path: Path) -> None:
    cluster.primary.insert("the last")
    position, rows = cluster.primary.position(), cluster.primary.bodies()
    cluster.primary.kill()
    made = folder.copy(cluster.primary.data, DATABASE, tmp_path / "copy.sqlite")
    assert (made["txid"], made["checksum"]) == position and made["position_proven"]
    assert bodies(tmp_path / "copy.sqlite") == rows


def test_a_folder_with_a_damaged_database_is_refused_and_leaves_no_copy(cluster: Cluster, tmp_path: Path) -> None:
    cluster.primary.stop()
    database = cluster.primary.data / "dbs" / DATABASE / "database"
    content = bytearray(database.read_bytes())
    content[:100] = bytes(100)
    database.write_bytes(content)
    with pytest.raises(sqlitefile.BadFile):
        folder.copy(cluster.primary.data, DATABASE, tmp_path / "copy.sqlite", tries=1)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")]

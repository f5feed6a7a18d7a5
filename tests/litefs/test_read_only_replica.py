"""The read-only mount of a replica (roles/app/files/read_only_replica.sh) under real LiteFS, in both journal modes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from litefs_cluster import DATABASE, MIGRATE, REPOSITORY, SAFE_CANDIDATE, SERVER, Cluster, MakeCluster, Node, until

SCRIPT = REPOSITORY / "roles" / "app" / "files" / "read_only_replica.sh"
# What better-sqlite3's get() does: the first row is read, and the statement is reset, which is where the commit fails.
LOSE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=2)
rows = db.execute("INSERT INTO records (body) VALUES ('lost'), ('lost'), ('lost') RETURNING id")
print(rows.fetchone()[0])
rows.close()
"""
MANY = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
    " INSERT INTO records (body) SELECT 'many' FROM n"
)


def read_only(node: Node) -> None:
    """The step as litefs.yml has it, before the application."""
    step = f"sh {SCRIPT} {SAFE_CANDIDATE} {node.mount} {node.data}"
    node.settings.exec = [(MIGRATE, True), (step, False), (SERVER, False)]


def cluster_of(make_cluster: MakeCluster, mode: str, size: int = 2) -> Cluster:
    cluster = make_cluster(size).with_app(mode)
    for node in cluster.nodes:
        read_only(node)
    return cluster


def write_and_drop_the_rows(node: Node, database: str = DATABASE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LOSE, str(node.mount / database)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def lost(node: Node) -> int:
    return int(node.query("SELECT count(*) FROM records WHERE body = 'lost'")[0][0])


def refused(node: Node, database: str = DATABASE) -> bool:
    done = write_and_drop_the_rows(node, database)
    return done.returncode != 0 and "attempt to write a readonly database" in done.stderr


def sound(node: Node, mode: str) -> bool:
    return [node.query(f"PRAGMA {pragma}") for pragma in ("integrity_check", "journal_mode")] == [[("ok",)], [(mode,)]]


def test_without_it_a_replica_in_wal_mode_takes_a_row_and_keeps_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2).with_app("wal").start()
    cluster.wait_replicated()
    done = write_and_drop_the_rows(cluster.replicas[0])
    assert done.returncode == 0 and done.stdout.strip() == "1", done
    assert lost(cluster.replicas[0]) == lost(cluster.primary) == 0


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_every_write_on_a_replica_is_an_error_at_once_and_reads_follow(make_cluster: MakeCluster, mode: str) -> None:
    cluster = cluster_of(make_cluster, mode).start()
    replica = cluster.replicas[0]
    assert f"{replica.mount} is read-only" in replica.log()
    cluster.wait_replicated()
    for number in range(3):
        assert refused(replica) and refused(replica), number
        assert cluster.primary.post(f"row {number}").status == 201
        cluster.wait_replicated()
        assert replica.bodies() == [f"row {n}" for n in range(number + 1)]
    with replica.database() as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("CREATE TABLE other (x)")
    assert sound(replica, mode) and "read only replica" not in replica.log(), "LiteFS was never asked to write"
    assert replica.stop() == 0 and not os.path.ismount(replica.mount)
    replica.start()
    cluster.wait_replicated()
    assert refused(replica) and sound(replica, mode)
    assert not refused(cluster.primary) and cluster.primary.post("still written").status == 201


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_databases_that_come_later_are_read_only_and_can_be_opened(make_cluster: MakeCluster, mode: str) -> None:
    cluster = make_cluster(2)
    replica = cluster.replicas[0]
    replica.settings.exec = [
        (f"sh {SCRIPT} {SAFE_CANDIDATE} {replica.mount} {replica.data}", False),
        ("sleep 600", False),
    ]
    cluster.start()
    until(lambda: f"{replica.mount} is read-only" in replica.log())
    cluster.primary.create(mode)
    with closing(sqlite3.connect(cluster.primary.mount / "second.db", isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode={mode}")
        db.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, body TEXT)")
    until(lambda: replica.bodies() == ["row 1", "row 2", "row 3"], 10, "the database can be opened")
    until(lambda: refused(replica) and refused(replica, "second.db"), 10, "both are read-only")
    assert sound(replica, mode)


def test_a_change_to_wal_reaches_a_replica_that_began_with_a_rollback_journal(make_cluster: MakeCluster) -> None:
    cluster = cluster_of(make_cluster, "delete").start()
    with cluster.primary.database() as db:
        assert db.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    cluster.primary.insert("in WAL")
    cluster.wait_replicated()
    assert cluster.replicas[0].bodies() == ["in WAL"]
    assert refused(cluster.replicas[0]) and sound(cluster.replicas[0], "wal")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_readers_see_whole_transactions_and_never_go_back(make_cluster: MakeCluster, mode: str) -> None:
    """Counts are read while transactions of many rows, single writes and checkpoints go on at the primary."""
    cluster = cluster_of(make_cluster, mode).start()
    cluster.wait_replicated()
    replica, seen, errors = cluster.replicas[0], [], []
    over = threading.Event()

    def look() -> None:
        with closing(sqlite3.connect(f"file:{replica.mount / DATABASE}?mode=rw", uri=True, timeout=10)) as db:
            while not over.is_set():
                try:
                    seen.append(db.execute("SELECT count(*) FROM records").fetchone()[0])
                except sqlite3.Error as error:
                    errors.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        with cluster.primary.database(10) as db:
            for _round in range(3):
                db.execute(MANY)
                for number in range(20):
                    db.execute("INSERT INTO records (body) VALUES (?)", (f"one {number}",))
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        cluster.wait_replicated(20)
        time.sleep(0.2)
    finally:
        over.set()
        reader.join(20)
    assert not errors and len(seen) > 20, (errors, len(seen))
    assert seen == sorted(seen) and seen[-1] == 60060
    assert {count % 20000 for count in seen} <= set(range(61)), "half of a transaction was seen"
    assert sound(replica, mode)


def test_where_the_mount_cannot_be_changed_the_application_starts_and_the_log_says_so(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    refusing = tmp_path / "mount"
    refusing.write_text("#!/bin/sh\necho 'mount: permission denied' >&2\nexit 1\n")
    refusing.chmod(0o755)
    cluster = cluster_of(make_cluster, "wal")
    cluster.replicas[0].settings.env["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    cluster.start()
    (line,) = [line for line in cluster.replicas[0].log().splitlines() if line.startswith("read-only replica: ")]
    assert "NOT made" in line and line.endswith("(mount: permission denied)")
    cluster.wait_replicated()


def test_a_replica_that_becomes_primary_by_a_new_start_writes(make_cluster: MakeCluster) -> None:
    cluster = cluster_of(make_cluster, "wal").start()
    cluster.wait_replicated()
    old, new = cluster.nodes
    moved = SAFE_CANDIDATE.replace("-0", "-1")
    for node in cluster.nodes:
        assert node.stop() == 0
        node.primary = new
        node.settings.candidate = moved
        node.settings.exec = [(command.replace(SAFE_CANDIDATE, moved), only) for command, only in node.settings.exec]
    new.start()
    old.start()
    assert new.post("by the new primary").status == 201
    until(lambda: old.bodies() == ["by the new primary"])
    assert refused(old) and not refused(new)

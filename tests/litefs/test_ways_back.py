"""What the runbooks on locked writes and on the journal mode rest on, with real LiteFS."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from litefs_cluster import DATABASE, Cluster, MakeCluster, Node
from test_failure_modes import GROW, run_sql


def pair(make_cluster: MakeCluster) -> Cluster:
    cluster = make_cluster(2).start()
    cluster.primary.create("wal")
    run_sql(cluster.primary, GROW)
    cluster.wait_replicated()
    return cluster


def new_volume(node: Node) -> None:
    node.kill()
    node.unmount()
    node.empty_volume()
    node.start()


@pytest.mark.parametrize("restarted", [False, True], ids=["", "primary restarted first"])
def test_replicas_that_a_change_of_the_journal_mode_ended_follow_again_on_new_volumes(
    make_cluster: MakeCluster, restarted: bool
) -> None:
    cluster = pair(make_cluster)
    run_sql(cluster.primary, "PRAGMA journal_mode=DELETE")
    (replica,) = cluster.replicas
    assert replica.exit_code() == 99, "the change alone ends it, before any other write"
    replica.unmount()
    replica.launch()
    assert replica.exit_code() == 1 and "does not match LTX post-apply checksum" in replica.log(), "and for good"
    cluster.primary.insert("acknowledged since")
    if restarted:
        assert cluster.primary.stop() == 0
        cluster.primary.start()
    new_volume(replica)
    cluster.primary.insert("and after")
    cluster.wait_replicated()
    assert replica.bodies()[-2:] == ["acknowledged since", "and after"] and len(replica.bodies()) == 3005
    assert replica.query("PRAGMA journal_mode") == [("delete",)]
    assert replica.query("PRAGMA integrity_check") == [("ok",)]


SHRINK = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=1)
for statement in ("DELETE FROM records WHERE id > 1500", "VACUUM", "INSERT INTO records (body) VALUES ('after')"):
    db.execute(statement).fetchall()
print("all three are acknowledged", flush=True)
time.sleep(600)
"""


def test_what_was_acknowledged_after_the_lock_is_in_the_wal_until_litefs_starts_again(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """The connection that shrank the file goes on writing: no other sees an error there, and no replica ever has it."""
    cluster = pair(make_cluster)
    primary, (replica,) = cluster.primary, cluster.replicas
    kept = replica.bodies()
    command = [sys.executable, "-c", SHRINK, str(primary.mount / DATABASE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "all three are acknowledged\n"
        before = primary.position()
        with pytest.raises(sqlite3.OperationalError, match="locked"), primary.database(0.5) as other:
            other.execute("INSERT INTO records (body) VALUES ('never acknowledged')")
        assert "panic in handler" in primary.log() and primary.position() == before
        # As the runbook does: the application is halted, and both files are copied.
        writer.send_signal(signal.SIGSTOP)
        folder = primary.data / "dbs" / DATABASE
        shutil.copy(folder / "database", tmp_path / "saved.sqlite")
        shutil.copy(folder / "wal", tmp_path / "saved.sqlite-wal")
        primary.kill()
        writer.kill()
    with closing(sqlite3.connect(tmp_path / "saved.sqlite", isolation_level=None)) as saved:
        assert saved.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert [row[0] for row in saved.execute("SELECT body FROM records ORDER BY id")] == [*kept[:1500], "after"]
    primary.unmount()
    primary.launch()
    assert primary.exit_code() == 1 and "cannot open store" in primary.log()
    assert (folder / "wal").stat().st_size == 0 if (folder / "wal").exists() else (folder / "wal.removed").exists()
    # The way on: the replica takes over, with all but what came after the lock.
    assert replica.bodies() == kept[:1500] and replica.stop() == 0
    replica.primary, replica.settings.candidate = replica, "true"
    replica.start()
    replica.insert("written again")


def test_a_primary_that_was_locked_alone_comes_back_by_a_restart(make_cluster: MakeCluster) -> None:
    """Where no page of the shrunken file was put into the database file yet."""
    cluster = pair(make_cluster)
    run_sql(cluster.primary, "DELETE FROM records WHERE id > 3")
    run_sql(cluster.primary, "VACUUM")
    assert "panic in handler" in cluster.primary.log()
    cluster.primary.kill()
    cluster.primary.unmount()
    cluster.primary.start()
    cluster.primary.insert("written again")
    cluster.wait_replicated()
    for node in cluster.nodes:
        assert node.bodies() == ["row 1", "row 2", "row 3", "written again"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_that_was_removed_is_there_again_on_every_node_once_it_is_imported(
    make_cluster: MakeCluster, mode: str
) -> None:
    cluster = make_cluster(2).start()
    cluster.primary.create(mode)
    cluster.wait_replicated()
    (replica,) = cluster.replicas
    rows, before = replica.bodies(), cluster.primary.position()
    saved = replica.call("GET", f"/export?name={DATABASE}").body
    (cluster.primary.mount / DATABASE).unlink()
    cluster.wait_replicated()
    assert replica.position()[0] > before[0] and int(replica.position()[1], 16) == 1 << 63
    assert cluster.primary.call("POST", f"/import?name={DATABASE}", saved).status == 200
    cluster.wait_replicated()
    cluster.primary.insert("after")
    cluster.wait_replicated()
    for node in (cluster.primary, replica):
        assert node.bodies() == [*rows, "after"] and node.query("PRAGMA integrity_check") == [("ok",)]

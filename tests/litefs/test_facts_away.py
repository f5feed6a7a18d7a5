"""A primary that is away, and what wedges or ends a node: the facts under readiness, the edge and the application."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from litefs_cluster import DATABASE, REPOSITORY, Cluster, MakeCluster, Node, request, until

sys.path.insert(0, str(REPOSITORY / "tests" / "tools"))
import writer


@pytest.fixture
def orphans(make_cluster: MakeCluster) -> Cluster:
    """One record replicated, max-lag 1 s, and the primary killed."""
    cluster = make_cluster(2).with_app("delete")
    cluster.replicas[0].settings.proxy |= {"max-lag": "1s", "primary-redirect-timeout": "1s"}
    cluster.start()
    assert cluster.primary.post("kept").status == 201
    cluster.wait_replicated()
    cluster.primary.kill()
    return cluster


def test_fact_a_replica_serves_reads_while_the_primary_is_away_and_answers_writes_503(orphans: Cluster) -> None:
    replica = orphans.replicas[0]
    assert request(replica.proxy, "GET", "/api/records/count").json() == {"count": 1, "pod": replica.name}
    until(lambda: request(replica.proxy, "GET", "/litefs/health").status == 503, 5, "lag over max-lag")
    for _ in range(20):
        assert request(replica.proxy, "GET", "/api/records/count").json()["count"] == 1
    assert request(replica.proxy, "GET", "/api/health").status == 200
    until(lambda: replica.info()["primary"]["hostname"] == "")


def test_fact_a_write_on_a_replica_without_its_primary_is_503_or_in_an_attempt_an_empty_200_with_fly_replay(
    orphans: Cluster,
) -> None:
    # In each attempt to reach the primary, for as long as the dial hangs, LiteFS believes that it has one.
    seen = set()
    for _ in range(4):
        answer = orphans.replicas[0].post("lost?")
        replayed = answer.headers.get("fly-replay") == "instance=abaci-app-0"
        assert (answer.status, replayed, answer.body == b"") in {(200, True, True), (503, False, False)}
        seen.add(answer.status)
    assert seen, "no answer"
    assert orphans.replicas[0].bodies() == ["kept"]


def test_fact_a_write_waits_for_a_primary_up_to_the_redirect_timeout_and_is_503(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2).with_app("delete")
    replica = cluster.replicas[0]
    replica.settings.proxy["primary-redirect-timeout"] = "300ms"
    replica.settings.reconnect_delay = "60s"
    cluster.start()
    cluster.primary.kill()
    until(lambda: "disconnected from primary" in replica.log())
    started = time.monotonic()
    answer = replica.post("lost?")
    assert (answer.status, answer.body.strip()) == (503, b"Proxy error: no primary available")
    assert 0.2 < time.monotonic() - started < 2


def test_fact_an_attempt_that_hangs_makes_a_replica_emit_fly_replay_to_nobody(make_cluster: MakeCluster) -> None:
    replica = make_cluster(2).with_app("delete").replicas[0]
    replica.settings.extra = "skip-sync: true"
    # Accepts and says nothing, as a dead pod's address does while the kernel sends SYN after SYN.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        replica.launch(replica.config().replace(f"http://127.0.0.1:{replica.primary.api}", address))
        until(lambda: replica.info()["primary"]["hostname"] == "abaci-app-0")
        for _ in range(3):
            answer = until(lambda: replica.post("lost?"))
            assert (answer.status, answer.body) == (200, b"")
            assert answer.headers["fly-replay"] == "instance=abaci-app-0"


def test_fact_lag_grows_while_the_primary_is_away(orphans: Cluster) -> None:
    replica = orphans.replicas[0]
    until(lambda: int(replica.lag_file()) > 1500)
    assert replica.metric("litefs_lag_seconds") > 1


def test_fact_a_replica_restarted_while_the_primary_is_away_is_up_and_not_ready(orphans: Cluster) -> None:
    replica = orphans.replicas[0]
    replica.kill()
    replica.launch()
    replica.wait_up()
    time.sleep(1)
    with pytest.raises(ConnectionRefusedError):
        request(replica.proxy, "GET", "/litefs/health")
    assert replica.call("GET", "/info").status == 200
    assert replica.bodies() == ["kept"]


def test_fact_replicas_reconnect_in_seconds_once_the_primary_answers_at_its_address(orphans: Cluster) -> None:
    replica = orphans.replicas[0]
    time.sleep(2)
    orphans.primary.start()
    until(lambda: replica.info()["primary"]["hostname"], 5, "reconnected")
    assert orphans.primary.post("after").status == 201
    orphans.wait_replicated(5)
    assert replica.bodies() == ["kept", "after"]


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_fact_no_acknowledged_write_is_missing_on_any_node_after_three_kills_of_the_primary_under_load(
    make_cluster: MakeCluster, tmp_path: Path, journal_mode: str
) -> None:
    cluster = make_cluster(2).with_app(journal_mode).start()
    ledger = tmp_path / "ledger"
    load = writer.Writer(writer.Site(f"http://127.0.0.1:{cluster.primary.proxy}"), ledger, seconds=60, rate=60).start()
    for _ in range(3):
        time.sleep(0.5)
        cluster.primary.kill()
        cluster.primary.start()
    report = load.stop()
    assert report.acknowledged > 20 and report.lost == 0
    cluster.wait_replicated()
    for node in cluster.nodes:
        result = writer.verify(writer.Site(f"http://127.0.0.1:{node.proxy}"), ledger)
        assert result["ok"] and result["found"] == report.acknowledged, result


# Open transactions


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_fact_0_8_an_open_read_transaction_on_a_replica_stops_replay_until_it_ends(
    make_cluster: MakeCluster, journal_mode: str
) -> None:
    cluster = make_cluster(2).start()
    cluster.primary.create(journal_mode)
    cluster.wait_replicated()
    replica = cluster.replicas[0]
    before = replica.position()
    with replica.database() as db:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM records").fetchall()
        cluster.primary.insert("row 4")
        time.sleep(1)
        assert replica.position() == before
        db.execute("COMMIT")
        cluster.wait_replicated(5)
    assert replica.bodies()[-1] == "row 4"


def test_fact_0_8_a_failed_write_left_open_in_a_transaction_wedges_replay(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2).start()
    cluster.primary.create()
    cluster.wait_replicated()
    replica = cluster.replicas[0]
    before = replica.position()
    with replica.database() as db:
        db.execute("BEGIN")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("INSERT INTO records (body) VALUES ('x')")
        db.execute("SELECT 1 FROM records").fetchall()
        cluster.primary.insert("row 4")
        time.sleep(1)
        assert replica.position() == before
        db.execute("ROLLBACK")
        cluster.wait_replicated(5)


# Journal modes


def run_sql(node: Node, *statements: str, seconds: float = 10) -> subprocess.CompletedProcess[str] | None:
    """Statements through the mount in a process of their own; None if they hang."""
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=2)\n"
        "for statement in sys.argv[2:]:\n"
        "    print(db.execute(statement).fetchall())\n"
    )
    command = [sys.executable, "-c", code, str(node.mount / DATABASE), *statements]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None


GROW = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    " INSERT INTO records (body) SELECT hex(randomblob(500)) FROM n"
)


def test_fact_0_9_after_a_vacuum_in_wal_mode_no_write_is_replicated_even_where_sqlite_reports_success(
    make_cluster: MakeCluster,
) -> None:
    primary = make_cluster(1).start().primary
    primary.create("wal")
    for statement in (GROW, "DELETE FROM records WHERE id > 3", "VACUUM"):
        result = run_sql(primary, statement)
        assert result and result.returncode == 0, result
    until(lambda: "fuse: panic in handler" in primary.log(), 5, "the panic")
    before = primary.position()
    # By chance of timing the insert is refused, hangs, or is acknowledged; the position stays in all three.
    result = run_sql(primary, "INSERT INTO records (body) VALUES ('x')")
    assert result is None or result.returncode == 0 or "database is locked" in result.stderr, result
    assert primary.position() == before


def test_fact_vacuum_in_delete_mode_works_and_is_replicated(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2).start()
    cluster.primary.create()
    for statement in (GROW, "DELETE FROM records WHERE id > 3", "VACUUM"):
        result = run_sql(cluster.primary, statement)
        assert result and result.returncode == 0, result
    cluster.wait_replicated()
    assert cluster.replicas[0].bodies() == ["row 1", "row 2", "row 3"]


def test_fact_0_10_wal_back_to_delete_on_a_living_cluster_ends_the_replicas_with_99(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2).start()
    cluster.primary.create("wal")
    cluster.wait_replicated()
    run_sql(cluster.primary, "PRAGMA journal_mode=DELETE", "INSERT INTO records (body) VALUES ('x')")
    assert cluster.replicas[0].exit_code() == 99
    cluster.replicas[0].launch()
    assert cluster.replicas[0].exit_code() == 1


def test_fact_delete_to_wal_on_a_living_cluster_is_replicated(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2).start()
    cluster.primary.create("delete")
    cluster.wait_replicated()
    result = run_sql(cluster.primary, "PRAGMA journal_mode=WAL", "INSERT INTO records (body) VALUES ('row 4')")
    assert result and result.returncode == 0
    cluster.wait_replicated()
    assert cluster.replicas[0].bodies()[-1] == "row 4"
    assert cluster.replicas[0].query("PRAGMA journal_mode") == [("wal",)]


def test_fact_8_9_a_replica_ended_by_a_checksum_is_back_after_its_database_folder_is_removed(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(2).start()
    replica = cluster.replicas[0]
    cluster.primary.create("wal")
    cluster.wait_replicated()
    run_sql(cluster.primary, "PRAGMA journal_mode=DELETE", "INSERT INTO records (body) VALUES ('row 4')")
    assert replica.exit_code() == 99
    replica.unmount()
    shutil.rmtree(replica.data / "dbs" / DATABASE)
    replica.start()
    cluster.wait_replicated()
    assert replica.bodies()[-1] == "row 4"

"""Cluster ids, positions and volumes: the facts under the identity guard and its runbook."""

from __future__ import annotations

import shutil
import socket

import pytest
from litefs_cluster import DATABASE, Cluster, MakeCluster, Node, until

NEVER_SYNCED = "+2147483647"


def three_rows(make_cluster: MakeCluster, size: int = 2, journal_mode: str = "delete") -> Cluster:
    """A cluster with a database of three rows, replicated."""
    cluster = make_cluster(size).start()
    cluster.primary.create(journal_mode)
    cluster.wait_replicated()
    return cluster


def restart_primary(cluster: Cluster, *, ready: bool = True) -> None:
    if cluster.primary.process and cluster.primary.process.poll() is None:
        cluster.primary.kill()
    cluster.primary.launch()
    if ready:
        cluster.primary.wait_ready()


def reconnected(replica: Node) -> bool:
    return bool(replica.info()["primary"]["hostname"]) and int(replica.lag_file()) < 2000


def refused(replica: Node) -> bool:
    return "cannot stream from primary with a different cluster id" in replica.log()


# An empty primary


@pytest.fixture
def empty_primary(make_cluster: MakeCluster) -> Cluster:
    """Rows on a replica, and the primary started on an empty volume."""
    cluster = three_rows(make_cluster)
    cluster.primary.kill()
    cluster.primary.unmount()
    cluster.primary.empty_volume()
    restart_primary(cluster)
    return cluster


def test_fact_0_2_an_empty_primary_founds_a_new_cluster_and_replicas_keep_their_data(empty_primary: Cluster) -> None:
    primary, replica = empty_primary.primary, empty_primary.replicas[0]
    until(lambda: refused(replica))
    assert primary.cluster_id() != replica.cluster_id()
    assert primary.databases() == {}
    assert "set cluster id on" in primary.log() and "using existing cluster id" not in primary.log()
    primary.create(rows=1)
    # Replica's rows are untouched however many attempts there are.
    until(lambda: replica.log().count("different cluster id") >= 2)
    assert replica.bodies() == ["row 1", "row 2", "row 3"]
    mine, theirs = replica.cluster_id(), primary.cluster_id()
    assert f"different cluster id: {mine} <> {theirs}" in replica.log()


def test_fact_a_mismatch_logs_stream_connected_on_the_primary_again_and_again(empty_primary: Cluster) -> None:
    until(lambda: empty_primary.primary.log().count("stream connected") >= 2)
    assert empty_primary.primary.log().count("stream disconnected") >= 1


def test_fact_0_7_a_replica_restarted_in_a_mismatch_shows_lag_0_and_only_the_lag_file_tells(
    empty_primary: Cluster,
) -> None:
    replica = empty_primary.replicas[0]
    replica.kill()
    replica.launch()
    replica.wait_up()
    until(lambda: refused(replica))
    assert replica.metric("litefs_lag_seconds") == 0
    assert replica.lag_file() == NEVER_SYNCED


def test_fact_a_waiting_replica_answers_info_vars_metrics_and_export_but_no_proxy(empty_primary: Cluster) -> None:
    replica = empty_primary.replicas[0]
    position, identity = replica.position(), replica.cluster_id()
    replica.kill()
    replica.launch()
    replica.wait_up()
    until(lambda: refused(replica))
    info = replica.info()
    assert (info["clusterID"], info["isPrimary"]) == (identity, False)
    assert replica.position() == position
    assert replica.metric("litefs_is_primary") == 0
    assert replica.call("GET", f"/export?name={DATABASE}").body.startswith(b"SQLite format 3")
    assert replica.bodies() == ["row 1", "row 2", "row 3"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", replica.proxy), timeout=2)


def test_fact_0_4_an_empty_primary_with_the_same_id_replaces_every_replicas_data(make_cluster: MakeCluster) -> None:
    cluster = three_rows(make_cluster)
    identity = cluster.primary.cluster_id()
    cluster.primary.kill()
    cluster.primary.unmount()
    cluster.primary.empty_volume()
    (cluster.primary.data / "clusterid").write_text(identity)
    restart_primary(cluster)
    cluster.primary.create(rows=0)
    until(lambda: cluster.replicas[0].bodies() == [], 10, "the replica's rows are gone")
    assert cluster.primary.cluster_id() == identity


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_fact_0_5_an_older_volume_of_the_primary_rolls_replicas_back_without_an_error(
    make_cluster: MakeCluster, journal_mode: str
) -> None:
    cluster = three_rows(make_cluster, journal_mode=journal_mode)
    cluster.primary.kill()
    shutil.copytree(cluster.primary.data, cluster.primary.root / "older")
    restart_primary(cluster)
    cluster.primary.insert("row 4")
    cluster.wait_replicated()
    newest = cluster.primary.position()[0]
    cluster.primary.kill()
    cluster.primary.copy_volume(cluster.primary.root / "older")
    restart_primary(cluster)
    until(lambda: cluster.replicas[0].bodies() == ["row 1", "row 2", "row 3"], 10, "the replica is rolled back")
    assert cluster.replicas[0].position()[0] < newest
    assert "exceeds primary transaction id" in cluster.primary.log()


def test_fact_a_database_the_primary_lacks_is_not_dropped_on_a_replica(make_cluster: MakeCluster) -> None:
    cluster = three_rows(make_cluster)
    identity = cluster.primary.cluster_id()
    cluster.primary.kill()
    cluster.primary.unmount()
    cluster.primary.empty_volume()
    (cluster.primary.data / "clusterid").write_text(identity)
    restart_primary(cluster)
    until(lambda: reconnected(cluster.replicas[0]))
    assert cluster.replicas[0].bodies() == ["row 1", "row 2", "row 3"]


def test_fact_removing_the_database_on_the_primary_is_a_replicated_drop(make_cluster: MakeCluster) -> None:
    cluster = three_rows(make_cluster)
    (cluster.primary.mount / DATABASE).unlink()
    until(lambda: not (cluster.replicas[0].mount / DATABASE).exists())


# The clusterid file


def test_fact_a_primary_that_lost_only_its_id_goes_on_once_the_recorded_id_is_written(
    make_cluster: MakeCluster,
) -> None:
    cluster = three_rows(make_cluster)
    identity = cluster.primary.cluster_id()
    cluster.primary.kill()
    (cluster.primary.data / "clusterid").unlink()
    restart_primary(cluster)
    assert cluster.primary.cluster_id() != identity
    until(lambda: refused(cluster.replicas[0]))
    cluster.primary.kill()
    (cluster.primary.data / "clusterid").write_text(identity)
    restart_primary(cluster)
    assert "using existing cluster id: " in cluster.primary.log() and identity in cluster.primary.log()
    until(lambda: reconnected(cluster.replicas[0]))
    cluster.primary.insert("row 4")
    cluster.wait_replicated()
    assert cluster.replicas[0].bodies()[-1] == "row 4"


def test_fact_an_id_written_by_printf_is_accepted_with_and_without_a_newline(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).primary
    accepted = {}
    for text in ("LFSCabcdefghij012345", "LFSCABCDEF0123456789\n"):
        (node.data / "clusterid").write_text(text)
        node.launch()
        try:
            node.wait_ready()
            accepted[text] = node.cluster_id() == text.strip()
        except AssertionError:
            accepted[text] = False
        node.kill()
        node.unmount()
    assert accepted == {"LFSCabcdefghij012345": True, "LFSCABCDEF0123456789\n": True}


@pytest.mark.parametrize("text", ["", "LFSC", "ABCD0123456789ABCDEF", "LFSC0123456789ABCDEF0"])
def test_fact_a_malformed_id_stops_the_start(make_cluster: MakeCluster, text: str) -> None:
    node = make_cluster(1).primary
    (node.data / "clusterid").write_text(text)
    node.launch()
    assert node.exit_code() == 1
    assert "load cluster id: invalid cluster id" in node.log()


@pytest.mark.parametrize("lost", ["clusterid", "clusterid and dbs"])
def test_fact_a_replica_without_an_id_adopts_the_primarys_and_takes_its_data(
    make_cluster: MakeCluster, lost: str
) -> None:
    cluster = three_rows(make_cluster)
    replica = cluster.replicas[0]
    replica.kill()
    (replica.data / "clusterid").write_text("LFSC0123456789ABCDEF")
    replica.launch()
    replica.wait_up()
    until(lambda: refused(replica))
    replica.kill()
    (replica.data / "clusterid").unlink()
    if lost != "clusterid":
        replica.unmount()
        shutil.rmtree(replica.data / "dbs")
    replica.start()
    cluster.wait_replicated()
    assert replica.cluster_id() == cluster.primary.cluster_id()
    assert (replica.data / "clusterid").read_text().strip() == cluster.primary.cluster_id()
    assert replica.bodies() == ["row 1", "row 2", "row 3"]


def test_fact_a_new_replica_takes_a_snapshot(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    cluster.primary.start()
    cluster.primary.create(rows=20)
    cluster.replicas[0].start()
    cluster.wait_replicated()
    assert "snapshot received for " in cluster.replicas[0].log()
    assert len(cluster.replicas[0].bodies()) == 20


# The ways back of the runbook


def test_fact_8_2_3a_the_primary_on_a_replicas_volume_goes_on_without_a_snapshot(make_cluster: MakeCluster) -> None:
    cluster = three_rows(make_cluster, 3)
    first, second = cluster.replicas
    position, identity = cluster.primary.position(), cluster.primary.cluster_id()
    snapshots = second.log().count("snapshot received")
    cluster.primary.kill()
    cluster.primary.unmount()
    first.kill()
    cluster.primary.copy_volume(first.data)
    restart_primary(cluster)
    assert (cluster.primary.position(), cluster.primary.cluster_id()) == (position, identity)
    first.start()
    until(lambda: reconnected(second))
    cluster.primary.insert("row 4")
    cluster.wait_replicated()
    assert second.bodies() == ["row 1", "row 2", "row 3", "row 4"]
    assert "snapshot received" not in first.log()
    assert second.log().count("snapshot received") == snapshots


def test_fact_8_2_3b_the_recorded_id_without_exec_then_an_import_restores_every_node(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(2).with_app("delete").start()
    replica = cluster.replicas[0]
    assert cluster.primary.post("kept").status == 201
    cluster.wait_replicated()
    identity = cluster.primary.cluster_id()
    cluster.primary.kill()
    cluster.primary.unmount()
    export = replica.call("GET", f"/export?name={DATABASE}").body
    cluster.primary.empty_volume()
    (cluster.primary.data / "clusterid").write_text(identity)
    commands, cluster.primary.settings.exec = cluster.primary.settings.exec, []
    restart_primary(cluster)
    until(lambda: reconnected(replica))
    assert replica.bodies() == ["kept"]
    assert cluster.primary.call("POST", f"/import?name={DATABASE}", export).status == 200
    cluster.wait_replicated()
    assert cluster.primary.stop() == 0
    cluster.primary.settings.exec = commands
    restart_primary(cluster)
    assert cluster.primary.post("new").status == 201
    cluster.wait_replicated()
    assert [node.bodies() for node in cluster.nodes] == [["kept", "new"]] * 2
    assert cluster.primary.cluster_id() == identity


def test_fact_the_kept_volume_of_the_primary_put_back_loses_nothing(make_cluster: MakeCluster) -> None:
    cluster = three_rows(make_cluster)
    kept = cluster.primary.root / "kept"
    position = cluster.primary.position()
    cluster.primary.kill()
    cluster.primary.unmount()
    cluster.primary.data.rename(kept)
    cluster.primary.data.mkdir()
    restart_primary(cluster)
    until(lambda: refused(cluster.replicas[0]))
    cluster.primary.kill()
    cluster.primary.unmount()
    cluster.primary.copy_volume(kept)
    restart_primary(cluster)
    assert cluster.primary.position() == position
    until(lambda: reconnected(cluster.replicas[0]))
    cluster.primary.insert("row 4")
    cluster.wait_replicated()
    assert cluster.replicas[0].bodies() == ["row 1", "row 2", "row 3", "row 4"]


def test_fact_8_5_two_candidates_both_write_and_the_wrong_ones_rows_go_without_an_error(
    make_cluster: MakeCluster,
) -> None:
    cluster = three_rows(make_cluster)
    wrong = cluster.replicas[0]
    wrong.kill()
    wrong.settings.candidate = "true"
    wrong.start()
    assert wrong.cluster_id() == cluster.primary.cluster_id()
    wrong.insert("theirs")
    cluster.primary.insert("ours")
    assert wrong.bodies()[-1] == "theirs"
    wrong.kill()
    wrong.settings.candidate = "false"
    wrong.start()
    until(lambda: wrong.bodies() == ["row 1", "row 2", "row 3", "ours"])

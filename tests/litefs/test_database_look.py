"""What site.yml sees of the living database (module_utils/database_look.py), from real LiteFS."""

from __future__ import annotations

import threading
import time

import direct
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import database_look, kube
from litefs_cluster import DATABASE, Cluster, MakeCluster, until
from test_failure_modes import GROW, run_sql

WHERE = ("abaci", "abaci-app-0", 20202, DATABASE)


def position(cluster: Cluster) -> dict[str, str]:
    txid, _checksum = cluster.primary.position()
    return {"txid": txid}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_header_of_the_living_database_while_it_is_written_to(make_cluster: MakeCluster, mode: str) -> None:
    cluster = make_cluster(1).start()
    cluster.primary.create(mode)
    api, over = direct.Api(cluster), threading.Event()

    def write() -> None:
        while not over.is_set():
            cluster.primary.insert("more")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _look in range(20):
            seen = database_look.header(api, *WHERE)
            assert (seen["journal_mode"], seen["page_size"], seen["auto_vacuum"]) == (mode, 4096, False)
    finally:
        over.set()
        writer.join(10)
    run_sql(cluster.primary, GROW)
    assert database_look.header(api, *WHERE)["pages"] > 256
    cluster.primary.insert("still")
    assert database_look.locked(api, *WHERE, position(cluster)) is None


def test_auto_vacuum_shows_before_it_does_harm(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1).start()
    run_sql(cluster.primary, "PRAGMA auto_vacuum=FULL", "PRAGMA journal_mode=WAL", "CREATE TABLE records (body)")
    seen = database_look.header(direct.Api(cluster), *WHERE)
    assert seen["auto_vacuum"] and seen["journal_mode"] == "wal"
    (note,) = database_look.notes(seen, "wal", True, [], DATABASE)
    assert "auto_vacuum" in note


@pytest.mark.parametrize("how", ["VACUUM", "auto_vacuum and a DELETE"])
def test_a_primary_whose_writes_are_locked_for_good_is_seen_though_it_calls_itself_well(
    make_cluster: MakeCluster, how: str
) -> None:
    cluster = make_cluster(2).start()
    if how != "VACUUM":
        run_sql(cluster.primary, "PRAGMA auto_vacuum=FULL", "CREATE TABLE first (x)")
    cluster.primary.create("wal")
    run_sql(cluster.primary, GROW)
    cluster.wait_replicated()
    # A cache that spills would end LiteFS (exit 99) instead: pages past the new end are in the WAL then.
    delete = ["PRAGMA cache_size=-100000", "DELETE FROM records WHERE id > 3"]
    run_sql(cluster.primary, *delete, *([how] if how == "VACUUM" else []))
    api, before = direct.Api(cluster), position(cluster)
    assert cluster.primary.info()["isPrimary"], "LiteFS says that all is well"
    with pytest.raises(kube.KubeError, match="was not answered within"):
        database_look.header(api, *WHERE, timeout=2)
    said = database_look.locked(api, *WHERE, before)
    assert said and "panic in handler" in said and database_look.WRITES_LOCKED in said


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_transaction_that_stays_open_is_named_as_what_it_is(make_cluster: MakeCluster, mode: str) -> None:
    cluster = make_cluster(1).start()
    cluster.primary.create(mode)
    api = direct.Api(cluster)
    with cluster.primary.database() as db:
        db.execute("BEGIN EXCLUSIVE")
        time.sleep(0.2)
        with pytest.raises(kube.KubeError, match="was not answered within"):
            database_look.header(api, *WHERE, timeout=1)
        said = database_look.locked(api, *WHERE, position(cluster))
        assert said and "a transaction is open" in said
        db.execute("COMMIT")
    until(lambda: database_look.header(api, *WHERE, timeout=2))
    assert database_look.locked(api, *WHERE, position(cluster)) is None

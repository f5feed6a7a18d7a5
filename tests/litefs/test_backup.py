"""Backups of the real LiteFS: what is taken for one, and what is not."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import direct
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import (
    checksum,
    export,
    retention,
    sqlitefile,
    transfer,
)
from litefs_cluster import DATABASE, Cluster, request, until

MakeCluster = Callable[..., Cluster]


@pytest.fixture(params=["delete", "wal"])
def cluster(request: pytest.FixtureRequest, make_cluster: MakeCluster) -> Cluster:
    """A primary and a replica with some rows, in both journal modes."""
    pair = make_cluster(2)
    pair.primary.start()
    pair.primary.create(request.param, rows=50)
    pair.replicas[0].start()
    pair.wait_replicated()
    return pair


def bodies(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT body FROM records ORDER BY id")]


def test_the_checksum_that_is_computed_of_an_export_is_the_one_that_litefs_shows(
    cluster: Cluster, tmp_path: Path
) -> None:
    site = direct.site(cluster)
    manifest = export.export(site, "abaci-app-1", tmp_path, reason="backup")
    txid, shown = cluster.primary.position()
    assert (manifest["txid"], manifest["checksum"]) == (txid, shown)
    assert manifest["cluster_id"] == cluster.primary.cluster_id() and manifest["verified"] is True
    assert bodies(Path(manifest["path"])) == cluster.primary.bodies()
    assert json.loads(Path(manifest["manifest"]).read_text())["sha256"] == manifest["sha256"]
    assert Path(manifest["path"]).stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 2, "nothing but the file and its manifest"


def test_an_export_while_the_primary_is_written_to_has_a_position_and_a_prefix_of_the_writes(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The reply states no position: it is proven by the checksum of a position around it, or of the log line."""
    site = direct.site(cluster)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            cluster.primary.insert(f"under load {number}")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        manifests = [export.export(site, "abaci-app-1", tmp_path, reason="backup") for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    everything = cluster.primary.bodies()
    for manifest in manifests:
        rows = bodies(Path(manifest["path"]))
        assert rows == everything[: len(rows)]
        # 51 transactions at the start, then one a row: the TXID says how many rows there have to be.
        assert int(manifest["txid"], 16) - int(manifests[0]["txid"], 16) == len(rows) - len(
            bodies(Path(manifests[0]["path"]))
        )


def test_hazard_8_12_an_export_that_breaks_off_leaves_nothing_that_looks_like_a_backup(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = direct.site(cluster)
    whole = transfer.download

    def cut(*arguments: Any, **options: Any) -> dict[str, str]:
        headers: dict[str, str] = whole(*arguments, **options)
        target: Path = arguments[5]
        target.write_bytes(target.read_bytes()[:-100] + b"write snapshot: read database page: input/output error")
        return headers

    monkeypatch.setattr(transfer, "download", cut)
    with pytest.raises(export.Failed, match=r"whole number of 4096-byte pages.*No backup was made"):
        export.export(site, "abaci-app-1", tmp_path, reason="backup")
    assert list(tmp_path.iterdir()) == []


def test_hazard_a_sound_file_of_another_position_is_no_backup(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of two transactions can pass the integrity check; the checksum does not let them."""
    site = direct.site(cluster)
    whole = transfer.download

    def swap(*arguments: Any, **options: Any) -> dict[str, str]:
        headers: dict[str, str] = whole(*arguments, **options)
        target: Path = arguments[5]
        data = bytearray(target.read_bytes())
        data[60:64] = b"\x00\x00\x00\x07"  # the user version: sound, but not what LiteFS has
        target.write_bytes(data)
        return headers

    monkeypatch.setattr(transfer, "download", swap)
    with pytest.raises(export.Failed, match="position cannot be proven"):
        export.export(site, "abaci-app-1", tmp_path, reason="backup")
    assert list(tmp_path.iterdir()) == []


def test_a_mismatched_replica_is_exported_while_it_waits(cluster: Cluster, tmp_path: Path) -> None:
    """GET /export works on a node that is stuck in a mismatch."""
    replica = cluster.replicas[0]
    replica.stop()
    identity = replica.data / "clusterid"
    own = "LFSC0123456789ABCDEF"
    identity.write_text(identity.read_text().replace(identity.read_text().strip(), own))
    replica.launch()
    replica.wait_up()
    until(lambda: "different cluster id" in replica.log(), 10, "the mismatch")
    manifest = export.export(direct.site(cluster), replica.name, tmp_path, reason="before replica_reset")
    assert manifest["cluster_id"] == own
    assert bodies(Path(manifest["path"])) == cluster.primary.bodies()


def test_what_an_import_makes_of_the_checksum_is_known_before(cluster: Cluster, tmp_path: Path) -> None:
    """An import zeroes the change counter and the schema cookie; everything else is the file."""
    site = direct.site(cluster)
    manifest = export.export(site, "abaci-app-1", tmp_path, reason="backup")
    before = cluster.primary.bodies()
    cluster.primary.insert("is taken back by the restore")
    path = Path(manifest["path"])
    transfer.upload(site.api, "abaci", "abaci-app-0", 20202, transfer.name_query("/import", DATABASE), path, 30)
    assert cluster.primary.position()[1] == manifest["imported_checksum"]
    cluster.wait_replicated()
    assert cluster.replicas[0].bodies() == cluster.primary.bodies() == before
    cluster.primary.insert("and life goes on")
    cluster.wait_replicated()


def test_an_encrypted_backup_is_read_back_and_the_plain_file_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a passphrase\n")
    folder, work = tmp_path / "backups", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    command = ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-pass", f"file:{key}"]
    site = direct.site(cluster)
    manifest = export.export(site, "abaci-app-1", folder, reason="backup", encrypt=command)
    written = Path(manifest["path"]).read_bytes()
    assert b"SQLite format 3" not in written and len(list(folder.iterdir())) == 2
    described = export.describe(Path(manifest["path"]), [*command, "-d"], work)
    assert described["verified"] and described["problem"] is None and described["txid"] == manifest["txid"]
    without = export.describe(Path(manifest["path"]), [], work)
    assert not without["verified"] and "restore_decrypt_command" in without["problem"]
    with pytest.raises(export.Failed, match="backup_encrypt_command"):
        export.export(site, "abaci-app-1", folder, reason="backup", encrypt=["false"])
    assert len(list(folder.iterdir())) == 2


def test_a_backup_that_was_changed_afterwards_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    manifest = export.export(direct.site(cluster), "abaci-app-1", tmp_path, reason="backup")
    path = Path(manifest["path"])
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=9")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for left in ("-wal", "-shm"):
        path.with_name(path.name + left).unlink(missing_ok=True)
    described = export.describe(path, [], tmp_path)
    assert not described["verified"] and "was changed" in described["problem"]


def test_retention_keeps_the_newest_and_what_an_operation_took(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = direct.site(cluster)
    export.export(site, "abaci-app-1", tmp_path, reason="before restore")
    made = []
    for number in range(3):
        cluster.primary.insert(f"backup {number}")
        cluster.wait_replicated()
        moment = f"2026-01-0{number + 1}T00:00:00.000000Z"
        monkeypatch.setattr(site.api, "server_time", lambda moment=moment: moment)
        made.append(export.export(site, "abaci-app-1", tmp_path, reason="backup"))
    removed = retention.prune(tmp_path, 2, made[-1])
    assert removed == [made[0]["file"]]
    left = {one["reason"] + one["time"][:10] for one in retention.read(tmp_path)}
    assert "backup2026-01-02" in left and "backup2026-01-03" in left and "backup2026-01-01" not in left
    assert sum(one["reason"] == "before restore" for one in retention.read(tmp_path)) == 1


def test_a_database_of_200_mb_is_exported_verified_and_imported(make_cluster: MakeCluster, tmp_path: Path) -> None:
    source = tmp_path / "big"
    with closing(sqlite3.connect(source)) as db:
        db.execute("CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL)")
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 98000)"
            " INSERT INTO records (body) SELECT hex(randomblob(1000)) FROM n"
        )
        db.commit()
    assert source.stat().st_size > 195_000_000
    one = make_cluster(1)
    one.primary.start()
    site = direct.site(one)
    query = transfer.name_query("/import", DATABASE)
    transfer.upload(site.api, "abaci", "abaci-app-0", 20202, query, source, 60)
    manifest = export.export(site, "abaci-app-0", tmp_path, reason="backup", timeout=60)
    assert manifest["checksum"] == one.primary.position()[1]
    assert manifest["seconds"] < 60
    other = make_cluster(1)
    other.primary.start()
    site = direct.site(other)
    transfer.upload(site.api, "abaci", "abaci-app-0", 20202, query, Path(manifest["path"]), 60)
    assert other.primary.position()[1] == manifest["imported_checksum"]


def test_litefs_does_not_answer_export_for_an_unknown_database(cluster: Cluster) -> None:
    assert request(cluster.primary.api, "GET", "/export?name=other.db").status == 404


def test_crc64_is_gos() -> None:
    """Values of Go's crc64.Checksum with the ISO table."""
    known = {b"": 0, b"a": 0x3420000000000000, b"123456789": 0xB90956C775A41001}
    assert {data: checksum.crc64(data) for data in known} == known
    assert checksum.crc64(bytes((i * 7 + i // 256) & 255 for i in range(4100))) == 0xD2D5650F1C9E6752


def test_a_wal_that_was_left_beside_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "copied"
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t (x)")
    db.commit()
    with pytest.raises(sqlitefile.BadFile, match="transactions that are not in it"):
        sqlitefile.verify(path)
    db.close()
    assert sqlitefile.verify(path)["journal_mode"] == "wal"


def test_a_file_that_sqlite_finds_broken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (x)")
        db.executemany("INSERT INTO t VALUES (?)", [("x" * 500,) for _ in range(200)])
        db.commit()
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)
    with pytest.raises(sqlitefile.BadFile, match="integrity check"):
        sqlitefile.verify(path)

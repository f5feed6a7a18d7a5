"""A copy of k3s's datastore: one state under writes, whole, of one cluster, put back without removing a thing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sqlite3
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import datastore
from ansible_collections.abaci.infra.plugins.modules import cluster_backup_file

STAMP = "2026-01-02T03:04:05Z"
CA = b"-----BEGIN CERTIFICATE-----\n"
CA_HASH = hashlib.sha256(CA).hexdigest()
OTHER = "b" * 64
# kine v0.17.5, pkg/drivers/sqlite/sqlite.go
SCHEMA = (
    "CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER, "
    "create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB)",
    "CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision)",
)


def write(db: sqlite3.Connection, name: str, previous: int, value: bytes) -> int:
    row = (name, 0, 0, previous, 0, value)
    sql = (
        "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value) VALUES (?,?,?,0,?,?,?)"
    )
    return int(db.execute(sql, row).lastrowid or 0)


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A data directory as k3s leaves it."""
    data = tmp_path / "k3s"
    for name, content in {
        "server/token": f"K10{CA_HASH}::server:secret\n".encode(),
        "server/tls/server-ca.crt": CA,
        "server/tls/etcd/peer-ca.key": b"key",
        "server/cred/encryption-config.json": b"{}",
        "server/manifests/my own+chart.yaml": b"kind: HelmChart\n",
        "storage/pvc-1/data": b"a volume",
    }.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
    (data / "server/node-token").symlink_to(data / "server/token")
    (data / "server/db").mkdir()
    with contextlib.closing(sqlite3.connect(data / datastore.DATABASE)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        for statement in SCHEMA:
            db.execute(statement)
        write(db, "compact_rev_key", 0, b"")
        for number in range(50):
            write(db, f"/registry/secrets/abaci/{number}", 0, b"x" * 500)
        db.commit()
    password = tmp_path / "etc/node/password"
    password.parent.mkdir(parents=True)
    password.write_text("of the node\n")
    return data


def make(server: Path, name: str = "copy") -> tuple[Path, dict[str, Any]]:
    folder = server.parent / name
    folder.mkdir()
    archive = folder / "copy.tar.gz"
    return archive, datastore.make(server, server.parent / "etc/node/password", archive, "server-0", STAMP)


@contextlib.contextmanager
def writing(server: Path) -> Iterator[Callable[[], int]]:
    """Two rows in one transaction, again and again, as fast as it goes; gives how many there were."""
    stop, count = threading.Event(), [0]

    def loop() -> None:
        with contextlib.closing(sqlite3.connect(server / datastore.DATABASE, timeout=30)) as db:
            while not stop.is_set():
                with db:
                    for half in "ab":
                        write(db, f"/pair/{count[0]}/{half}", 0, b"y" * 900)
                count[0] += 1

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield lambda: count[0]
    finally:
        stop.set()
        thread.join()


def test_a_copy_under_writes_is_one_state_of_the_datastore(server: Path, tmp_path: Path) -> None:
    with writing(server) as count:
        while count() < 20:
            pass
        before = count()
        archive, note = make(server)
        after = count()
    (tmp_path / "open").mkdir()
    assert datastore.unpack(archive, tmp_path / "open") == note
    with contextlib.closing(sqlite3.connect(tmp_path / "open" / datastore.DATABASE)) as db:
        pairs = db.execute("SELECT count(*) FROM kine WHERE name LIKE '/pair/%'").fetchone()[0]
        odd = db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM kine WHERE name LIKE '/pair/%' GROUP BY create_revision,"
            " substr(name, 1, length(name) - 1) HAVING count(*) != 2)"
        ).fetchone()[0]
    assert odd == 0 and before * 2 <= pairs <= (after + 1) * 2
    assert note["rows"] == pairs + 51 == note["revision"]


def test_a_copy_holds_what_makes_a_server_the_same_cluster_and_no_volume(server: Path) -> None:
    archive, note = make(server)
    assert sorted(note["files"]) == [
        "node/password",
        "server/cred/encryption-config.json",
        "server/db/state.db",
        "server/manifests/my own+chart.yaml",
        "server/tls/etcd/peer-ca.key",
        "server/tls/server-ca.crt",
        "server/token",
    ]
    assert note["ca_hash"] == CA_HASH and archive.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in archive.parent.iterdir()] == ["copy.tar.gz"], "no plain database is left beside it"


@pytest.mark.parametrize("change", ["other", "new", "gone"])
def test_hazard_keys_that_are_rotated_while_they_are_copied_make_no_copy(
    server: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    plain = datastore.copy

    def rotated(source: Path, target: Path) -> None:
        plain(source, target)
        key = server / "server/cred/encryption-config.json"
        if change == "gone":
            key.unlink()
        else:
            (key if change == "other" else key.with_name("new.key")).write_bytes(b"another")

    monkeypatch.setattr(datastore, "copy", rotated)
    with pytest.raises(datastore.Bad, match="changed its keys or manifests while they were copied"):
        make(server)
    assert not (server.parent / "copy/copy.tar.gz").exists()


def test_a_copy_of_a_stopped_server_is_the_same(server: Path) -> None:
    assert not (server / "server/db/state.db-wal").exists()
    assert make(server)[1]["rows"] == 51


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: (data / "server/db/etcd").mkdir(), "embedded etcd"),
        (lambda data: (data / datastore.DATABASE).unlink(), "external database"),
        (lambda data: (data / "server/token").unlink(), "lacks server/token"),
        (lambda data: (data / datastore.CA).unlink(), "lacks server/tls/server-ca.crt"),
        (lambda data: (data / "server/token").write_text(f"K10{OTHER}::server:x"), "of two clusters"),
        (lambda data: (data / datastore.DATABASE).write_bytes(b"\0" * 4096), "copied"),
    ],
)
def test_what_could_not_be_restored_is_not_copied(server: Path, change: Callable[[Path], object], words: str) -> None:
    change(server)
    with pytest.raises(datastore.Bad, match=words):
        make(server)
    assert not list((server.parent / "copy").glob("*.tar.gz"))


def packed(path: Path, entries: dict[str, bytes], note: dict[str, Any] | None) -> Path:
    """An archive by hand."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {**({datastore.NOTE: json.dumps(note).encode()} if note else {}), **entries}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_a_copy_that_was_changed_cut_or_is_something_else_is_refused(server: Path, tmp_path: Path) -> None:
    archive, _note = make(server)
    whole = archive.read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for length in (0, 10, len(whole) // 2, len(whole) - 400):
        cut.write_bytes(whole[:length])
        (tmp_path / f"open{length}").mkdir()
        with pytest.raises(datastore.Bad):
            datastore.unpack(cut, tmp_path / f"open{length}")
    other = tmp_path / "other.tar.gz"
    note = {"schema": 1, "files": {"server/token": {"sha256": "0" * 64, "mode": 384}}}
    for number, (entries, written, words) in enumerate(
        [
            ({"a": b""}, None, "does not begin with"),
            ({}, {"schema": 2, "files": {}}, "schema 2"),
            ({}, note, "lacks server/token"),
            ({"server/token": b"x"}, note, "was changed"),
            ({"../etc/shadow": b"x"}, note, "belongs to no copy"),
            ({"server/tls/../../x": b"x"}, {"schema": 1, "files": {"server/tls/../../x": {}}}, "belongs to no copy"),
        ]
    ):
        folder = tmp_path / f"other{number}"
        folder.mkdir()
        packed(other, entries, written)
        with pytest.raises(datastore.Bad, match=words):
            datastore.unpack(other, folder)
    assert not (tmp_path / "x").exists()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_copy_put_back_keeps_what_was_there_and_moves_watchers_on(server: Path) -> None:
    password = server.parent / "etc/node/password"
    archive, note = make(server)
    with contextlib.closing(sqlite3.connect(server / datastore.DATABASE)) as db, db:
        write(db, "/registry/later", 0, b"z")
    before = content(server / "server")
    done = datastore.put_back(archive, server, password, "20260102T040000Z")
    assert content(Path(done["aside"][0])) == before and len(done["aside"]) == 1, "the password is the same"
    assert (server / "storage/pvc-1/data").read_bytes() == b"a volume"
    assert not list(server.glob("restoring-*"))
    with contextlib.closing(sqlite3.connect(server / datastore.DATABASE)) as db:
        names = {name for (name,) in db.execute("SELECT name FROM kine")}
        compacted, newest = db.execute(
            "SELECT (SELECT prev_revision FROM kine WHERE name = 'compact_rev_key'), max(id) FROM kine"
        ).fetchone()
    assert "/registry/later" not in names and len(names) == note["rows"] + 1
    assert compacted == newest == done["revision"] > 10**12
    # After a restore of a restore the revision is still ahead of all that anybody saw.
    again = datastore.put_back(archive, server, password, "20260102T040001Z")
    assert again["revision"] > done["revision"]
    assert datastore.in_place(
        {"sha256": datastore.digest(archive)},
        {"restored": datastore.restored(server), "revision": datastore.revision(server)},
    )


def test_a_copy_put_onto_a_new_host_brings_the_nodes_password(server: Path, tmp_path: Path) -> None:
    archive, note = make(server)
    password = tmp_path / "new/etc/password"
    done = datastore.put_back(archive, tmp_path / "new/k3s", password, "s")
    assert done["aside"] == [] and password.read_text() == "of the node\n"
    put = {f"server/{name}" for name in content(tmp_path / "new/k3s/server")}
    assert put == note["files"].keys() - {"node/password"} | {"server/restored.json"}
    password.write_text("of the new host\n")
    done = datastore.put_back(archive, tmp_path / "new/k3s", password, "t")
    assert [Path(path).name for path in done["aside"]] == ["password.before-t", "server.before-t"]


def test_a_copy_that_does_not_verify_leaves_the_server_as_it_was(server: Path, tmp_path: Path) -> None:
    archive, _note = make(server)
    before = content(server)
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(datastore.Bad):
        datastore.put_back(cut, server, tmp_path / "etc/node/password", "s")
    assert content(server) == before


# --- decisions

COPY = {"path": "/b/cluster.tar.gz", "time": STAMP, "ca_hash": CA_HASH, "revision": 100, "sha256": "s"}
NEW: dict[str, Any] = {"name": "server-0", "ca_hash": "", "units": [], "kind": "", "revision": None, "restored": {}}
SAME = {**NEW, "ca_hash": CA_HASH, "units": ["k3s"], "kind": "sqlite", "revision": 100}
SEAL = {"sha256": "s", "revision": 5000}


@pytest.mark.parametrize(
    ("server", "agents", "version", "accepted", "words"),
    [
        (NEW, [], "", "", ""),
        (NEW, [{"name": "agent-0", "ca_hash": CA_HASH}, {"name": "agent-1", "ca_hash": ""}], "", "", ""),
        (NEW, [{"name": "agent-0", "ca_hash": OTHER}], "", "", "agent-0 belongs to another cluster"),
        (NEW, [], "too new.", "", "was made by another k3s: too new"),
        (SAME, [], "", "", ""),
        ({**SAME, "revision": 99}, [], "", "", ""),
        ({**SAME, "revision": None}, [], "", "", ""),
        ({**SAME, "revision": 140}, [], "", "", "-e cluster_restore_accept_loss_after=100"),
        ({**SAME, "revision": 140}, [], "", "140", "up to revision 140"),
        ({**SAME, "revision": 140}, [], "", "100", ""),
        ({**SAME, "revision": 5000, "restored": SEAL}, [], "", "", ""),
        ({**SAME, "revision": 5001, "restored": SEAL}, [], "", "", "up to revision 5001"),
        ({**SAME, "ca_hash": OTHER}, [], "", "", "has a cluster of its own"),
        ({**NEW, "units": ["k3s-agent"]}, [], "", "", "is an agent"),
        ({**SAME, "kind": "etcd", "revision": None}, [], "", "", "embedded etcd"),
    ],
)
def test_when_a_copy_may_become_the_datastore(
    server: dict[str, Any], agents: list[dict[str, Any]], version: str, accepted: str, words: str
) -> None:
    found = datastore.restore_errors(COPY, server, agents, version, accepted)
    assert (len(found) == 1 and words in found[0]) if words else found == []


def test_the_plan_of_a_restore_is_made_of_what_each_host_said_and_leaves_out_who_is_away() -> None:
    def report(host: dict[str, Any]) -> dict[str, Any]:
        return {"name": host["name"], "probe": {"k3s": {**host, "datastore": host.get("kind", "")}}}

    def planned(server: dict[str, Any], *others: dict[str, Any], version: str = "v1.36.4+k3s1") -> Any:
        copy = {**COPY, "k3s": "v1.36.4+k3s1"}
        asked = {"server": "server-0", "reports": [report(server), *others], "version": version, "accepted": ""}
        return cluster_backup_file.restorable(copy, asked)

    assert planned(SAME, {"unreachable": True}, {}) is False
    assert planned({**SAME, "revision": 5000, "restored": SEAL}) is True
    with pytest.raises(datastore.Bad, match="agent-0 belongs to another cluster"):
        planned(NEW, report({"name": "agent-0", "ca_hash": OTHER, "units": []}))
    with pytest.raises(datastore.Bad, match="was made by another k3s"):
        planned(SAME, version="v1.35.0+k3s1")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "none of this server is known: make one with playbooks/cluster_backup.yml"),
        ({"time": "never"}, "none of this server is known"),
        ({"time": 1000.0, "place": "host:/b/x"}, "24 hours old, in host:/b/x."),
        ({"time": 1000.0 - 9 * 86400, "place": "b"}, "10 days old, in b, older than 8 days: make one"),
    ],
)
def test_the_summary_says_how_old_the_last_copy_is(record: dict[str, Any], words: str) -> None:
    assert words in datastore.age(record, 1000.0 + 86400, 8)

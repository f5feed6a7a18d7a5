"""Volumes whose LiteFS does not run: how a pod gets at them, and what is taken for the database."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, sqlitefile, volume_export
from fake_api import FakeApi, LiteFS, Request

Object = dict[str, Any]


class Served(LiteFS):  # type: ignore[misc]
    """What the small pod serves: files by path."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.files = files

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return (200, self.files[path]) if path in self.files else (404, b"not found")


class Storage(FakeApi):  # type: ignore[misc]
    """A cluster in which the pod that looks into a volume runs as soon as it is made, and serves these files."""

    def __init__(self, *objects: Object, files: dict[str, bytes] | None = None) -> None:
        super().__init__(*objects)
        self.files = files or {}
        self.made: list[Object] = []
        self.after.append(self._run)

    def _run(self, request: Request) -> None:
        if (request.method, request.kind) == ("POST", "Pod"):
            self.made.append(request.body)
            name = request.body["metadata"]["name"]
            self.put({**request.body, "status": {"containerStatuses": [{"name": "files", "state": {"running": {}}}]}})
            self.litefs[name] = Served(self.files)


def site(api: FakeApi) -> act.Site:
    return act.Site(api, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202)


def elsewhere(**changed: Any) -> Object:
    """A volume that is no directory of a node, as the state document has it."""
    return {
        "name": "pvc-1",
        "path": None,
        "node": None,
        "claim": "litefs-data-abaci-app-1",
        "claim_uid": "claim-1",
        "ordinal": 1,
        **changed,
    }


def claim(*modes: str, **metadata: Any) -> Object:
    made = make.claim(1, **metadata)
    made["spec"]["accessModes"] = list(modes or ("ReadWriteOnce",))
    return made


def user(state: Object) -> Object:
    """A pod on node-1 that has the claim, with its container in this state."""
    pod = make.pod(1, containerStatuses=[{"name": "app", "state": state}])
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "litefs-data-abaci-app-1"}}]
    return pod


WAITING: Any = {"waiting": {"reason": "PodInitializing"}}
RUNNING: Any = {"running": {}}


def look(api: Storage, volume: Object) -> dict[str, Any]:
    found: dict[str, Any] = volume_export.look(site(api), [volume], "busybox", 5)["pvc-1"]
    return found


def test_a_volume_that_is_no_directory_of_a_node_is_read_through_its_claim() -> None:
    api = Storage(claim(), files={"/data/clusterid": make.A.encode()})
    assert look(api, elsewhere())["cluster_id"] == make.A
    spec = api.made[0]["spec"]
    assert spec["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "litefs-data-abaci-app-1"}},
    ]
    assert spec["containers"][0]["volumeMounts"][0]["readOnly"] is True
    assert "nodeName" not in spec, "the scheduler knows where the volume can be"
    assert api.have("Pod", api.made[0]["metadata"]["name"]) is None, "the pod is gone afterwards"


def test_it_is_read_on_the_node_of_the_pod_that_is_fenced() -> None:
    """ReadWriteOnce is one node's at a time."""
    api = Storage(claim(), user(WAITING), files={"/data/clusterid": make.A.encode()})
    assert look(api, elsewhere())["problem"] is None
    assert api.made[0]["spec"]["nodeName"] == "node-1"


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([], "no claim has it"),
        ([claim(uid="another")], "no claim has it"),
        ([claim(deletionTimestamp="x")], "no claim has it"),
        ([claim(), user(RUNNING)], "in use by pod abaci-app-1"),
        ([claim("ReadWriteOncePod"), user(WAITING)], "in use by pod abaci-app-1"),
    ],
    ids=["no claim", "another's", "going", "its pod runs", "one pod only"],
)
def test_hazard_a_volume_in_use_or_of_another_claim_is_not_mounted(objects: list[Object], words: str) -> None:
    api = Storage(*objects)
    assert words in look(api, elsewhere())["problem"]
    assert not api.made


def test_a_volume_for_many_is_read_beside_the_pod_that_runs_on_it() -> None:
    api = Storage(claim("ReadWriteMany"), user(RUNNING), files={"/data/clusterid": make.A.encode()})
    assert look(api, elsewhere())["problem"] is None and "nodeName" not in api.made[0]["spec"]


def test_a_directory_of_a_node_is_read_there_and_of_no_dead_one() -> None:
    volume = elsewhere(path="/var/lib/rancher/k3s/storage/pvc-1", node="node-1")
    api = Storage(make.kube_node("node-1"), files={"/data/clusterid": make.A.encode()})
    assert look(api, volume)["problem"] is None
    assert api.made[0]["spec"]["nodeName"] == "node-1" and "hostPath" in api.made[0]["spec"]["volumes"][0]
    dead = Storage(make.kube_node("node-1", ready=False))
    assert "on node node-1, which does not answer" in look(dead, volume)["problem"] and not dead.made


# --- which of the files are the database ----------------------------------------------------------------------------


def files(folder: Path, *, through: bool = False) -> tuple[bytes, bytes, str]:
    """A database that lacks what its WAL has, the WAL, and LiteFS's checksum of both together."""
    path, both = folder / "database", folder / "both"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, body TEXT)")
        db.execute("INSERT INTO records (body) VALUES ('only in the WAL')")
        content, wal = path.read_bytes(), path.with_name("database-wal").read_bytes()
    both.write_bytes(content)
    both.with_name("both-wal").write_bytes(wal)
    sqlitefile.settle(both)
    checksum = sqlitefile.verify(both)["checksum"]
    return (both.read_bytes() if through else content), wal, str(checksum)


def saved(tmp_path: Path, served: dict[str, bytes], checksum: str) -> tuple[dict[str, Any], int]:
    """What save() makes of these files, and the rows in it."""
    base = f"/data/dbs/{make.DATABASE}"
    name = f"{4:016x}-{5:016x}"
    all_files = {
        "/data/clusterid": make.A.encode(),
        "/ltx": f"{name}.ltx\n".encode(),
        f"{base}/ltx/{name}.ltx": struct.pack(">QQ", int(checksum, 16), 0),
        **{f"{base}/{key}": value for key, value in served.items()},
    }
    api = Storage(make.kube_node("node-1"), files=all_files)
    volume = elsewhere(path="/p", node="node-1")
    out = tmp_path / "out"
    out.mkdir()
    manifest = volume_export.save(site(api), volume, "busybox", out, reason="test")
    if manifest.get("empty"):
        return manifest, 0
    copy = tmp_path / "copy"
    shutil.copy(out / manifest["file"], copy)
    with contextlib.closing(sqlite3.connect(copy)) as db:
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return manifest, db.execute("SELECT count(*) FROM records").fetchone()[0] if tables else 0


def test_hazard_what_a_failed_start_put_aside_is_part_of_the_database(tmp_path: Path) -> None:
    database, wal, checksum = files(tmp_path)
    manifest, rows = saved(tmp_path, {"database": database, "wal.removed": wal}, checksum)
    assert rows == 1 and manifest["position_proven"] is True


def test_hazard_a_wal_that_was_put_aside_long_ago_is_not(tmp_path: Path) -> None:
    """It stays there for ever; over a newer database it would undo what came since."""
    database, wal, _checksum = files(tmp_path, through=True)
    newer = tmp_path / "newer"
    newer.write_bytes(database)
    with contextlib.closing(sqlite3.connect(newer)) as db:
        db.execute("INSERT INTO records (body) VALUES ('since')")
        db.commit()
    sqlitefile.settle(newer)
    checksum = sqlitefile.verify(newer)["checksum"]
    manifest, rows = saved(tmp_path, {"database": newer.read_bytes(), "wal.removed": wal}, checksum)
    assert rows == 2 and manifest["position_proven"] is True


def test_the_wal_itself_comes_before_one_that_was_put_aside(tmp_path: Path) -> None:
    database, wal, checksum = files(tmp_path)
    manifest, rows = saved(tmp_path, {"database": database, "wal": wal, "wal.removed": b"old"}, checksum)
    assert rows == 1 and manifest["position_proven"] is True


def test_a_copy_of_another_checksum_is_kept_and_said_to_be_unproven(tmp_path: Path) -> None:
    database, wal, _checksum = files(tmp_path)
    manifest, rows = saved(tmp_path, {"database": database, "wal": wal}, "bad0000000000005")
    assert rows == 1 and manifest["position_proven"] is False


def test_no_database_is_nothing_to_lose(tmp_path: Path) -> None:
    manifest, _rows = saved(tmp_path, {}, "0" * 16)
    assert manifest["empty"] is True and manifest["volume_of"] == 1

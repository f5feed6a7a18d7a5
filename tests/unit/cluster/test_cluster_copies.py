"""Copies of the datastore as they are kept: on the controller by the module, on the server by the timer's program."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.abaci.infra.plugins.module_utils import datastore
from ansible_collections.abaci.infra.plugins.module_utils.operations import export, retention
from ansible_collections.abaci.infra.plugins.modules import (
    backup_keep,
    cluster_backup,
    cluster_backup_file,
    cluster_restore,
    volumes_copy,
)
from test_datastore import server as server  # the fixture

ROOT = Path(__file__).parents[3]
# Turns every byte around: enough to see that nothing plain is kept.
TURN = [sys.executable, "-c", "import sys;sys.stdout.buffer.write(bytes(255-b for b in sys.stdin.buffer.read()))"]


def ended(module: Any, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        module.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.fixture
def keep(server: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Copy the datastore and keep the copy, as the role does on two machines; the module's answer."""

    def run(**options: Any) -> dict[str, Any]:
        work = tmp_path / f"work{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        where = {"data_dir": str(server), "password_file": str(tmp_path / "etc/node/password")}
        made = ended(cluster_backup, {**where, "host": "server-0", "path": str(work / "copy.tar.gz")}, capsys)
        assert made["changed"], made
        kept = {"path": str(work / "copy.tar.gz"), "keep_in": str(tmp_path / "kept"), "work": str(work), **options}
        answer = ended(cluster_backup_file, kept, capsys)
        assert not list(work.rglob("state.db")), "nothing that was unpacked stays"
        return answer

    return run


def opened(tmp_path: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    work = tmp_path / "opened"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    return ended(cluster_backup_file, {"path": str(tmp_path / "kept"), "work": str(work), **options}, capsys)


def test_an_encrypted_copy_is_read_back_kept_for_its_owner_and_opened_again(
    keep: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = keep(encrypt_command=TURN, decrypt_command=TURN)
    made = answer["copied"]
    assert made["encrypted"] and made["read_back"] and made["path"].endswith(".tar.gz.encrypted")
    files = sorted(path for path in (tmp_path / "kept").iterdir())
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
    assert Path(made["path"]).read_bytes()[:2] != b"\x1f\x8b", "no gzip"
    assert answer["record"]["place"].endswith(f":{made['path']}")
    there = opened(tmp_path, capsys, decrypt_command=TURN)["copied"]
    assert (there["sha256"], there["revision"]) == (made["sha256"], made["revision"])
    assert datastore.digest(Path(there["plain"])) == made["sha256"]
    assert Path(there["plain"]).stat().st_mode & 0o777 == 0o600, "it holds every secret of the cluster"
    refused = opened(tmp_path, capsys, variables="cluster_restore")["msg"]
    assert refused == f"{made['path']} is encrypted: set cluster_restore_decrypt_command."
    refused = opened(tmp_path, capsys, decrypt_command=["false"], variables="cluster_restore")["msg"]
    assert "cluster_restore_decrypt_command (false) failed" in refused


def test_a_copy_is_opened_for_a_server_whose_datastore_it_may_become(
    keep: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep()
    made = opened(tmp_path, capsys)["copied"]
    probe = {"ca_hash": made["ca_hash"], "units": ["k3s"], "datastore": "sqlite", "revision": 1, "restored": {}}

    def asked(**changes: Any) -> dict[str, Any]:
        reports = [{"name": "server-0", "probe": {"k3s": {**probe, **changes}}}, {"unreachable": True}]
        restore = {"server": "server-0", "reports": reports, "version": made["k3s"]}
        return opened(tmp_path, capsys, restore=restore)

    answer = asked()
    assert answer["in_place"] is False and answer["copied"]["sha256"] == made["sha256"]
    assert asked(revision=7, restored={"sha256": made["sha256"], "revision": 7})["in_place"] is True
    refused = asked(ca_hash="0" * 64)
    assert refused["failed"] and "has a cluster of its own (CA 000000000000)" in refused["msg"]


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ({"encrypt_command": ["false"]}, "cluster_backup_encrypt_command (false) failed"),
        ({"encrypt_command": ["no-such-tool"]}, "No such file"),
        ({"encrypt_command": TURN, "decrypt_command": ["cat"]}, "gives back another content"),
    ],
)
def test_a_copy_that_could_not_be_encrypted_or_read_back_is_none(
    keep: Callable[..., dict[str, Any]], tmp_path: Path, commands: dict[str, Any], words: str
) -> None:
    assert words in keep(**commands)["msg"]
    assert list((tmp_path / "kept").iterdir()) == []


def test_the_newest_whole_copy_of_a_folder_is_opened_and_backups_of_databases_are_not_touched(
    keep: Callable[..., dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    for day in (1, 2, 3):
        monkeypatch.setattr(cluster_backup.clock, "now", lambda day=day: f"2026-01-0{day}T03:00:00Z")
        made.append(keep(keep=2))
    assert made[2]["removed"] == [made[0]["copied"]["file"]] and not made[1]["removed"]
    note = {"schema": 1, "reason": "backup", "time": "2027-01-01T00:00:00Z", "file": "a.sqlite", "size": 1}
    (tmp_path / "kept" / f"a{retention.SUFFIX}").write_text(json.dumps(note))
    (tmp_path / "kept/a.sqlite").write_text("x")
    assert opened(tmp_path, capsys)["copied"]["path"] == made[2]["copied"]["path"]
    os.truncate(made[2]["copied"]["path"], 100)
    assert opened(tmp_path, capsys)["copied"]["path"] == made[1]["copied"]["path"]


def test_check_mode_says_what_cannot_be_copied_and_changes_nothing(
    server: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = {"_ansible_check_mode": True}
    options = {**check, "data_dir": str(server), "host": "server-0", "path": str(tmp_path / "copy.tar.gz")}
    said = ended(cluster_backup, options, capsys)
    assert said["changed"] and said["note"] == {}
    assert not (tmp_path / "copy.tar.gz").exists()
    (server / "server/db/etcd").mkdir()
    assert "embedded etcd" in ended(cluster_backup, options, capsys)["msg"]
    before = sorted(server.rglob("*"))
    put = {**check, "archive": str(tmp_path / "none"), "data_dir": str(server)}
    assert ended(cluster_restore, put, capsys)["changed"]
    assert sorted(server.rglob("*")) == before


# --- the timer


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The timer's program beside the files that the role installs with it."""
    home = tmp_path / "home"
    (home / "kept/operations").mkdir(parents=True)
    shutil.copy(ROOT / "roles/cluster_backup/files/job.py", home)
    utils = ROOT / "plugins/module_utils"
    for path in ("datastore.py", "telling.py", "operations/keeping.py", "operations/retention.py"):
        shutil.copy(utils / path, home / "kept" / path)
    return home / "job.py"


def settings(server: Path, tmp_path: Path, **other: Any) -> dict[str, Any]:
    found = {"data_dir": str(server), "host": "server-0", "keep": 2, "encrypt_command": TURN}
    return {**found, "target": str(tmp_path / "nas"), "record": str(tmp_path / "record.json"), **other}


def test_the_timer_needs_no_collection_and_refuses_the_disk_that_it_copies(
    server: Path, tmp_path: Path, program: Path
) -> None:
    (tmp_path / "nas").mkdir()
    given = tmp_path / "settings.json"
    given.write_text(json.dumps(settings(server, tmp_path)))
    # -S: without site-packages, as on a host.
    command = [sys.executable, "-S", str(program), str(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "would be lost together with it" in done.stderr, done.stderr
    assert list((tmp_path / "nas").iterdir()) == [] and not (tmp_path / "record.json").exists()


def test_the_timer_keeps_encrypted_copies_and_notes_the_last(
    server: Path, tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(program.parent))
    spec = importlib.util.spec_from_file_location("timer_job", program)
    assert spec and spec.loader
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    (tmp_path / "nas").mkdir()
    real = Path.stat

    def elsewhere(path: Path, **options: Any) -> Any:
        found = real(path, **options)
        return SimpleNamespace(st_dev=-1, st_mode=found.st_mode) if path == tmp_path / "nas" else found

    monkeypatch.setattr(Path, "stat", elsewhere)
    made = job.run(settings(server, tmp_path), tmp_path / "etc/node/password")
    assert made["encrypted"] and made["read_back"] is False and made["cluster_id"]
    names = sorted(path.name for path in (tmp_path / "nas").iterdir())
    assert len(names) == 2 and names[1].endswith(".tar.gz.encrypted")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["place"] == f"server-0:{made['path']}"
    assert "0 hours old" in datastore.age(record, record["time"] + 60, 8)


# --- databases that were copied on a host


def test_a_database_from_a_host_is_kept_as_restore_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = tmp_path / "storage/pvc-1_abaci_litefs-data-abaci-app-0"
    (volume / "dbs/sqlite.db/ltx").mkdir(parents=True)
    (volume / "clusterid").write_text("LFSC0123456789ABCDEF\n")
    with contextlib.closing(sqlite3.connect(volume / "dbs/sqlite.db/database")) as db, db:
        db.execute("CREATE TABLE records (id INTEGER PRIMARY KEY)")
        db.execute("INSERT INTO records VALUES (1), (2)")
    here = tmp_path / "there"
    here.mkdir()
    options = {"storage_dir": str(tmp_path / "storage"), "directory": str(here)}
    (made,) = ended(volumes_copy, options, capsys)["copies"]
    assert made["cluster_id"] == "LFSC0123456789ABCDEF" and made["position_proven"] is False, "there is no LTX file"
    about = {**made, "database": "sqlite.db", "pod": made["volume"], "reason": "volume_export"}
    keep = {"path": made["path"], "directory": str(tmp_path / "backups"), "manifest": about}
    kept = ended(backup_keep, {**keep, "manifest": {**about, "sha256": "0" * 64}}, capsys)
    assert "is not what was copied on the host" in kept["msg"] and not list((tmp_path / "backups").iterdir())
    kept = ended(backup_keep, keep, capsys)["manifest"]
    assert kept["path"].startswith(str(tmp_path / "backups"))
    described = export.describe(Path(kept["path"]), [], tmp_path)
    assert described["verified"] and described["rows"] == {"records": 2}, described
    assert described["cluster_id"] == "LFSC0123456789ABCDEF"


def test_a_volume_that_cannot_be_copied_is_named_and_the_others_are_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("pvc-1", b"\0" * 4096), ("pvc-2", None)):
        folder = tmp_path / "storage" / name / "dbs/sqlite.db"
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "database").write_bytes(content)
        else:
            with contextlib.closing(sqlite3.connect(folder / "database")) as db, db:
                db.execute("CREATE TABLE a (b)")
    (tmp_path / "there").mkdir()
    options = {"storage_dir": str(tmp_path / "storage"), "directory": str(tmp_path / "there")}
    answer = ended(volumes_copy, options, capsys)
    broken, whole = answer["copies"]
    first, second = answer["said"]
    assert first.startswith("pvc-2: TXID ") and "NOT proven" in first and second == broken["problem"]
    nothing = ended(volumes_copy, {**options, "storage_dir": str(tmp_path / "none")}, capsys)
    assert nothing["said"] == ["No volume with the database is here."]
    assert "pvc-1" in broken["problem"] and "path" not in broken
    assert whole["volume"] == "pvc-2" and Path(whole["path"]).is_file()

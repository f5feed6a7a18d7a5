"""Backups that prove themselves, and the way back from them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import operating as op
import pytest
from operating import operate, refused
from publishing import application, images, publish
from sitebed import ROOT, Bed, until

APP_IMAGE = "ghcr.io/antialias/soroban-abacus-flashcards:latest"
RCLONE_IMAGE = "docker.io/rclone/rclone:test"


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("restore") / "backups"


def test_a_backup_is_the_primarys_position_and_every_row(bed: Bed, backups: Path) -> None:
    op.post(bed, 25, "backed up")
    place, rows = op.agree(bed), op.rows(bed, 0)
    run = operate(bed, "backup", "-e", "backup_keep=2", backups=backups)
    assert run.rc == 0, run.output[-3000:]
    (manifest,) = op.manifests(backups)
    assert (manifest["cluster_id"], manifest["txid"], manifest["checksum"]) == place
    assert manifest["pod"] != "abaci-app-0", "taken from a replica"
    with closing(sqlite3.connect(f"file:{backups / manifest['file']}?mode=ro&immutable=1", uri=True)) as db:
        count, total = db.execute("SELECT count(*), total(id) FROM records").fetchone()
    assert f"{count}|{total}" == rows


def scheduled(bed: Bed, backups: Path, **variables: object) -> None:
    """Make the CronJob with these variables; with none, remove it."""
    arguments = {"backup_schedule": "17 3 * * *", "backup_image": APP_IMAGE, **variables} if variables else {}
    run = operate(bed, "backup", "-e", json.dumps(arguments), backups=backups)
    assert run.rc == 0, run.output[-3000:]
    there = "abaci-app-backup" in bed.kubectl("get", "cronjob", "-n", "abaci", check=False)
    assert there == bool(variables)


def run_now(bed: Bed, condition: str = "complete", seconds: int = 120) -> None:
    """Run the CronJob's job once, to this end."""
    bed.kubectl("create", "job", "-n", "abaci", "--from=cronjob/abaci-app-backup", "backup-now")
    ended = ("wait", "-n", "abaci", f"--for=condition={condition}", "job/backup-now", f"--timeout={seconds}s")
    try:
        bed.kubectl(*ended, timeout=seconds + 30)
    finally:
        bed.kubectl("delete", "job", "-n", "abaci", "backup-now")


def test_the_job_writes_the_same_to_a_mounted_path(bed: Bed, backups: Path) -> None:
    node = bed.get("pod", "abaci-app-1", "-n", "abaci")["spec"]["nodeName"]
    volume = {"hostPath": {"path": "/var/backups/abaci", "type": "DirectoryOrCreate"}}
    scheduled(bed, backups, backup_volume=volume, backup_node_selector={"kubernetes.io/hostname": node})
    run_now(bed)
    names = bed.node_exec(node, "ls", "/var/backups/abaci").split()
    (file,) = [name for name in names if name.endswith(".sqlite")]
    assert op.agree(bed)[1] in file and len(names) == 2
    assert bed.node_exec(node, "sqlite3", f"/var/backups/abaci/{file}", "PRAGMA integrity_check").strip() == "ok"
    scheduled(bed, backups)


def rclone(folder: Path) -> images.Entry:
    """Debian's rclone, taken out of its package."""
    for command in (("apt-get", "download", "rclone"), ("sh", "-c", "dpkg-deb -x rclone_*.deb .")):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    return images.Entry("usr/bin/rclone", folder / "usr/bin/rclone", mode=0o755)


def test_the_job_copies_to_an_rclone_remote_and_a_remote_that_is_away_fails_it(
    bed: Bed, backups: Path, tmp_path: Path
) -> None:
    """Through rclone's crypt to a WebDAV server in another namespace, as to a provider that must not read it."""
    publish(bed, application(rclone(tmp_path)), "rclone/rclone:test", tmp_path)
    bed.kubectl("create", "namespace", "elsewhere")
    try:
        serve = ("rclone", "serve", "webdav", "/tmp", "--addr", ":8090")
        bed.kubectl("run", "webdav", "-n", "elsewhere", f"--image={RCLONE_IMAGE}", "--command", "--", *serve)
        bed.kubectl("wait", "-n", "elsewhere", "--for=condition=Ready", "pod/webdav", "--timeout=120s", timeout=150)
        address = bed.get("pod", "webdav", "-n", "elsewhere")["status"]["podIP"]
        password = bed.kubectl("exec", "-n", "elsewhere", "webdav", "--", "rclone", "obscure", "secret").strip()
        conf = tmp_path / "rclone.conf"
        conf.write_text(
            f"[there]\ntype = webdav\nurl = http://{address}:8090\nvendor = other\n"
            f"[sealed]\ntype = crypt\nremote = there:abaci\npassword = {password}\n"
        )
        bed.kubectl("create", "secret", "generic", "rclone", "-n", "abaci", f"--from-file={conf}")
        remote = {"backup_rclone_remote": "sealed:", "backup_rclone_secret": "rclone"}
        scheduled(bed, backups, backup_rclone_image=RCLONE_IMAGE, **remote)
        run_now(bed)
        there = ("exec", "-n", "elsewhere", "webdav", "--")
        assert "sqlite" not in bed.kubectl(*there, "find", "/tmp/abaci"), "the server sees no names"
        bed.kubectl("cp", "-n", "elsewhere", str(conf), "webdav:/tmp/rclone.conf")
        bed.kubectl(*there, "rclone", "--config", "/tmp/rclone.conf", "copy", "sealed:", "/tmp/back")
        (file,) = bed.kubectl(*there, "sh", "-c", "ls /tmp/back/*.sqlite").split()
        assert op.agree(bed)[1] in file
        program = f"import sqlite3;d=sqlite3.connect('file:{file}?mode=ro&immutable=1',uri=True)"
        program += ";print(d.execute('select count(*), total(id) from records').fetchone())"
        count, total = bed.kubectl(*there, "python3", "-c", program).strip(" ()\n").split(", ")
        assert f"{count}|{total}" == op.rows(bed, 0)

        bed.kubectl("delete", "pod", "webdav", "-n", "elsewhere", timeout=120)
        run_now(bed, "failed", 300)
    finally:
        bed.kubectl("delete", "namespace", "elsewhere", "--wait=false", check=False)
        bed.kubectl("delete", "secret/rclone", "-n", "abaci", check=False)
    scheduled(bed, backups)


def test_a_restore_into_the_running_site_and_what_it_refuses(bed: Bed, backups: Path, tmp_path: Path) -> None:
    first = op.manifests(backups)[0]
    place = op.agree(bed)
    op.post(bed, 10, "taken back")
    undone = op.rows(bed, 0)
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes((backups / first["file"]).read_bytes()[:-100])
    refused(operate(bed, "restore", "-e", f"restore_from={broken}", backups=backups), "whole number of 4096-byte pages")
    for key, pragma in (("page size", "page_size=1024"), ("journal mode", "journal_mode=wal")):
        other = tmp_path / f"{key.replace(' ', '-')}.sqlite"
        with closing(sqlite3.connect(other)) as db:
            db.executescript(f"PRAGMA {pragma}; CREATE TABLE records (id INTEGER PRIMARY KEY, body TEXT);")
        arguments = ("-e", f"restore_from={other}", "-e", f"restore_overwrite_cluster_id={place[0]}")
        refused(operate(bed, "restore", *arguments, backups=backups), "LiteFS does not survive the difference", key)
    plain = tmp_path / "plain.sqlite"
    plain.write_bytes((backups / first["file"]).read_bytes())
    refused(
        operate(bed, "restore", "-e", f"restore_from={plain}", backups=backups),
        f"restore_overwrite_cluster_id={place[0]}",
    )
    assert op.rows(bed, 0) == undone

    run = operate(bed, "restore", "-e", f"restore_from={backups / first['file']}", backups=backups)
    assert run.rc == 0, run.output[-4000:]
    assert f"checksum {first['imported_checksum']}" in run.output
    restored = op.agree(bed)
    assert restored[0] == place[0] and restored[2] == first["imported_checksum"]
    with closing(sqlite3.connect(f"file:{backups / first['file']}?mode=ro&immutable=1", uri=True)) as db:
        count, total = db.execute("SELECT count(*), total(id) FROM records").fetchone()
    assert [op.rows(bed, ordinal) for ordinal in (0, 1, 2)] == [f"{count}|{total}"] * 3
    kept = [one for one in op.manifests(backups) if one["reason"] == "before restore"]
    assert kept, "the present database was exported first"
    assert bed.edge("POST", "/api/records", b'{"body": "life goes on"}').status == 201
    op.agree(bed)


def test_a_migration_has_a_copy_before_it(bed: Bed) -> None:
    def copies() -> set[str]:
        listed = bed.in_pod("abaci-app-0", "ls", "/var/lib/litefs/backups", check=False).split()
        return {name for name in listed if name.endswith(".before-migration.sqlite")}

    before = copies()
    bed.kubectl("rollout", "restart", "sts/abaci-app", "-n", "abaci")
    bed.kubectl("rollout", "status", "sts/abaci-app", "-n", "abaci", "--timeout=240s", timeout=260)
    after = copies()
    assert after - before, "it was written to since the last start"
    newest = max(after)
    program = f"import sqlite3;d=sqlite3.connect('file:/var/lib/litefs/backups/{newest}?mode=ro&immutable=1',uri=True)"
    program += ";print(d.execute('pragma integrity_check').fetchone()[0])"
    assert bed.in_pod("abaci-app-0", "python3", "-c", program).strip() == "ok"


def test_200_mb_restored_into_a_site_that_has_no_copy_left_checksums_equal(
    bed: Bed, backups: Path, tmp_path: Path
) -> None:
    big = tmp_path / "big.sqlite"
    with closing(sqlite3.connect(big)) as db:
        for (sql,) in db_schema(bed):
            db.execute(sql)
        db.execute("PRAGMA user_version=1")
        db.execute(f"PRAGMA journal_mode={bed.rows('abaci-app-0', 'PRAGMA journal_mode')}")
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 98000)"
            " INSERT INTO records (body) SELECT hex(randomblob(1000)) FROM n"
        )
        db.commit()
    assert big.stat().st_size > 195_000_000
    cluster = op.agree(bed)[0]
    before = operate(
        bed, "restore", "-e", f"restore_from={big}", "-e", f"restore_overwrite_cluster_id={cluster}", backups=backups
    )
    assert before.rc == 0, before.output[-3000:]
    began = time.monotonic()
    taken = operate(bed, "backup", backups=backups)
    print(f"backup of 200 MB: {time.monotonic() - began:.0f} s")
    assert taken.rc == 0, taken.output[-3000:]
    manifest = next(one for one in op.manifests(backups) if one["reason"] == "backup" and one["size"] > 195_000_000)
    file = backups / manifest["file"]

    bed.kubectl("delete", "pvc", *op.claims(bed), "-n", "abaci", "--wait=false")
    bed.kubectl("delete", "pod", "-n", "abaci", *(f"abaci-app-{ordinal}" for ordinal in (0, 1, 2)), timeout=180)
    until(lambda: "refuses to start as primary" in op.guard_says(bed, 0), 180, "the guard holds pod-0")
    seen = operate(bed, "restore", "-e", f"restore_from={file}", backups=backups)
    refused(seen, "holds the recorded cluster", f"was taken at TXID {manifest['txid']}")
    kept = [name for name, phase in op.volumes(bed).items() if phase == "Released"]
    bed.kubectl("delete", "pv", *kept)

    began = time.monotonic()
    acts = op.until_done(bed, "restore", "-e", f"restore_from={file}", backups=backups)
    print(f"restore of 200 MB into a site without a copy: {time.monotonic() - began:.0f} s, killed after {acts}")
    place = op.agree(bed, seconds=180)
    assert place[0] != cluster and place[2] == manifest["imported_checksum"]
    assert op.record(bed)["state"] == "recorded" and op.record(bed)["clusterID"] == place[0]
    assert {op.rows(bed, ordinal).split("|")[0] for ordinal in (0, 1, 2)} == {"98000"}
    until(lambda: bed.edge("POST", "/api/records", b'{"body": "after"}').status == 201, 60, "writes again")
    site = bed.playbook("--tags", "app")
    assert site.rc == 0, site.output[-3000:]


def db_schema(bed: Bed) -> list[tuple[str]]:
    """The application's tables."""
    import sys

    sys.path.insert(0, str(ROOT / "testbed/app"))
    import migrate

    assert bed.rows("abaci-app-0", "PRAGMA user_version") == str(len(migrate.STEPS))
    return [(statement,) for step in migrate.STEPS for statement in step]
